"""Methods that average a base over noise, along a path, or over mirrored, brighter and resized inputs.

Each is a generator of input variants: all layers share each pass, and methods that yield equal variants share them too.
Notation: x (B, C, *size) the inputs, A and G a layer's activations and gradients.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.methods.base import Method, MethodCard, VariantMethod
from seewhy.methods.gradient import GradCAM
from seewhy.methods.setting_checks import check_base
from seewhy.signals.layer import Need, Signals, Variant
from seewhy.signals.layer_tensors import LayerTensors
from seewhy.signals.scoring import Scoring
from seewhy.tensors.map_functions import INTERPOLATION_MODES, broadcast_over_grid, rectify, resize

VariantGenerator = Generator[Variant, Signals, Tensor]


@dataclass(frozen=True)
class Wrapper(VariantMethod):
    """Base class of methods that wrap a `base`."""

    base: Method = field(default_factory=GradCAM)

    def __post_init__(self) -> None:
        check_base(self, self.base)

    @property
    def needs(self) -> Need:  # type: ignore[override]
        return self.base.needs | Need.EVALUATOR

    @property
    def scoring(self) -> Scoring:
        return self.base.scoring


@final
@dataclass(frozen=True)
class NoisyInputs(Variant):
    """The inputs with Gaussian noise, `sigma` times the range of each image; the same noise for all."""

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
class ScaledInputs(Variant):
    """The inputs times a `factor`."""

    factor: float

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor


@final
@dataclass(frozen=True)
class AugmentedInputs(Variant):
    """The inputs times a `factor`, their sides times `size`, mirrored along the last axis with `flip`."""

    flip: bool
    factor: float
    size: float

    @property
    def moves_content(self) -> bool:  # type: ignore[override]
        return self.flip or self.size != 1

    def __call__(self, inputs: Tensor) -> Tensor:
        if self.size != 1:
            sides = [max(1, round(side * self.size)) for side in inputs.shape[2:]]
            mode = INTERPOLATION_MODES[inputs.dim() - 2]
            inputs = F.interpolate(inputs, size=sides, mode=mode, align_corners=False)
        return (inputs.flip(-1) if self.flip else inputs) * self.factor


@final
@dataclass(frozen=True)
class Smooth(Wrapper):
    """Average the base's maps over noisy inputs: mean_i base(x + noise_i).

    Args:
        base: A method with one map per layer.
        samples: Number of noisy inputs, at least 1.
        sigma: Standard deviation of the Gaussian noise, as a fraction of each image's range, 0 or more.
        seed: Seed of the noise.

    References:
        Smilkov et al., "SmoothGrad", 2017, https://arxiv.org/abs/1706.03825
    """

    samples: int = 16
    sigma: float = 0.15
    seed: int = 0

    card = MethodCard(
        "Smilkov et al., SmoothGrad, 2017", "meanᵢ base(x + noiseᵢ)",
        "A smoother map: the part that small changes of the input keep.",
        cost="16 forwards + 16 backwards, shared by all layers", works_on="as its base",
        source="The paper: 10 to 20 % noise; signed maps are averaged, not their squares.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.samples >= 1, f"samples={self.samples}: must be at least 1.")
        self.check(self.sigma >= 0, f"sigma={self.sigma}: must be 0 or more.")

    def forwards(self, channels: int, cells: int) -> int:
        return self.samples * (3 + self.base.forwards(channels, cells))

    def passes(self, signals: Signals) -> VariantGenerator:
        total: Tensor | None = None
        for index in range(self.samples):
            maps = self.base((yield noisy_inputs(self.sigma, self.seed, index)))
            total = maps if total is None else total + maps
        assert total is not None
        return total / self.samples


@final
@dataclass(frozen=True)
class SmoothGradCAMPlusPlus(VariantMethod):
    """Compute Grad-CAM++ with derivatives averaged over noisy inputs: alpha = D2 / (2 D2 + S_k D3), w_k = sum alpha relu(D1).

    D1, D2, D3 are the means of g, g^2, g^3; A and S_k are those of the unchanged input.

    Args:
        samples: Number of noisy inputs, at least 1.
        sigma: Standard deviation of the Gaussian noise, as a fraction of each image's range, 0 or more.
        seed: Seed of the noise.

    References:
        Omeiza et al., "Smooth Grad-CAM++", 2019, https://arxiv.org/abs/1908.01224
    """

    samples: int = 16
    sigma: float = 0.15
    seed: int = 0

    card = MethodCard(
        "Omeiza et al., Smooth Grad-CAM++, 2019", "Σₖ (Σ D₂/(2D₂+Sₖ·D₃) relu(D₁)) Aₖ",
        "A smoother Grad-CAM++.",
        cost="16 forwards + 16 backwards, shared by all layers",
        source="Only D₂ in the numerator gives Grad-CAM++ without noise; the paper, as quoted by torchcam, has D₁.",
    )  # fmt: skip
    needs = Need.GRADIENTS | Need.EVALUATOR

    def __post_init__(self) -> None:
        Smooth(samples=self.samples, sigma=self.sigma)

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * self.samples

    def passes(self, signals: Signals) -> VariantGenerator:
        one = two = three = torch.zeros_like(signals.activations)
        for index in range(self.samples):
            gradients = (yield noisy_inputs(self.sigma, self.seed, index)).gradients / self.samples
            scaled = gradients * self.samples
            one, two, three = one + gradients, two + gradients * scaled, three + gradients * scaled**2
        below = 2 * two + broadcast_over_grid(signals.activation_sums, three) * three
        alphas = torch.where(below != 0, two / below, 0.0)
        return signals.weighted_sum((alphas * one.clamp(min=0)).flatten(2).sum(2))


@final
@dataclass(frozen=True)
class Integrated(Wrapper):
    """Average the base's maps along a path from a black input to the image: mean_i relu(base(x i / steps)).

    i runs from 0 to steps - 1.

    Args:
        base: A method with one map per layer.
        steps: Steps of the path, at least 1.
        rectified: Apply the ReLU at each step.
        difference: Subtract the activations at the start of the path from those of each step.

    References:
        Sattarzadeh et al., "Integrated Grad-CAM", ICASSP 2021, https://arxiv.org/abs/2102.07805
    """

    steps: int = 20
    rectified: bool = True
    difference: bool = False

    card = MethodCard(
        "Sattarzadeh et al., Integrated Grad-CAM, ICASSP 2021", "meanᵢ relu(base(x·i/m))",
        "What builds the score up as the image fades in; helps where gradients are saturated.",
        cost="20 forwards + 20 backwards, shared by all layers", works_on="as its base",
        source="The authors' notebook: a path of inputs, ReLU at each step; the paper may subtract the start: difference.",
        pitfalls="The path starts at 0 in the model's input space: the mean color for normalized inputs.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.steps >= 1, f"steps={self.steps}: must be at least 1.")

    def forwards(self, channels: int, cells: int) -> int:
        return self.steps * (3 + self.base.forwards(channels, cells))

    def passes(self, signals: Signals) -> VariantGenerator:
        total: Tensor | None = None
        start: Tensor | None = None
        for index in range(self.steps):
            step = yield ScaledInputs(index / self.steps)
            if start is None:
                start = step.activations
            if self.difference:
                tensors = LayerTensors(step.activations - start, step.tensors.gradients)
                step = replace(step, tensors=tensors)
            maps = self.base(step)
            maps = rectify(maps) if self.rectified else maps
            total = maps if total is None else total + maps
        assert total is not None
        return total / self.steps


@final
@dataclass(frozen=True)
class Augmented(Wrapper):
    """Average the base's maps over mirrored, brighter, darker and resized inputs, each transformed back.

    Args:
        base: A method with one map per layer.
        flip: Also mirror the last axis.
        factors: Factors of the input's values, above 0.
        sizes: Factors of the input's sides, above 0.

    References:
        No paper. Known as test-time augmentation ("aug smooth") from the package grad-cam.
    """

    flip: bool = True
    factors: tuple[float, ...] = (0.9, 1.0, 1.1)
    sizes: tuple[float, ...] = (1.0,)

    card = MethodCard(
        "no paper: package grad-cam (test-time augmentation)", "mean of base(changed x), transformed back",
        "A map that does not depend on mirroring and brightness.",
        cost="6 forwards + 6 backwards, shared by all layers", works_on="as its base",
        source="The package averages maps after scaling each to [0, 1] and lets each image choose its class; here raw maps are "
        "averaged, for one class.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("factors", "sizes"):
            value = getattr(self, name)
            numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,)
            object.__setattr__(self, name, tuple(map(float, numbers)))
            self.check(bool(numbers) and min(numbers) > 0, f"{name}={value}: must be numbers above 0.")

    def forwards(self, channels: int, cells: int) -> int:
        return len(self.variants()) * (3 + self.base.forwards(channels, cells))

    def variants(self) -> list[AugmentedInputs]:
        flips = (False, True) if self.flip else (False,)
        return [AugmentedInputs(flip, factor, size) for size in self.sizes for factor in self.factors for flip in flips]

    def passes(self, signals: Signals) -> VariantGenerator:
        total: Tensor | None = None
        for variant in self.variants():
            maps = self.base((yield variant))
            maps = maps.flip(-1) if variant.flip else maps
            if variant.size != 1:
                maps = resize(maps, signals.activations.shape[2:])
            total = maps if total is None else total + maps
        assert total is not None
        return total / len(self.variants())


def noisy_inputs(sigma: float, seed: int, index: int) -> NoisyInputs:
    return NoisyInputs(sigma, seed * 100003 + index)
