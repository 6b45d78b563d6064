"""Methods that combine the full model, or several of its layers, in one map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.errors import MethodError
from seewhy.methods.base import Method, MethodCard, NetworkMethod
from seewhy.methods.gradient import GradCAMPlusPlus, LayerCAM
from seewhy.methods.setting_checks import check_base
from seewhy.signals.model import ModelSignals
from seewhy.tensors.map_functions import (
    INTERPOLATION_MODES,
    broadcast_over_grid,
    divide_by_max,
    normalize_minmax,
    rectify,
    resize,
)


@final
@dataclass(frozen=True)
class FullGrad(NetworkMethod):
    """Sum what the input and every bias contribute to the score: psi(x dy/dx) + sum over layers of U(psi(b dy/db)).

    psi takes absolute values and scales each image's values, all channels together, from minimum to maximum; U is bilinear
    with aligned corners. Biases are those of convolutions and the implicit ones of BatchNorm (beta - mu gamma / sigma).

    Args:
        biases: False uses the gradients without the biases: SimpleFullGrad.

    References:
        Srinivas and Fleuret, "FullGrad", NeurIPS 2019, equation 5, https://arxiv.org/abs/1905.00780
    """

    biases: bool = True

    card = MethodCard(
        "Srinivas & Fleuret, FullGrad, NeurIPS 2019", "ψ(x ⊙ ∂y/∂x) + Σₗ U(ψ(bₗ ⊙ ∂y/∂bₗ))",
        "All layers in one fine map; shows sensitivity, not evidence for or against.",
        cost="1 extra forward + backward",
        works_on="models with biases or BatchNorm",
        source="The authors' code. Package grad-cam scales each channel separately.",
        pitfalls="Complete only for ReLU networks; nearly empty for transformers, whose biases are in linear layers.",
    )  # fmt: skip

    def __call__(self, signals: ModelSignals) -> Tensor:
        size = signals.inputs.shape[2:]
        bias_maps: list[Tensor] = []
        row_counts: set[int] = set()

        def consume(values: Tensor, gradient: Tensor) -> None:
            terms = gradient * broadcast_over_grid(values[None], gradient) if self.biases else gradient
            row_counts.add(len(terms))
            if terms.dim() == len(size) + 2 and len(terms) == len(signals.inputs):
                mode = INTERPOLATION_MODES[len(size)]
                low = scale_magnitude(terms).sum(1, keepdim=True)
                bias_maps.append(F.interpolate(low, size=tuple(size), mode=mode, align_corners=True)[:, 0])

        pixels = scale_magnitude(signals.visit_biases(consume)).sum(1)
        if any(count > len(signals.inputs) for count in row_counts):
            raise MethodError(
                "", "its convolutions have several rows per input (frames, patches or crops). Use gradcam."
            )
        if not bias_maps:
            raise MethodError("", "this model has no convolution with a bias and no BatchNorm. Use gradcam.")
        return torch.stack([pixels, *bias_maps]).sum(0)


def scale_magnitude(terms: Tensor) -> Tensor:
    """Return absolute values `(B, K, *grid)`, scaled per image from minimum and maximum to [0, 1]."""
    return normalize_minmax(terms.abs())


@final
@dataclass(frozen=True)
class RefineCAM(NetworkMethod):
    """Multiply the maps of all selected layers, each resized to the input and scaled: the product of N(U(N(relu(base)))).

    Args:
        base: A method with one map per layer.

    References:
        Domeniconi et al., "RefineCAM", 2026, https://arxiv.org/abs/2605.14641
    """

    base: Method = field(default_factory=GradCAMPlusPlus)

    card = MethodCard(
        "Domeniconi et al., RefineCAM, 2026", "Πₗ N(U(N(relu(baseₗ))))",
        "The localization of late layers with the detail of early ones.",
        cost="shared, as its base",
        source="The authors' code, which uses the outputs of a network's four stages.",
        pitfalls="A pixel that is 0 at one layer is 0 in the result; over many layers hardly anything remains.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_base(self, self.base)

    @property
    def base_method(self) -> Method:
        return self.base

    def __call__(self, signals: ModelSignals) -> Tensor:
        size = signals.inputs.shape[2:]
        product: Tensor | None = None
        for maps in base_maps(signals):
            scaled = normalize_minmax(resize(normalize_minmax(rectify(maps)), size))
            product = scaled if product is None else product * scaled
        assert product is not None
        return product


@final
@dataclass(frozen=True)
class LayerCAMFusion(NetworkMethod):
    """Take the maximum over all selected layers at each pixel, with tanh(gamma M / max M) for all but the last layer.

    Maps are rectified, divided by their maximum and resized to the input.

    Args:
        base: A method with one map per layer.
        gamma: Scale of the tanh, above 0.

    References:
        Jiang et al., "LayerCAM", IEEE TIP 2021, section III-C, https://doi.org/10.1109/TIP.2021.3089943
    """

    base: Method = field(default_factory=LayerCAM)
    gamma: float = 2.0

    card = MethodCard(
        "Jiang et al., LayerCAM, IEEE TIP 2021", "maxₗ U(tanh(γ Mₗ / max Mₗ))",
        "The detail of early layers combined with the localization of the last.",
        cost="shared, as its base",
        source="Fusion by maximum: the author in torch-cam's issue 76; the last layer without tanh: a reimplementation.",
        pitfalls="Early layers respond to edges everywhere; select a few layers (--layers).",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_base(self, self.base)
        self.check(self.gamma > 0, f"gamma={self.gamma}: must be above 0.")

    @property
    def base_method(self) -> Method:
        return self.base

    def __call__(self, signals: ModelSignals) -> Tensor:
        size, fused = signals.inputs.shape[2:], None
        layers = base_maps(signals)
        last = len(layers) - 1
        for index, maps in enumerate(layers):
            scaled = divide_by_max(rectify(maps))
            scaled = resize(scaled if index == last else torch.tanh(self.gamma * scaled), size)
            fused = scaled if fused is None else torch.maximum(fused, scaled)
        assert fused is not None
        return fused


def base_maps(signals: ModelSignals) -> list[Tensor]:
    """Return the base's maps `(B, *grid)` of the selected layers in execution order. Raises MethodError for fewer than two."""
    if len(signals.maps) < 2:
        raise MethodError(
            "", f"it combines layers, and {len(signals.maps)} is selected. Select several, or layers='every'."
        )
    return list(signals.maps.values())
