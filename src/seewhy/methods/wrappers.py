"""Methods made of another method: looked at through noise, along a path, flipped and scaled, at several sizes.

Each is a generator that yields the variants of the inputs it wants to see: every layer shares each pass, and wrappers that
ask for the same variants share them too. Notation: x (B, C, *size) the inputs, A and G a layer's activations and gradients.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.methods.base import About, Elementwise, Method, Sampled, Weighted
from seewhy.methods.gradient import GradCAM
from seewhy.scoring import Probability, Scoring
from seewhy.signals import Need, Signals, Variant
from seewhy.tensors import INTERPOLATION, blur, facing, first_component, normalize, per_channel, rectify, resize, weighted_sum

Passes = Generator[Variant, Signals, Tensor]


@dataclass(frozen=True)
class Wrapper(Sampled):
    """A method made of its `base`."""

    base: Method = field(default_factory=GradCAM)

    @property
    def needs(self) -> Need:  # type: ignore[override]
        return self.base.needs | Need.PROBES

    @property
    def scoring(self) -> Scoring:
        return self.base.scoring


# What the network is shown


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
            mode = INTERPOLATION[inputs.dim() - 2]
            inputs = F.interpolate(inputs, size=sides, mode=mode, align_corners=False)
        return (inputs.flip(-1) if self.flip else inputs) * self.factor


@final
@dataclass(frozen=True)
class Enlarged(Variant):
    """The inputs resized to `sides`, bicubic where they are pictures."""

    sides: tuple[int, ...]

    def __call__(self, inputs: Tensor) -> Tensor:
        if self.sides == tuple(inputs.shape[2:]):
            return inputs
        mode = "bicubic" if len(self.sides) == 2 else INTERPOLATION[len(self.sides)]
        return F.interpolate(inputs, size=self.sides, mode=mode, align_corners=False)


@final
@dataclass(frozen=True)
class Window(Variant):
    """A window of the input's own size at `start` of the inputs resized to `sides`, linear."""

    sides: tuple[int, ...]
    start: tuple[int, ...]

    def __call__(self, inputs: Tensor) -> Tensor:
        size = inputs.shape[2:]
        mode = INTERPOLATION[len(size)]
        large = F.interpolate(inputs, size=self.sides, mode=mode, align_corners=False)
        return large[(..., *(slice(at, at + side) for at, side in zip(self.start, size, strict=True)))]


# The methods


