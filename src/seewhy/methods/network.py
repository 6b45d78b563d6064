"""Methods that gather the whole network, or several of its layers, in one map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.errors import MethodError
from seewhy.methods.base import Method, MethodCard, NetworkMethod
from seewhy.methods.gradient import GradCAMPlusPlus, LayerCAM
from seewhy.signals.model import ModelSignals
from seewhy.tensors import INTERPOLATION_MODES, broadcast_over_grid, divide_by_max, normalize_minmax, rectify, resize


@final
@dataclass(frozen=True)
class FullGrad(NetworkMethod):
    """What the score owes to the picture and to every bias: psi(x dy/dx) + sum over layers of U(psi(b dy/db)).

    Srinivas and Fleuret, NeurIPS 2019, equation 5. psi takes absolutes and scales a layer's values, all channels together,
    from their minimum to their maximum; U is bilinear with aligned corners. Biases are those of convolutions and, implicitly,
    of BatchNorm (beta - mu gamma / sigma). Without `biases` the gradients themselves: SimpleFullGrad.
    """

    biases: bool = True

    card = MethodCard(
        "Srinivas & Fleuret, FullGrad, NeurIPS 2019", "ψ(x ⊙ ∂y/∂x) + Σₗ U(ψ(bₗ ⊙ ∂y/∂bₗ))",
        "All layers in one fine map; says where the score is sensitive, not for or against.",
        cost="1 forward + 1 backward of its own",
        works_on="networks with biases or BatchNorm",
        source="The authors' code. Package grad-cam scales each channel on its own.",
        pitfalls="Complete only for ReLU networks; nearly empty for transformers, whose biases are in linear layers.",
    )  # fmt: skip

    def __call__(self, signals: ModelSignals) -> Tensor:
        size = signals.inputs.shape[2:]
        found: list[Tensor] = []

        def consume(values: Tensor, gradient: Tensor) -> None:
            terms = gradient * broadcast_over_grid(values[None], gradient) if self.biases else gradient
            if terms.dim() == len(size) + 2 and len(terms) == len(signals.inputs):
                mode = INTERPOLATION_MODES[len(size)]
                low = magnitude(terms).sum(1, keepdim=True)
                found.append(F.interpolate(low, size=tuple(size), mode=mode, align_corners=True)[:, 0])

        pixels = magnitude(signals.visit_biases(consume)).sum(1)
        if not found:
            raise MethodError("", "this network has no convolution with a bias and no BatchNorm; take gradcam.")
        return torch.stack([pixels, *found]).sum(0)


def magnitude(terms: Tensor) -> Tensor:
    """Absolutes (B, K, *grid), each picture's from its minimum to its maximum on [0, 1]."""
    return normalize_minmax(terms.abs())


@final
@dataclass(frozen=True)
class RefineCAM(NetworkMethod):
    """The product of the maps of all chosen layers, each resized to the input and scaled to [0, 1].

    Domeniconi et al., 2026 (arXiv 2605.14641): N(U(N(relu(base)))) multiplied over the layers; base Grad-CAM++.
    """

    base: Method = field(default_factory=GradCAMPlusPlus)

    card = MethodCard(
        "Domeniconi et al., RefineCAM, 2026", "Πₗ N(U(N(relu(baseₗ))))",
        "The place of late layers with the detail of early ones.",
        cost="shared, as its base",
        source="The authors' code, which takes the outputs of the four stages of a network.",
        pitfalls="A pixel that one layer does not see is lost; over many layers hardly anything is left.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check_base(self.base)

    @property
    def base_method(self) -> Method:
        return self.base

    def __call__(self, signals: ModelSignals) -> Tensor:
        size = signals.inputs.shape[2:]
        product: Tensor | None = None
        for maps in several(signals):
            scaled = normalize_minmax(resize(normalize_minmax(rectify(maps)), size))
            product = scaled if product is None else product * scaled
        assert product is not None
        return product


@final
@dataclass(frozen=True)
class LayerCAMFusion(NetworkMethod):
    """The largest value of all chosen layers at each pixel; all but the last layer are lifted by tanh(gamma M / max M).

    Jiang et al., IEEE TIP 2021, section III-C. Maps are rectified, divided by their maximum and resized to the input.
    """

    base: Method = field(default_factory=LayerCAM)
    gamma: float = 2.0

    card = MethodCard(
        "Jiang et al., LayerCAM, IEEE TIP 2021", "maxₗ U(tanh(γ Mₗ / max Mₗ))",
        "Detail of early layers laid over the place of the last.",
        cost="shared, as its base",
        source="Fusion by maximum: the author in torch-cam's issue 76; that the last layer is not lifted: a reimplementation.",
        pitfalls="Early layers see edges everywhere; choose a few layers (--layers).",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check_base(self.base)
        self.check(self.gamma > 0, f"gamma={self.gamma}: give a number above 0.")

    @property
    def base_method(self) -> Method:
        return self.base

    def __call__(self, signals: ModelSignals) -> Tensor:
        size, found = signals.inputs.shape[2:], None
        layers = several(signals)
        last = len(layers) - 1
        for index, maps in enumerate(layers):
            scaled = divide_by_max(rectify(maps))
            scaled = resize(scaled if index == last else torch.tanh(self.gamma * scaled), size)
            found = scaled if found is None else torch.maximum(found, scaled)
        assert found is not None
        return found


def several(signals: ModelSignals) -> list[Tensor]:
    """The base's maps (B, *grid) of the chosen layers, in execution order; there must be at least two to join."""
    if len(signals.maps) < 2:
        raise MethodError("", f"it joins layers, and there is {len(signals.maps)}: choose several, or layers='every'.")
    return list(signals.maps.values())
