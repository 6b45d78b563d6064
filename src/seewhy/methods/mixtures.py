"""Methods that mask the input with mixtures of a layer's channels and compute the score of the masked input.

Notation: that of masking.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from seewhy.methods.base import Method, MethodCard
from seewhy.methods.masking import varying_maps
from seewhy.signals.evaluator import TRAINING_STEP
from seewhy.signals.layer import Need, Signals
from seewhy.signals.scoring import Probability
from seewhy.tensors.map_functions import gaussian_blur, normalize_minmax, rectify, resize, weighted_sum


@final
@dataclass(frozen=True)
class GroupCAM(Method):
    """Mask a blurred input with groups of channels: sum_g (p(x m_g + blur(x) (1 - m_g)) - p(blur(x))) a_g.

    a_g = relu(sum of mean(G_k) A_k over a group of consecutive channels); m_g = N(U(a_g)); the blur is Gaussian.

    Args:
        groups: Number of groups, at least 1.
        percentile: Values of a_g up to this percentile, 0 to 100, become 0. None: keep all.
        blur: Width of the blur in pixels, odd.
        sigma: Standard deviation of the blur in pixels.

    References:
        Zhang et al., "Group-CAM", 2021, https://arxiv.org/abs/2103.13859
    """

    groups: int = 32
    percentile: float | None = 70.0
    blur: int = 51
    sigma: float = 50.0

    card = MethodCard(
        "Zhang et al., Group-CAM, 2021", "Σ_g (p(x m_g + x̃ (1−m_g)) − p(x̃)) a_g",
        "Nearly Score-CAM at a tenth of its cost; compares with a blurred input, not an empty one.",
        cost="shared, and 33 forwards of the full model",
        source="The paper's denoising (70th percentile); the authors' last code has none: percentile=None.",
        pitfalls="Groups are consecutive channels, so the order of channels changes the map.",
    )  # fmt: skip
    needs = Need.GRADIENTS | Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.groups >= 1, f"groups={self.groups}: must be at least 1.")
        self.check(self.blur % 2 == 1 and self.blur > 0, f"blur={self.blur}: must be an odd number of pixels.")
        is_valid = self.percentile is None or 0 <= self.percentile <= 100
        self.check(is_valid, f"percentile={self.percentile}: must be 0 to 100, or None.")

    def forwards(self, channels: int, cells: int) -> int:
        return min(self.groups, channels) + 1

    def __call__(self, signals: Signals) -> Tensor:
        return torch.stack([self.map_of(signals, index) for index in range(len(signals.activations))])

    def map_of(self, signals: Signals, index: int) -> Tensor:
        own, image = signals.activations[index], signals.inputs[index]
        weights = signals.gradients[index].flatten(1).mean(1)
        parts = zip(own.chunk(self.groups), weights.chunk(self.groups), strict=True)
        groups = torch.cat([rectify(weighted_sum(weight[None], part[None])) for part, weight in parts])
        if self.percentile is not None:
            limits = groups.flatten(1).quantile(self.percentile / 100, dim=1)
            groups = torch.where(groups > limits.reshape(-1, *[1] * (groups.dim() - 1)), groups, 0.0)
        groups = groups[varying_maps(groups)]
        blurred = gaussian_blur(image[None], self.blur, self.sigma)[0]

        def mixed(rows: slice) -> Tensor:
            masks = normalize_minmax(resize(groups[rows], image.shape[1:]))[:, None].to(image.dtype)
            return image * masks + blurred * (1 - masks)

        base = signals.score_inputs(index, 1, lambda _: blurred[None], scoring=Probability())
        if not len(groups):
            return own.new_zeros(own.shape[1:])
        gains = signals.score_inputs(index, len(groups), mixed, scoring=Probability()) - base
        return weighted_sum(gains[None].to(groups.dtype), groups[None])[0]


@final
@dataclass(frozen=True)
class OptiCAM(Method):
    """Optimize a mixture of channels so that its mask keeps the logit high: sum_k softmax(u)_k relu(A_k).

    Adam minimizes z(x) - z(x * N(U(map))) over u, which starts at 0.5.

    Args:
        steps: Steps of Adam, at least 1.
        lr: Learning rate, above 0.

    References:
        Zhang et al., "Opti-CAM", CVIU 2024, https://arxiv.org/abs/2301.07002
    """

    steps: int = 50
    lr: float = 0.1

    card = MethodCard(
        "Zhang et al., Opti-CAM, CVIU 2024", "argmax z(x ⊙ N(U(Σₖ softmax(u)ₖ Aₖ)))",
        "The best mask that a mixture of the layer's channels can make.",
        cost="50 forwards + 50 backwards of the full model",
        source="The authors' released script (lr 0.1, 50 steps, logit), without its early stopping.",
        pitfalls="Optimizes what confidence drop and increase measure; do not rank it by those metrics.",
    )  # fmt: skip
    needs = Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.steps >= 1, f"steps={self.steps}: must be at least 1.")
        self.check(self.lr > 0, f"lr={self.lr}: must be above 0.")

    def forwards(self, channels: int, cells: int) -> int:
        return TRAINING_STEP * self.steps

    def __call__(self, signals: Signals) -> Tensor:
        return torch.stack([self.map_of(signals, index) for index in range(len(signals.activations))])

    def map_of(self, signals: Signals, index: int) -> Tensor:
        image, channels = signals.inputs[index], rectify(signals.activations[index])
        with torch.inference_mode(False), torch.enable_grad():
            channels = channels.clone()
            mixture = torch.full((1, len(channels)), 0.5, dtype=channels.dtype, device=channels.device).requires_grad_()
            # A constant channel does not change the mask. Without this, Adam would follow its rounding noise.
            moving = torch.zeros_like(mixture).index_fill_(1, varying_maps(channels), 1.0).detach()
            optimizer = torch.optim.Adam([mixture], lr=self.lr)
            for _ in range(self.steps):
                maps = weighted_sum(mixture.softmax(1), channels[None])
                mask = normalize_minmax(resize(maps, image.shape[1:])).to(image.dtype)
                loss = -signals.differentiable_scores(index, image * mask[:, None]).sum()
                (gradient,) = torch.autograd.grad(loss, mixture)
                mixture.grad = gradient * moving
                optimizer.step()
        return weighted_sum(mixture.detach().softmax(1), channels[None])[0]