@final
@dataclass(frozen=True)
class Smooth(Wrapper):
    """The mean of the base's maps over noisy inputs: mean_i base(x + noise_i).

    Smilkov et al., SmoothGrad, 2017, for any method. Noise is Gaussian, with `sigma` times the range of each picture.
    """

    samples: int = 16
    sigma: float = 0.15
    seed: int = 0

    about = About(
        "Smilkov et al., SmoothGrad, 2017", "meanᵢ base(x + noiseᵢ)",
        "A calmer map: what stays when the picture is disturbed a little.",
        cost="16 forwards + 16 backwards, shared by all layers", works_on="as its base",
        source="The paper: 10 to 20 % noise; signed maps are averaged, not their squares.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.samples >= 1, f"samples={self.samples}: give at least 1.")
        self.check(self.sigma >= 0, f"sigma={self.sigma}: give 0 or more.")

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * self.samples

    def passes(self, at: Signals) -> Passes:
        total: Tensor | None = None
        for index in range(self.samples):
            maps = self.base((yield noise(self.sigma, self.seed, index)))
            total = maps if total is None else total + maps
        assert total is not None
        return total / self.samples


@final
@dataclass(frozen=True)
class SmoothGradCAMPlusPlus(Sampled):
    """Grad-CAM++ with its derivatives averaged over noisy inputs: alpha = D2 / (2 D2 + S_k D3), w_k = sum alpha relu(D1).

    Omeiza et al., 2019 (arXiv 1908.01224). D1, D2, D3 are the means of g, g^2, g^3; A and S_k are those of the clean picture.
    """

    samples: int = 16
    sigma: float = 0.15
    seed: int = 0

    about = About(
        "Omeiza et al., Smooth Grad-CAM++, 2019", "Σₖ (Σ D₂/(2D₂+Sₖ·D₃) relu(D₁)) Aₖ",
        "Grad-CAM++, calmer.",
        cost="16 forwards + 16 backwards, shared by all layers",
        source="Only D₂ above the line gives Grad-CAM++ back without noise; the paper, as quoted by torchcam, has D₁.",
    )  # fmt: skip
    needs = Need.GRADIENTS | Need.PROBES

    def __post_init__(self) -> None:
        Smooth(samples=self.samples, sigma=self.sigma)

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * self.samples

    def passes(self, at: Signals) -> Passes:
        one = two = three = torch.zeros_like(at.activations)
        for index in range(self.samples):
            gradients = (yield noise(self.sigma, self.seed, index)).gradients / self.samples
            scaled = gradients * self.samples
            one, two, three = one + gradients, two + gradients * scaled, three + gradients * scaled**2
        below = 2 * two + per_channel(at.activation_sums, three) * three
        alphas = torch.where(below != 0, two / below, 0.0)
        return weighted_sum((alphas * one.clamp(min=0)).flatten(2).sum(2), at.activations)


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

    about = About(
        "Sattarzadeh et al., Integrated Grad-CAM, ICASSP 2021", "meanᵢ relu(base(x·i/m))",
        "What the score is built from as the picture fades in; helps where gradients are saturated.",
        cost="20 forwards + 20 backwards, shared by all layers", works_on="as its base",
        source="The authors' notebook: a path of inputs, ReLU at each step; the paper may subtract the start: difference.",
        pitfalls="The path starts at 0 in the network's input space: the mean colour, for normalized inputs.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.steps >= 1, f"steps={self.steps}: give at least 1.")

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * self.steps

    def passes(self, at: Signals) -> Passes:
        total: Tensor | None = None
        start: Tensor | None = None
        for index in range(self.steps):
            step = yield Scaled(index / self.steps)
            if start is None:
                start = step.activations
            if self.difference:
                step = Signals(step.layer, step.activations - start, step.known_gradients, None, step.probe)
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

    about = About(
        "package grad-cam (test-time augmentation)", "mean of undone base(changed x)",
        "A map that does not hang on how the picture happens to lie.",
        cost="6 forwards + 6 backwards, shared by all layers", works_on="as its base",
        source="The package averages maps after scaling each to [0, 1] and lets each picture choose its class; here raw "
        "maps are averaged, for one class.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("factors", "sizes"):
            value = getattr(self, name)
            numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,)
            object.__setattr__(self, name, tuple(map(float, numbers)))
            self.check(bool(numbers) and min(numbers) > 0, f"{name}={value}: give numbers above 0.")

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * len(self.variants())

    def variants(self) -> list[Changed]:
        flips = (False, True) if self.flip else (False,)
        return [Changed(flip, factor, size) for size in self.sizes for factor in self.factors for flip in flips]

    def passes(self, at: Signals) -> Passes:
        total: Tensor | None = None
        for variant in self.variants():
            maps = self.base((yield variant))
            maps = maps.flip(-1) if variant.flip else maps
            if variant.size != 1:
                maps = resize(maps, at.activations.shape[2:])
            total = maps if total is None else total + maps
        assert total is not None
        return total / len(self.variants())


@final
@dataclass(frozen=True)
class EigenSmooth(Method):
    """The first principal component of what the channels add to the base's map, turned to face their sum.

    Known as "eigen smooth" from the package grad-cam. The base must be a sum over channels.
    """

    base: Method = field(default_factory=GradCAM)
    centered: bool = True

    about = About(
        "package grad-cam (eigen smooth)", "first component of base's terms",
        "The main pattern of a map, without its noise.",
        cost="as its base", works_on="as its base",
        source="The package's definition (centred); it leaves the sign to chance.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        sums = isinstance(self.base, (Weighted, Elementwise))
        self.check(sums, f"{self.base} is no sum over channels; take gradcam, hirescam or layercam.")

    @property
    def needs(self) -> Need:  # type: ignore[override]
        return self.base.needs

    @property
    def scoring(self) -> Scoring:
        return self.base.scoring

    def __call__(self, at: Signals) -> Tensor:
        assert isinstance(self.base, (Weighted, Elementwise))
        terms = self.base.terms(at)
        return facing(first_component(terms, centered=self.centered), terms.sum(1))


@final
@dataclass(frozen=True)
class CAMERAS(Sampled):
    """Activations and gradients of several input sizes, each averaged, then multiplied: sum_k mean U(A_k) * mean U(G_k).

    Jalwana et al., CVPR 2021, equation 4. `sizes` input sizes, each `step` times the first larger; U to the input's size.
    """

    sizes: int = 8
    step: float = 100 / 224

    about = About(
        "Jalwana et al., CAMERAS, CVPR 2021", "Σₖ meanᵣ U(Aₖʳ) ⊙ meanᵣ U(Gₖʳ)",
        "A fine map of a late layer: larger inputs give it more cells.",
        cost="8 forwards + 8 backwards of ever larger inputs (about 55 of the first), shared by all layers",
        works_on="networks that take any input size",
        source="The authors' code: 224, 324, ... 924, bicubic; its filter by class does nothing for a given class.",
        pitfalls="The smallest size dominates the gradients. Memory: K maps at the input's size.",
    )  # fmt: skip
    needs = Need.GRADIENTS | Need.PROBES

    def __post_init__(self) -> None:
        self.check(self.sizes >= 1, f"sizes={self.sizes}: give at least 1.")
        self.check(self.step > 0, f"step={self.step}: give a number above 0.")

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * round(sum((1 + index * self.step) ** 2 for index in range(self.sizes)))

    def passes(self, at: Signals) -> Passes:
        size = tuple(at.inputs.shape[2:])
        activations, gradients = list[Tensor](), list[Tensor]()
        for index in range(self.sizes):
            seen = yield Enlarged(tuple(round(side * (1 + index * self.step)) for side in size))
            activations.append(seen.activations)
            gradients.append(seen.gradients)
        total = at.activations.new_zeros(len(at.activations), *size)
        for channel in range(at.activations.shape[1]):  # all of them at the input's size would be hundreds of MB
            ours, theirs = (
                sum(resize(tensor[:, channel], size) for tensor in tensors) for tensors in (activations, gradients)
            )
            total += ours * theirs
        return total / self.sizes**2


@final
@dataclass(frozen=True)
class SESS(Wrapper):
    """The base's maps of windows of ever larger pictures, weighted by their score, joined, and blurred.

    Tursun et al., ECCV 2022. Scale i is the picture resized by 1 + i `step`; windows have the input's size. Each window's map
    N(U(relu(base))) counts p / max p; the mean is over positive values; the blur is Gaussian, 11 pixels, sigma 5. Windows
    with the lowest probabilities (a share `discard`) are left out.
    """

    scales: int = 12
    step: float = 64 / 224
    discard: float = 0.0

    about = About(
        "Tursun et al., SESS, ECCV 2022", "mean₊ of pasted (p/max p) N(U(relu(base)))",
        "Finds small and several objects that one look at the picture misses.",
        cost="about 122 forwards + backwards, shared by all layers", works_on="as its base",
        source="The authors' code (not package grad-cam's, whose step differs).",
        pitfalls="Every window is scaled to its own maximum: windows without the object add noise. Never negative.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.scales >= 1, f"scales={self.scales}: give at least 1.")
        self.check(0 <= self.discard < 1, f"discard={self.discard}: give a share from 0 to below 1.")

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * len(self.windows((224, 224)))

    def windows(self, size: tuple[int, ...]) -> list[Window]:
        found = []
        for scale in range(self.scales):
            sides = tuple(round(side * (1 + scale * self.step)) for side in size)
            starts: list[tuple[int, ...]] = [()]
            for side, window in zip(sides, size, strict=True):
                ends = [*range(0, side - window, window), side - window]
                starts = [(*start, end) for start in starts for end in ends]
            found += [Window(sides, start) for start in starts]
        return found

    def passes(self, at: Signals) -> Passes:
        size = tuple(at.inputs.shape[2:])
        windows = self.windows(size)
        chances, pasted = list[Tensor](), list[Tensor]()
        for window in windows:
            seen = yield window
            chances.append(seen.score_of(Probability()))
            seen_map = normalize(resize(rectify(self.base(seen)), size))
            large = seen_map.new_zeros(len(seen_map), *window.sides)
            large[(..., *(slice(a, a + side) for a, side in zip(window.start, size, strict=True)))] = seen_map
            pasted.append(resize(large, size))
        weights = torch.stack(chances)
        ranks = weights.argsort(0, stable=True).argsort(0, stable=True)
        weights = torch.where(ranks < int(len(windows) * self.discard), 0.0, weights / weights.amax(0))
        total = torch.zeros_like(pasted[0])
        times = torch.zeros_like(total)
        for weight, maps in zip(weights.to(total.dtype), pasted, strict=True):
            maps = maps * weight.reshape(-1, *[1] * len(size))
            total += maps
            times += maps > 0
        return blur((total / times.clamp(min=1))[:, None], 11, 5.0, "replicate")[:, 0]


def noise(sigma: float, seed: int, index: int) -> Noise:
    return Noise(sigma, seed * 100003 + index)
