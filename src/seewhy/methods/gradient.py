"""Methods that weight a layer's activations A by its gradients G. All of them share one backward pass.

Notation: A, G (B, K, *grid); S_k the sum of A over the grid of channel k; n the number of cells; y the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from seewhy.methods.base import Elementwise, Method, MethodCard, Weighted
from seewhy.signals.layer import Need, Signals
from seewhy.signals.scoring import LogitPlusLogProbability, Scoring
from seewhy.tensors.map_functions import align_sign, broadcast_over_grid, first_component, rectify


@final
@dataclass(frozen=True)
class GradCAM(Weighted):
    """Weight each channel by its mean gradient: sum_k mean(G_k) A_k.

    Without the ReLU of the paper's equation 2: maps are signed, and rendering rectifies them.

    Example:
        >>> import seewhy
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> seewhy.explain(net, torch.rand(1, 3, 8, 8), methods=GradCAM(), layers="0").map().shape
        torch.Size([1, 6, 6])

    References:
        Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2, https://doi.org/10.1109/ICCV.2017.74
    """

    card = MethodCard(
        "Selvaraju et al., Grad-CAM, ICCV 2017", "Σₖ mean(Gₖ) Aₖ",
        "The standard method: smooth and class-specific.",
        pitfalls="Averages a channel's gradient over the grid, which blurs maps of early layers.",
    )  # fmt: skip

    def weights(self, signals: Signals) -> Tensor:
        return signals.mean_gradients


@final
@dataclass(frozen=True)
class HiResCAM(Elementwise):
    """Weight each cell by its own gradient: sum_k G_k * A_k.

    Provably faithful if one linear layer follows.

    References:
        Draelos and Carin, "HiResCAM", 2020, equation 3, https://arxiv.org/abs/2011.08891
    """

    card = MethodCard(
        "Draelos & Carin, HiResCAM, 2020", "Σₖ Gₖ ⊙ Aₖ",
        "Shows which cells of the layer the score uses; equals Grad-CAM before mean pooling and a linear head.",
        pitfalls="Exactly 0 right before a LayerNorm, whose output does not change with the scale of its input.",
    )  # fmt: skip

    def terms(self, signals: Signals) -> Tensor:
        return signals.contributions


@final
@dataclass(frozen=True)
class LayerCAM(Elementwise):
    """Weight each cell by its own gradient if that is positive: sum_k relu(G_k) * A_k.

    Args:
        gamma: Above 0, to scale the map M to tanh(gamma M / max M), in [0, 1), which brings out weak evidence. The paper uses
            2 for shallow layers. None: no scaling.

    References:
        Jiang et al., "LayerCAM", IEEE TIP 2021, equations 5, 6 and 9, https://doi.org/10.1109/TIP.2021.3089943
    """

    gamma: float | None = None

    card = MethodCard(
        "Jiang et al., LayerCAM, IEEE TIP 2021", "Σₖ relu(Gₖ) ⊙ Aₖ",
        "Fine detail in early layers; counts only cells with a positive gradient.",
        source="Equation 9 (tanh) as in two reimplementations; the authors' code has no scaling.",
        pitfalls="Right before max pooling only the maximum of each window has a gradient: a checkered map.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.gamma is None or self.gamma > 0, f"gamma={self.gamma}: must be above 0, or None.")

    def terms(self, signals: Signals) -> Tensor:
        return signals.positive_gradients * signals.activations

    def __call__(self, signals: Signals) -> Tensor:
        maps = self.terms(signals).sum(1)
        if self.gamma is None:
            return maps
        maps = rectify(maps)
        top = maps.flatten(1).amax(1).reshape(-1, *[1] * (maps.dim() - 1))
        return torch.where(top > 0, torch.tanh(self.gamma * maps / top), 0.0)


@final
@dataclass(frozen=True)
class GradCAMPlusPlus(Weighted):
    """Weight each channel by its positive gradients, each scaled by 1 / (2 + g S_k).

    In the paper alpha = g^2 / (2 g^2 + S_k g^3). That equals 1 / (2 + g S_k) wherever g is not 0, and needs no epsilon. Only
    positive gradients count, so the others need no alpha.

    Args:
        alphas: "paper", or "normalized": the alphas of a channel sum to 1, as in the authors' code.

    References:
        Chattopadhay et al., "Grad-CAM++", WACV 2018, equations 10 and 19, https://doi.org/10.1109/WACV.2018.00097
    """

    alphas: Literal["paper", "normalized"] = "paper"

    card = MethodCard(
        "Chattopadhay et al., Grad-CAM++, WACV 2018", "Σₖ (Σ relu(g)/(2+g·Sₖ)) Aₖ",
        "Covers several objects of the class.",
        source="Equation 19. The authors' code also normalizes the alphas of each channel: alphas=normalized.",
        pitfalls="Depends on the scale of the logits; has poles where g·Sₖ = -2, in convolutions without a ReLU.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.alphas in ("paper", "normalized"), f"alphas={self.alphas!r}: must be 'paper' or 'normalized'.")

    def weights(self, signals: Signals) -> Tensor:
        positive = signals.positive_gradients
        scale = (positive * broadcast_over_grid(signals.activation_sums, positive)).add_(2)
        sums = (positive / scale).flatten(2).sum(2)
        if self.alphas == "paper":
            return sums
        alphas = torch.where(positive > 0, 1 / scale, 0.0).flatten(2).sum(2)
        return torch.where(alphas != 0, sums / alphas, 0.0)


@final
@dataclass(frozen=True)
class XGradCAM(Weighted):
    """Weight each channel by its contribution per unit of activation: sum_k (sum(G_k * A_k) / S_k) A_k.

    A channel whose activations sum to exactly 0 has no such weight and is skipped.

    References:
        Fu et al., "Axiom-based Grad-CAM", BMVC 2020, equation 8, https://arxiv.org/abs/2008.02312
    """

    card = MethodCard(
        "Fu et al., Axiom-based Grad-CAM, BMVC 2020", "Σₖ (Σ(Gₖ⊙Aₖ)/Sₖ) Aₖ",
        "The sum of HiResCAM, distributed as in Grad-CAM.",
        pitfalls="Very large where a channel's activations nearly cancel (convolutions without a ReLU).",
    )  # fmt: skip

    def weights(self, signals: Signals) -> Tensor:
        sums = signals.activation_sums
        return torch.where(sums == 0, 0.0, signals.contributions.flatten(2).sum(2) / sums)


@final
@dataclass(frozen=True)
class GradCAMElementwise(Elementwise):
    """Sum the positive contributions of each cell: sum_k relu(G_k * A_k).

    Equal to LayerCAM wherever A >= 0.

    References:
        Pillai and Pirsiavash, AAAI 2021; the definition is that of the package grad-cam.
    """

    card = MethodCard(
        "Pillai & Pirsiavash, AAAI 2021 (package grad-cam)", "Σₖ relu(Gₖ ⊙ Aₖ)",
        "Only positive contributions, so nothing cancels; equal to LayerCAM after a ReLU.",
    )  # fmt: skip

    def terms(self, signals: Signals) -> Tensor:
        return signals.contributions.clamp(min=0)


@final
@dataclass(frozen=True)
class EigenGradCAM(Method):
    """Compute the first principal component of the contributions G_k * A_k.

    The sign of a component is arbitrary; here it correlates positively with the sum of the contributions.

    Args:
        centered: Subtract the mean of each channel first.

    References:
        No paper. Known from the package grad-cam.
    """

    centered: bool = True

    card = MethodCard(
        "no paper: package grad-cam, 2021", "first component of G ⊙ A",
        "The main pattern of what the channels contribute; less noisy than HiResCAM.",
        source="The package's definition (centered), which leaves the sign to chance; here it follows Σₖ Gₖ ⊙ Aₖ.",
    )  # fmt: skip

    def __call__(self, signals: Signals) -> Tensor:
        return align_sign(first_component(signals.contributions, centered=self.centered), signals.contributions)


@final
@dataclass(frozen=True)
class SegEigenCAM(Method):
    """Compute the first principal component of |G_k| * A_k, with its largest absolute value positive.

    Args:
        centered: Subtract the mean of each channel first.

    References:
        Chung and Ying, "Seg-Eigen-CAM", Applied Sciences 2025, equations 10 to 13.
    """

    centered: bool = True

    card = MethodCard(
        "Chung & Ying, Seg-Eigen-CAM, Applied Sciences 2025", "first component of |G| ⊙ A",
        "Eigen-CAM for segmentation: gradients locate the class, but not whether a place is evidence for or against it.",
        source="The package grad-cam 1.5.7 (centered); whether the paper centers is unknown.",
    )  # fmt: skip

    def __call__(self, signals: Signals) -> Tensor:
        maps = first_component(signals.gradients.abs() * signals.activations, centered=self.centered)
        flat = maps.flatten(1)
        flip = flat.amin(1).abs() > flat.amax(1).abs()
        return torch.where(flip.reshape(-1, *[1] * (maps.dim() - 1)), -maps, maps)


@final
@dataclass(frozen=True)
class ShapleyCAM(Method):
    """Weight each channel by its second-order Shapley value: sum_k mean(G_k - (HA)_k / 2) A_k, for z_c + log p_c.

    H is the Hessian of the score at the layer. For a logit of a ReLU network H is 0 and the result is Grad-CAM, so the paper
    uses the score z_c + log p_c.

    Args:
        variant: "mean", or without the mean over the grid: "hires" (-H), and "elementwise" (-E) with a ReLU of each term.

    References:
        Cai, "ShapleyCAM", 2025, https://arxiv.org/abs/2501.06261
    """

    variant: Literal["mean", "elementwise", "hires"] = "mean"

    card = MethodCard(
        "Cai, ShapleyCAM, 2025", "Σₖ mean(Gₖ − ½(HA)ₖ) Aₖ",
        "Grad-CAM that takes the model's confidence into account.",
        cost="1 forward + 1 backward, and 1 more backward for every layer",
        source="The author's code: pytorch_grad_cam/shapley_cam_mean.py, and its -E and -H variants.",
    )  # fmt: skip
    needs = Need.GRADIENTS | Need.CURVATURE

    def __post_init__(self) -> None:
        choices = ("mean", "elementwise", "hires")
        self.check(self.variant in choices, f"variant={self.variant!r}: must be one of {', '.join(choices)}.")

    @property
    def scoring(self) -> Scoring:
        return LogitPlusLogProbability()

    def __call__(self, signals: Signals) -> Tensor:
        values = signals.gradients - signals.curvature / 2
        if self.variant == "mean":
            return signals.weighted_sum(values.flatten(2).mean(2))
        terms = values * signals.activations
        return (terms if self.variant == "hires" else terms.clamp(min=0)).sum(1)
