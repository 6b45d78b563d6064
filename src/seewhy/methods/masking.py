"""Methods that mask the picture with what a layer's channels show, and ask the whole network what is left of the score.

Notation: x (C, *size) one picture as the network sees it, A (K, *grid), U linear to the input's size, N min-max to [0, 1],
p the probability of the class, z its logit. A masked picture is x * mask: 0 in the network's input space, which for
networks with normalized inputs is the mean colour. Channels that are the same everywhere mask nothing and are not asked.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.methods.base import Method, MethodCard, Weighted
from seewhy.signals.layer import Need, Signals
from seewhy.signals.scoring import Probability, Scoring, TargetScore
from seewhy.tensors import (
    INTERPOLATION_MODES,
    gaussian_blur,
    is_not_constant,
    normalize_minmax,
    rectify,
    resize,
    weighted_sum,
)

MEAN_COLOUR = "What is masked becomes 0 in the network's input space (the mean colour), which is no neutral picture."


@dataclass(frozen=True)
class Masking(Weighted):
    """Channels weighted by what the network says of the picture masked with them."""

    needs = Need.EVALUATOR

    def weights(self, signals: Signals) -> Tensor:
        return torch.stack([self.weights_of(signals, picture) for picture in range(len(signals.activations))])

    @abstractmethod
    def weights_of(self, signals: Signals, picture: int) -> Tensor:
        """The weight of each channel (K,) for one picture."""


@final
@dataclass(frozen=True)
class ScoreCAM(Masking):
    """Channels weighted by the score of the picture masked with them: w_k = p(x * N(U(A_k))).

    Wang et al., CVPRW 2020. `variant` "authors" is their code, as above; "paper" is equation 4: the softmax over channels of
    the logits z(x * N(U(A_k))) (less a baseline's, which the softmax does not see); "gradcam" and "torchcam" are what the
    packages of that name compute: the softmax too, masks resized with aligned corners and constant channels counted
    (gradcam), masks made before resizing (torchcam). `batch_size` limits the rows of one forward (default: what fits the
    memory budget).
    """

    variant: Literal["authors", "paper", "gradcam", "torchcam"] = "authors"
    batch_size: int | None = None

    card = MethodCard(
        "Wang et al., Score-CAM, CVPRW 2020", "Σₖ p(x ⊙ N(U(Aₖ))) Aₖ",
        "No gradients, so no noise from them; broad maps.",
        cost="K forwards of the whole network",
        source="The authors' code; the paper's softmax over channels is nearly one-hot for a thousand channels.",
        pitfalls=MEAN_COLOUR,
    )  # fmt: skip

    def __post_init__(self) -> None:
        known = ("authors", "paper", "gradcam", "torchcam")
        self.check(self.variant in known, f"variant={self.variant!r}: give one of {', '.join(known)}.")
        self.check_batch(self.batch_size)

    def forwards(self, channels: int, cells: int) -> int:
        return channels

    def weights_of(self, signals: Signals, picture: int) -> Tensor:
        own, image = signals.activations[picture], signals.inputs[picture]
        size = image.shape[1:]
        alive = varied(own)
        chosen = torch.arange(len(own), device=own.device) if self.variant == "gradcam" else alive

        def masked(rows: slice) -> Tensor:
            maps = own[chosen[rows]]
            if self.variant == "torchcam":
                masks = resize(normalize_minmax(maps), size)
            elif self.variant == "gradcam":
                mode = INTERPOLATION_MODES[maps.dim() - 1]
                masks = normalize_minmax(
                    F.interpolate(maps[:, None], size=tuple(size), mode=mode, align_corners=True)[:, 0]
                )
                masks[~torch.isin(chosen[rows], alive)] = 0  # or the rounding of a constant would become a mask
            else:
                masks = normalize_minmax(resize(maps, size))
            return image * masks[:, None].to(image.dtype)

        scoring: Scoring = Probability() if self.variant == "authors" else TargetScore()
        scores = signals.score_inputs(
            picture, len(chosen), masked, scoring=scoring, batch_size=self.batch_size, shared=self
        )
        weights = own.new_zeros(len(own))
        weights[chosen] = (scores if self.variant == "authors" else scores.softmax(0)).to(own.dtype)
        return weights


@final
@dataclass(frozen=True)
class SSCAM(Masking):
    """Score-CAM with noise: w_k is the mean of p over `samples` noisy versions of the masked picture.

    Wang et al., 2020 (arXiv 2006.14255). `on` "input" adds noise to x * N(U(A_k)), "map" to U(A_k), which then masks without
    being scaled; its standard deviation is (sigma / spread)^2, where spread is the range of what it is added to.
    """

    samples: int = 35
    sigma: float = 2.0
    on: Literal["input", "map"] = "input"
    seed: int = 0
    batch_size: int | None = None

    card = MethodCard(
        "Wang et al., SS-CAM, 2020", "Σₖ mean p(x ⊙ N(U(Aₖ)) + noise) Aₖ",
        "Score-CAM, smoother; at 35 times its price.",
        cost="35 K forwards of the whole network",
        source="A notebook by an author of IS-CAM; package torchcam adds noise of 2 to masks in [0, 1].",
        pitfalls=MEAN_COLOUR,
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.samples >= 1, f"samples={self.samples}: give at least 1.")
        self.check(self.sigma >= 0, f"sigma={self.sigma}: give 0 or more.")
        self.check(self.on in ("input", "map"), f"on={self.on!r}: give 'input' or 'map'.")
        self.check_batch(self.batch_size)

    def forwards(self, channels: int, cells: int) -> int:
        return channels * self.samples

    def weights_of(self, signals: Signals, picture: int) -> Tensor:
        own, image = signals.activations[picture], signals.inputs[picture]
        weights = own.new_zeros(len(own))
        for channel in varied(own).tolist():
            shown = resize(own[channel : channel + 1], image.shape[1:]).to(image.dtype)
            base = image * normalize_minmax(shown) if self.on == "input" else shown
            spread = base.amax() - base.amin()
            deviation = torch.where(spread > 0, (self.sigma / spread) ** 2, 0.0)
            generator = torch.Generator().manual_seed(self.seed + channel)
            noise = torch.randn(self.samples, *base.shape, generator=generator, dtype=torch.float64)

            def noisy(rows: slice, base: Tensor = base, spread: Tensor = deviation, noise: Tensor = noise) -> Tensor:
                moved = base + spread * noise[rows].to(base)
                return moved if self.on == "input" else image * moved

            scores = signals.score_inputs(
                picture, self.samples, noisy, scoring=Probability(), batch_size=self.batch_size, shared=(self, channel)
            )
            weights[channel] = scores.mean().to(own.dtype)
        return weights


@final
@dataclass(frozen=True)
class ISCAM(Masking):
    """Score-CAM along a path: w_k is the mean of p(a_i x * N(U(A_k))) over i = 1 ... steps, with a_i = i / steps.

    Naidu et al., 2020 (arXiv 2010.03023). `schedule` "cumulative" takes a_i = i (i + 1) / (2 steps), which grows to 5.5 for
    10 steps: so an author's notebook and package torchcam do.
    """

    steps: int = 10
    schedule: Literal["linear", "cumulative"] = "linear"
    batch_size: int | None = None

    card = MethodCard(
        "Naidu et al., IS-CAM, 2020", "Σₖ meanᵢ p(aᵢ x ⊙ N(U(Aₖ))) Aₖ",
        "Score-CAM with fewer chance hits; at 10 times its price.",
        cost="10 K forwards of the whole network",
        source="The integral of the abstract; the author's notebook sums the factors up: schedule=cumulative.",
        pitfalls=MEAN_COLOUR,
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.steps >= 1, f"steps={self.steps}: give at least 1.")
        known = ("linear", "cumulative")
        self.check(self.schedule in known, f"schedule={self.schedule!r}: give 'linear' or 'cumulative'.")
        self.check_batch(self.batch_size)

    def forwards(self, channels: int, cells: int) -> int:
        return channels * self.steps

    def weights_of(self, signals: Signals, picture: int) -> Tensor:
        own, image = signals.activations[picture], signals.inputs[picture]
        chosen = varied(own)
        steps = torch.arange(1, self.steps + 1, dtype=torch.float64)
        factors = steps / self.steps if self.schedule == "linear" else steps * (steps + 1) / (2 * self.steps)

        def masked(rows: slice) -> Tensor:
            row = torch.arange(rows.start, rows.stop)
            masks = normalize_minmax(resize(own[chosen[row // self.steps]], image.shape[1:]))
            by = factors[row % self.steps].reshape(-1, *[1] * image.dim()).to(image)
            return image * masks[:, None].to(image.dtype) * by

        count = len(chosen) * self.steps
        scores = signals.score_inputs(
            picture, count, masked, scoring=Probability(), batch_size=self.batch_size, shared=self
        )
        weights = own.new_zeros(len(own))
        weights[chosen] = scores.reshape(len(chosen), self.steps).mean(1).to(own.dtype)
        return weights


@final
@dataclass(frozen=True)
class GroupCAM(Method):
    """A few groups of channels as masks on a blurred picture: sum_g (p(x m_g + blur(x) (1 - m_g)) - p(blur(x))) a_g.

    Zhang et al., 2021 (arXiv 2103.13859). a_g = relu(sum of mean(G_k) A_k over a group of consecutive channels), values up
    to its `percentile` set to 0; m_g = N(U(a_g)); blur: Gaussian, `blur` pixels wide, `sigma`.
    """

    groups: int = 32
    percentile: float | None = 70.0
    blur: int = 51
    sigma: float = 50.0

    card = MethodCard(
        "Zhang et al., Group-CAM, 2021", "Σ_g (p(x m_g + x̃ (1−m_g)) − p(x̃)) a_g",
        "Nearly Score-CAM at a tenth of its price; compares with a blurred picture, not an empty one.",
        cost="shared, and 33 forwards of the whole network",
        source="The paper's denoising (70th percentile); the authors' last code has none: percentile=None.",
        pitfalls="Groups are consecutive channels, so the order of channels matters.",
    )  # fmt: skip
    needs = Need.GRADIENTS | Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.groups >= 1, f"groups={self.groups}: give at least 1.")
        self.check(self.blur % 2 == 1 and self.blur > 0, f"blur={self.blur}: give an odd number of pixels.")
        right = self.percentile is None or 0 <= self.percentile <= 100
        self.check(right, f"percentile={self.percentile}: give 0 to 100, or None.")

    def forwards(self, channels: int, cells: int) -> int:
        return min(self.groups, channels) + 1

    def __call__(self, signals: Signals) -> Tensor:
        return torch.stack([self.one(signals, picture) for picture in range(len(signals.activations))])

    def one(self, signals: Signals, picture: int) -> Tensor:
        own, image = signals.activations[picture], signals.inputs[picture]
        weights = signals.gradients[picture].flatten(1).mean(1)
        parts = zip(own.chunk(self.groups), weights.chunk(self.groups), strict=True)
        groups = torch.cat([rectify(weighted_sum(weight[None], part[None])) for part, weight in parts])
        if self.percentile is not None:
            limits = groups.flatten(1).quantile(self.percentile / 100, dim=1)
            groups = torch.where(groups > limits.reshape(-1, *[1] * (groups.dim() - 1)), groups, 0.0)
        groups = groups[varied(groups)]
        soft = gaussian_blur(image[None], self.blur, self.sigma)[0]

        def mixed(rows: slice) -> Tensor:
            masks = normalize_minmax(resize(groups[rows], image.shape[1:]))[:, None].to(image.dtype)
            return image * masks + soft * (1 - masks)

        base = signals.score_inputs(picture, 1, lambda _: soft[None], scoring=Probability())
        if not len(groups):
            return own.new_zeros(own.shape[1:])
        gains = signals.score_inputs(picture, len(groups), mixed, scoring=Probability()) - base
        return weighted_sum(gains[None].to(groups.dtype), groups[None])[0]


@final
@dataclass(frozen=True)
class OptiCAM(Method):
    """The mixture of channels whose mask keeps the logit highest: sum_k softmax(u)_k relu(A_k), u found by Adam.

    Zhang et al., CVIU 2024 (arXiv 2301.07002): u starts at 0.5; the loss is z(x) - z(x * N(U(map))), for `steps` steps.
    """

    steps: int = 50
    lr: float = 0.1

    card = MethodCard(
        "Zhang et al., Opti-CAM, CVIU 2024", "argmax z(x ⊙ N(U(Σₖ softmax(u)ₖ Aₖ)))",
        "The best mask that the layer's channels can make.",
        cost="50 forwards + 50 backwards of the whole network",
        source="The authors' released script (lr 0.1, 50 steps, logit), without its early stopping.",
        pitfalls="Optimises just what the drop and increase of confidence measure; do not rank it by those.",
    )  # fmt: skip
    needs = Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.steps >= 1, f"steps={self.steps}: give at least 1.")
        self.check(self.lr > 0, f"lr={self.lr}: give a number above 0.")

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * self.steps  # a backward costs about two

    def __call__(self, signals: Signals) -> Tensor:
        return torch.stack([self.one(signals, picture) for picture in range(len(signals.activations))])

    def one(self, signals: Signals, picture: int) -> Tensor:
        image, channels = signals.inputs[picture], rectify(signals.activations[picture])
        with torch.inference_mode(False), torch.enable_grad():
            channels = channels.clone()
            mixture = torch.full((1, len(channels)), 0.5, dtype=channels.dtype, device=channels.device).requires_grad_()
            # A channel that is the same everywhere does not change the mask; Adam would follow the rounding of that 0.
            moving = torch.zeros_like(mixture).index_fill_(1, varied(channels), 1.0).detach()
            optimiser = torch.optim.Adam([mixture], lr=self.lr)
            for _ in range(self.steps):
                maps = weighted_sum(mixture.softmax(1), channels[None])
                mask = normalize_minmax(resize(maps, image.shape[1:])).to(image.dtype)
                loss = -signals.differentiable_scores(picture, image * mask[:, None]).sum()
                (slope,) = torch.autograd.grad(loss, mixture)
                mixture.grad = slope * moving
                optimiser.step()
        return weighted_sum(mixture.detach().softmax(1), channels[None])[0]


def varied(maps: Tensor) -> Tensor:
    """The indices of the maps (N, *grid) that are not the same everywhere."""
    return is_not_constant(maps).nonzero()[:, 0]
