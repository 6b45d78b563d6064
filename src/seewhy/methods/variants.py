"""Methods that look at their base through noise, along a path, or at mirrored, lighter and resized inputs.

Each is a generator that yields the variants of the inputs it wants to see: every layer shares each pass, and methods that
ask for the same variants share them too. Notation: x (B, C, *size) the inputs, A and G a layer's activations and gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.methods.base import Method, MethodCard, VariantMethod
from seewhy.methods.gradient import GradCAM
from seewhy.signals.layer import Need, Signals, Variant
from seewhy.signals.scoring import Scoring
from seewhy.tensors import INTERPOLATION_MODES, broadcast_over_grid, rectify, resize, weighted_sum

Passes = Generator[Variant, Signals, Tensor]


@dataclass(frozen=True)
class Wrapper(VariantMethod):
    """A method made of its `base`."""

    base: Method = field(default_factory=GradCAM)

    def __post_init__(self) -> None:
        self.check_base(self.base)

    @property
    def needs(self) -> Need:  # type: ignore[override]
        return self.base.needs | Need.EVALUATOR

    @property
    def scoring(self) -> Scoring:
        return self.base.scoring


@final
@dataclass(frozen=True)
class Noise(Variant):
    """The inputs with Gaussian noise, `sigma` times the range of each picture; the same noise for each."""

    sigma: float
    seed: int

    def __call__(self, inputs: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(1, *inputs.shape[1:], generator=generator, dtype=torch.float64).to(inputs)
        flat = inputs.flatten(1)
        spread = (flat.amax(1) - flat.amin(1)).reshape(-1, *[1] * (inputs.dim() - 1))
        return inputs + self.sigma * spread * noise


@final
@dataclass(frozen=True)
class Scaled(Variant):
    """The inputs times a `factor`."""

    factor: float

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor


@final
@dataclass(frozen=True)
class Changed(Variant):
    """The inputs times a `factor`, their sides times `size`, mirrored along the last axis with `flip`."""

    flip: bool
    factor: float
    size: float

    def __call__(self, inputs: Tensor) -> Tensor:
        if self.size != 1:
            sides = [max(1, round(side * self.size)) for side in inputs.shape[2:]]
            mode = INTERPOLATION_MODES[inputs.dim() - 2]
            inputs = F.interpolate(inputs, size=sides, mode=mode, align_corners=False)
        return (inputs.flip(-1) if self.flip else inputs) * self.factor


@final
@dataclass(frozen=True)
class Smooth(Wrapper):
    """The mean of the base's maps over noisy inputs: mean_i base(x + noise_i).

    Smilkov et al., SmoothGrad, 2017, for any method. Noise is Gaussian, with `sigma` times the range of each picture.
    """

    samples: int = 16
    sigma: float = 0.15
    seed: int = 0

    card = MethodCard(
        "Smilkov et al., SmoothGrad, 2017", "meanᵢ base(x + noiseᵢ)",
        "A calmer map: what stays when the picture is disturbed a little.",
        cost="16 forwards + 16 backwards, shared by all layers", works_on="as its base",
        source="The paper: 10 to 20 % noise; signed maps are averaged, not their squares.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.samples >= 1, f"samples={self.samples}: give at least 1.")
        self.check(self.sigma >= 0, f"sigma={self.sigma}: give 0 or more.")

    def forwards(self, channels: int, cells: int) -> int:
        return self.samples * (3 + self.base.forwards(channels, cells))

    def passes(self, signals: Signals) -> Passes:
        total: Tensor | None = None
        for index in range(self.samples):
            maps = self.base((yield noise(self.sigma, self.seed, index)))
            total = maps if total is None else total + maps
        assert total is not None
        return total / self.samples


@final
@dataclass(frozen=True)
class SmoothGradCAMPlusPlus(VariantMethod):
    """Grad-CAM++ with its derivatives averaged over noisy inputs: alpha = D2 / (2 D2 + S_k D3), w_k = sum alpha relu(D1).

    Omeiza et al., 2019 (arXiv 1908.01224). D1, D2, D3 are the means of g, g^2, g^3; A and S_k are those of the clean picture.
    """

    samples: int = 16
    sigma: float = 0.15
    seed: int = 0

    card = MethodCard(
        "Omeiza et al., Smooth Grad-CAM++, 2019", "Σₖ (Σ D₂/(2D₂+Sₖ·D₃) relu(D₁)) Aₖ",
        "Grad-CAM++, calmer.",
        cost="16 forwards + 16 backwards, shared by all layers",
        source="Only D₂ above the line gives Grad-CAM++ back without noise; the paper, as quoted by torchcam, has D₁.",
    )  # fmt: skip
    needs = Need.GRADIENTS | Need.EVALUATOR

    def __post_init__(self) -> None:
        Smooth(samples=self.samples, sigma=self.sigma)

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * self.samples

    def passes(self, signals: Signals) -> Passes:
        one = two = three = torch.zeros_like(signals.activations)
        for index in range(self.samples):
            gradients = (yield noise(self.sigma, self.seed, index)).gradients / self.samples
            scaled = gradients * self.samples
            one, two, three = one + gradients, two + gradients * scaled, three + gradients * scaled**2
        below = 2 * two + broadcast_over_grid(signals.activation_sums, three) * three
        alphas = torch.where(below != 0, two / below, 0.0)
        return weighted_sum((alphas * one.clamp(min=0)).flatten(2).sum(2), signals.activations)


@final
@dataclass(frozen=True)
class Integrated(Wrapper):
    """The mean of the base's maps on the way from a black input to the picture: mean_i relu(base(x i / steps)).

    Sattarzadeh et al., Integrated Grad-CAM, ICASSP 2021. i = 0 ... steps - 1; `rectified`: the ReLU of each step. With
    `difference` the activations at the start of the path are taken away from each step's.
    """

    steps: int = 20
    rectified: bool = True
    difference: bool = False

    card = MethodCard(
        "Sattarzadeh et al., Integrated Grad-CAM, ICASSP 2021", "meanᵢ relu(base(x·i/m))",
        "What the score is built from as the picture fades in; helps where gradients are saturated.",
        cost="20 forwards + 20 backwards, shared by all layers", works_on="as its base",
        source="The authors' notebook: a path of inputs, ReLU at each step; the paper may subtract the start: difference.",
        pitfalls="The path starts at 0 in the network's input space: the mean colour, for normalized inputs.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.steps >= 1, f"steps={self.steps}: give at least 1.")

    def forwards(self, channels: int, cells: int) -> int:
        return self.steps * (3 + self.base.forwards(channels, cells))

    def passes(self, signals: Signals) -> Passes:
        total: Tensor | None = None
        start: Tensor | None = None
        for index in range(self.steps):
            step = yield Scaled(index / self.steps)
            if start is None:
                start = step.activations
            if self.difference:
                step = dataclasses.replace(step, activations=step.activations - start, stored_curvature=None)
            maps = self.base(step)
            maps = rectify(maps) if self.rectified else maps
            total = maps if total is None else total + maps
        assert total is not None
        return total / self.steps


@final
@dataclass(frozen=True)
class Augmented(Wrapper):
    """The mean of the base's maps over mirrored, lighter, darker and resized inputs, each undone.

    Known as test-time augmentation ("aug smooth") from the package grad-cam. `factors` multiply the network's inputs,
    `sizes` their sides; `flip` mirrors the last axis.
    """

    flip: bool = True
    factors: tuple[float, ...] = (0.9, 1.0, 1.1)
    sizes: tuple[float, ...] = (1.0,)

    card = MethodCard(
        "package grad-cam (test-time augmentation)", "mean of undone base(changed x)",
        "A map that does not hang on how the picture happens to lie.",
        cost="6 forwards + 6 backwards, shared by all layers", works_on="as its base",
        source="The package averages maps after scaling each to [0, 1] and lets each picture choose its class; here raw "
        "maps are averaged, for one class.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("factors", "sizes"):
            value = getattr(self, name)
            numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,)
            object.__setattr__(self, name, tuple(map(float, numbers)))
            self.check(bool(numbers) and min(numbers) > 0, f"{name}={value}: give numbers above 0.")

    def forwards(self, channels: int, cells: int) -> int:
        return len(self.variants()) * (3 + self.base.forwards(channels, cells))

    def variants(self) -> list[Changed]:
        flips = (False, True) if self.flip else (False,)
        return [Changed(flip, factor, size) for size in self.sizes for factor in self.factors for flip in flips]

    def passes(self, signals: Signals) -> Passes:
        total: Tensor | None = None
        for variant in self.variants():
            maps = self.base((yield variant))
            maps = maps.flip(-1) if variant.flip else maps
            if variant.size != 1:
                maps = resize(maps, signals.activations.shape[2:])
            total = maps if total is None else total + maps
        assert total is not None
        return total / len(self.variants())


def noise(sigma: float, seed: int, index: int) -> Noise:
    return Noise(sigma, seed * 100003 + index)
