"""Methods that weight a layer's activations A by its gradients G: all of them, at every layer, share one backward pass.

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
from seewhy.tensors import align_sign, broadcast_over_grid, first_component, rectify, weighted_sum


@final
@dataclass(frozen=True)
class GradCAM(Weighted):
    """Channels weighted by their mean gradient: sum_k mean(G_k) A_k.

    Selvaraju et al., ICCV 2017, equations 1 and 2 (without the ReLU, which comes later).

    >>> import seewhy
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> seewhy.explain(net, torch.rand(1, 3, 8, 8), methods=GradCAM(), layers="0").map().shape
    torch.Size([1, 6, 6])
    """

    card = MethodCard(
        "Selvaraju et al., Grad-CAM, ICCV 2017", "Σₖ mean(Gₖ) Aₖ",
        "The classic: smooth and class-specific.",
        pitfalls="Averages a channel's gradient over the grid, which blurs in early layers.",
    )  # fmt: skip

    def weights(self, signals: Signals) -> Tensor:
        return signals.gradients.flatten(2).mean(2)


@final
@dataclass(frozen=True)
class HiResCAM(Elementwise):
    """Every cell weighted by its own gradient: sum_k G_k * A_k.

    Draelos and Carin, 2020, equation 3. Faithful by proof where one linear layer follows.
    """

    card = MethodCard(
        "Draelos & Carin, HiResCAM, 2020", "Σₖ Gₖ ⊙ Aₖ",
        "Shows exactly what the layer used, cell by cell; equal to Grad-CAM before mean pooling and a linear head.",
        pitfalls="Exactly 0 right before a LayerNorm, to which the scale of its input does not matter.",
    )  # fmt: skip

    def terms(self, signals: Signals) -> Tensor:
        return signals.contributions


@final
@dataclass(frozen=True)
class LayerCAM(Elementwise):
    """Every cell weighted by its own gradient where that is positive: sum_k relu(G_k) * A_k.

    Jiang et al., IEEE TIP 2021, equations 5 and 6. With `gamma` the map M becomes tanh(gamma M / max M), in [0, 1), as in
    equation 9, where the paper takes gamma = 2 for shallow layers, to bring out what is weak.
    """

    gamma: float | None = None

    card = MethodCard(
        "Jiang et al., LayerCAM, IEEE TIP 2021", "Σₖ relu(Gₖ) ⊙ Aₖ",
        "Fine detail in early layers; counts only cells whose gradient is positive.",
        source="Equation 9 (tanh) as restated by two reimplementations; the authors' code holds no scaling.",
        pitfalls="Right before a max-pooling only the winners have a gradient: a chequered map.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.gamma is None or self.gamma > 0, f"gamma={self.gamma}: give a number above 0, or None.")

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
    """Channels weighted by their positive gradients, each scaled by 1 / (2 + g S_k).

    Chattopadhay et al., WACV 2018, equations 10 and 19, where alpha = g^2 / (2 g^2 + S_k g^3); that is 1 / (2 + g S_k)
    wherever g is not 0, and needs no epsilon. Only positive gradients count, so the others need no alpha. With `alphas`
    "normalized" the alphas of a channel sum to 1, as in the authors' code (not in the paper).
    """

    alphas: Literal["paper", "normalized"] = "paper"

    card = MethodCard(
        "Chattopadhay et al., Grad-CAM++, WACV 2018", "Σₖ (Σ relu(g)/(2+g·Sₖ)) Aₖ",
        "Covers several objects of the class.",
        source="Equation 19. The authors' code also normalizes the alphas of each channel: alphas=normalized.",
        pitfalls="Depends on the scale of the logits; has poles where g·Sₖ = -2, at bare convolutions.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.alphas in ("paper", "normalized"), f"alphas={self.alphas!r}: give 'paper' or 'normalized'.")

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
    """Channels weighted by their share of the score for each unit of activation: sum_k (sum(G_k * A_k) / S_k) A_k.

    Fu et al., BMVC 2020, equation 8. A channel whose activations sum to exactly 0 has no such weight and is left out.
    """

    card = MethodCard(
        "Fu et al., Axiom-based Grad-CAM, BMVC 2020", "Σₖ (Σ(Gₖ⊙Aₖ)/Sₖ) Aₖ",
        "Keeps the total of HiResCAM, spread as in Grad-CAM.",
        pitfalls="Explodes where a channel's activations nearly cancel (bare convolutions).",
    )  # fmt: skip

    def weights(self, signals: Signals) -> Tensor:
        sums = signals.activation_sums
        return torch.where(sums == 0, 0.0, signals.contributions.flatten(2).sum(2) / sums)


@final
@dataclass(frozen=True)
class GradCAMElementwise(Elementwise):
    """The positive contributions of every cell: sum_k relu(G_k * A_k).

    Pillai and Pirsiavash, AAAI 2021, as known from the package grad-cam; equal to LayerCAM wherever A >= 0.
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
    """The first principal component of the contributions G_k * A_k.

    Known from the package grad-cam (no paper), which leaves the sign open: here the map faces the sum of contributions.
    """

    centered: bool = True

    card = MethodCard(
        "package grad-cam, 2021", "first component of G ⊙ A",
        "The main pattern of what the channels contribute; less noisy than HiResCAM.",
        source="The package's definition (centred); the sign by seewhy: along Σₖ Gₖ ⊙ Aₖ.",
    )  # fmt: skip

    def __call__(self, signals: Signals) -> Tensor:
        return align_sign(first_component(signals.contributions, centered=self.centered), signals.contributions.sum(1))


