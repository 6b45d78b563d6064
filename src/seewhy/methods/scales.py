"""Methods that look at the picture at several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.methods.base import MethodCard, VariantMethod
from seewhy.methods.variants import Passes, Wrapper
from seewhy.signals.layer import Need, Signals, Variant
from seewhy.signals.scoring import Probability
from seewhy.tensors import INTERPOLATION_MODES, gaussian_blur, normalize_minmax, rectify, resize


@final
@dataclass(frozen=True)
class Enlarged(Variant):
    """The inputs resized to `sides`, bicubic where they are pictures."""

    sides: tuple[int, ...]

    def __call__(self, inputs: Tensor) -> Tensor:
        if self.sides == tuple(inputs.shape[2:]):
            return inputs
        mode = "bicubic" if len(self.sides) == 2 else INTERPOLATION_MODES[len(self.sides)]
        return F.interpolate(inputs, size=self.sides, mode=mode, align_corners=False)


@final
@dataclass(frozen=True)
class Window(Variant):
    """A window of the input's own size at `start` of the inputs resized to `sides`, linear."""

    sides: tuple[int, ...]
    start: tuple[int, ...]

    def place(self, size: Sequence[int]) -> tuple[EllipsisType | slice, ...]:
        """Where the window lies in the resized inputs."""
        return (..., *(slice(first, first + side) for first, side in zip(self.start, size, strict=True)))

    def __call__(self, inputs: Tensor) -> Tensor:
        size = inputs.shape[2:]
        mode = INTERPOLATION_MODES[len(size)]
        large = F.interpolate(inputs, size=self.sides, mode=mode, align_corners=False)
        return large[self.place(size)]


@final
@dataclass(frozen=True)
class CAMERAS(VariantMethod):
    """Activations and gradients of several input sizes, each averaged, then multiplied: sum_k mean U(A_k) * mean U(G_k).

    Jalwana et al., CVPR 2021, equation 4. `sizes` input sizes, each `step` times the first larger; U to the input's size.
    """

    sizes: int = 8
    step: float = 100 / 224

    card = MethodCard(
        "Jalwana et al., CAMERAS, CVPR 2021", "Σₖ meanᵣ U(Aₖʳ) ⊙ meanᵣ U(Gₖʳ)",
        "A fine map of a late layer: larger inputs give it more cells.",
        cost="8 forwards + 8 backwards of ever larger inputs (about 55 of the first), shared by all layers",
        works_on="networks that take any input size",
        source="The authors' code: 224, 324, ... 924, bicubic; its filter by class does nothing for a given class.",
        pitfalls="The smallest size dominates the gradients. Memory: K maps at the input's size.",
    )  # fmt: skip
    needs = Need.GRADIENTS | Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.sizes >= 1, f"sizes={self.sizes}: give at least 1.")
        self.check(self.step > 0, f"step={self.step}: give a number above 0.")

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * round(sum((1 + index * self.step) ** 2 for index in range(self.sizes)))

    def passes(self, signals: Signals) -> Passes:
        size = tuple(signals.inputs.shape[2:])
        activations, gradients = list[Tensor](), list[Tensor]()
        for index in range(self.sizes):
            seen = yield Enlarged(tuple(round(side * (1 + index * self.step)) for side in size))
            activations.append(seen.activations)
            gradients.append(seen.gradients)
        total = signals.activations.new_zeros(len(signals.activations), *size)
        for channel in range(signals.activations.shape[1]):  # all of them at the input's size would be hundreds of MB
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

    card = MethodCard(
        "Tursun et al., SESS, ECCV 2022", "mean₊ of pasted (p/max p) N(U(relu(base)))",
        "Finds small and several objects that one look at the picture misses.",
        cost="about 122 forwards + backwards, shared by all layers", works_on="as its base",
        source="The authors' code (not package grad-cam's, whose step differs).",
        pitfalls="Every window is scaled to its own maximum: windows without the object add noise. Never negative.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.scales >= 1, f"scales={self.scales}: give at least 1.")
        self.check(0 <= self.discard < 1, f"discard={self.discard}: give a share from 0 to below 1.")

    def forwards(self, channels: int, cells: int) -> int:
        return len(self.windows((224, 224))) * (3 + self.base.forwards(channels, cells))

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

    def passes(self, signals: Signals) -> Passes:
        size = tuple(signals.inputs.shape[2:])
        windows = self.windows(size)
        chances, pasted = list[Tensor](), list[Tensor]()
        for window in windows:
            seen = yield window
            chances.append(seen.score_of(Probability()))
            seen_map = normalize_minmax(resize(rectify(self.base(seen)), size))
            large = seen_map.new_zeros(len(seen_map), *window.sides)
            large[window.place(size)] = seen_map
            pasted.append(resize(large, size))
        weights = torch.stack(chances)
        ranks = weights.argsort(dim=0, stable=True).argsort(dim=0, stable=True)
        weights = torch.where(ranks < int(len(windows) * self.discard), 0.0, weights / weights.amax(0))
        total = torch.zeros_like(pasted[0])
        times = torch.zeros_like(total)
        for weight, maps in zip(weights.to(total.dtype), pasted, strict=True):
            maps = maps * weight.reshape(-1, *[1] * len(size))
            total += maps
            times += maps > 0
        return gaussian_blur((total / times.clamp(min=1))[:, None], 11, 5.0, "replicate")[:, 0]