@final
@dataclass(frozen=True)
class SegEigenCAM(Method):
    """The first principal component of |G_k| * A_k, turned so that its largest value is positive.

    Chung and Ying, Applied Sciences 2025, equations 10 to 13.
    """

    centered: bool = True

    card = MethodCard(
        "Chung & Ying, Seg-Eigen-CAM, Applied Sciences 2025", "first component of |G| ⊙ A",
        "Eigen-CAM for segmentation: the gradient tells where the class is, not for or against it.",
        source="The package grad-cam 1.5.7 (centred); whether the paper centres was not found.",
    )  # fmt: skip

    def __call__(self, signals: Signals) -> Tensor:
        maps = first_component(signals.gradients.abs() * signals.activations, centered=self.centered)
        flat = maps.flatten(1)
        flip = flat.amin(1).abs() > flat.amax(1).abs()
        return torch.where(flip.reshape(-1, *[1] * (maps.dim() - 1)), -maps, maps)


@final
@dataclass(frozen=True)
class ShapleyCAM(Method):
    """Channels weighted by their Shapley value to second order: sum_k mean(G_k - (HA)_k / 2) A_k, for z_c + log p_c.

    Cai, 2025 (arXiv 2501.06261). H is the Hessian of the score at the layer. `variant` "elementwise" (-E) and "hires" (-H)
    do not average over the grid, with and without a ReLU of each term. For a logit and a ReLU network H is 0 and this is
    Grad-CAM, so the paper follows z_c + log p_c instead.
    """

    variant: Literal["mean", "elementwise", "hires"] = "mean"

    card = MethodCard(
        "Cai, ShapleyCAM, 2025", "Σₖ mean(Gₖ − ½(HA)ₖ) Aₖ",
        "Grad-CAM that knows how sure the network is already.",
        cost="1 forward + 1 backward, and 1 more backward for every layer",
        source="The author's code: pytorch_grad_cam/shapley_cam_mean.py, and its -E and -H variants.",
    )  # fmt: skip
    needs = Need.GRADIENTS | Need.CURVATURE

    def __post_init__(self) -> None:
        known = ("mean", "elementwise", "hires")
        self.check(self.variant in known, f"variant={self.variant!r}: give one of {', '.join(known)}.")

    @property
    def scoring(self) -> Scoring:
        return LogitPlusLogProbability()

    def __call__(self, signals: Signals) -> Tensor:
        values = signals.gradients - signals.curvature / 2
        if self.variant == "mean":
            return weighted_sum(values.flatten(2).mean(2), signals.activations)
        terms = values * signals.activations
        return (terms if self.variant == "hires" else terms.clamp(min=0)).sum(1)
