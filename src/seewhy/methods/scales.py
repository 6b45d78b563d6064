"""Methods that use several sizes of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.methods.base import MethodCard, VariantMethod
from seewhy.methods.variants import VariantGenerator, Wrapper
from seewhy.signals.layer import Need, Signals, Variant
from seewhy.signals.scoring import Probability
from seewhy.tensors.map_functions import INTERPOLATION_MODES, gaussian_blur, normalize_minmax, rectify, resize


@final
@dataclass(frozen=True)
class ResizedInputs(Variant):
    """The inputs resized to `sides`: bicubic for images, linear otherwise."""

    sides: tuple[int, ...]
    moves_content = True

    def __call__(self, inputs: Tensor) -> Tensor:
        if self.sides == tuple(inputs.shape[2:]):
            return inputs
        mode = "bicubic" if len(self.sides) == 2 else INTERPOLATION_MODES[len(self.sides)]
        return F.interpolate(inputs, size=self.sides, mode=mode, align_corners=False)


@final
@dataclass(frozen=True)
class InputWindow(Variant):
    """A window of the input's own size at `start` of the inputs resized to `sides`, linear."""

    sides: tuple[int, ...]
    start: tuple[int, ...]
    moves_content = True

    def place(self, size: Sequence[int]) -> tuple[EllipsisType | slice, ...]:
        """Return the index of the window in the resized inputs."""
        return (..., *(slice(first, first + side) for first, side in zip(self.start, size, strict=True)))

    def __call__(self, inputs: Tensor) -> Tensor:
        size = inputs.shape[2:]
        mode = INTERPOLATION_MODES[len(size)]
        large = F.interpolate(inputs, size=self.sides, mode=mode, align_corners=False)
        return large[self.place(size)]


@final
@dataclass(frozen=True)
class CAMERAS(VariantMethod):
    """Average activations and gradients of several input sizes and multiply them: sum_k mean U(A_k) * mean U(G_k).

    U resizes to the input's size.

    Args:
        sizes: Number of input sizes, at least 1.
        step: Difference between two sizes, as a fraction of the first, above 0.

    References:
        Jalwana et al., "CAMERAS", CVPR 2021, equation 4, https://arxiv.org/abs/2106.10649
    """

    sizes: int = 8
    step: float = 100 / 224

    card = MethodCard(
        "Jalwana et al., CAMERAS, CVPR 2021", "Σₖ meanᵣ U(Aₖʳ) ⊙ meanᵣ U(Gₖʳ)",
        "A fine map of a late layer: larger inputs give it more cells.",
        cost="8 forwards + 8 backwards of growing inputs (about 55 of the first), shared by all layers",
        works_on="models that accept any input size",
        source="The authors' code: 224, 324, ... 924, bicubic; its filter by class does nothing for a given class.",
        pitfalls="The smallest size dominates the gradients. Memory: K maps at the input's size.",
    )  # fmt: skip
    needs = Need.GRADIENTS | Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.sizes >= 1, f"sizes={self.sizes}: must be at least 1.")
        self.check(self.step > 0, f"step={self.step}: must be above 0.")

    def forwards(self, channels: int, cells: int) -> int:
        return 3 * round(sum((1 + index * self.step) ** 2 for index in range(self.sizes)))

    def passes(self, signals: Signals) -> VariantGenerator:
        size = tuple(signals.inputs.shape[2:])
        activations, gradients = list[Tensor](), list[Tensor]()
        for index in range(self.sizes):
            changed = yield ResizedInputs(tuple(round(side * (1 + index * self.step)) for side in size))
            activations.append(changed.activations)
            gradients.append(changed.gradients)
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
    """Combine the base's maps of windows of growing inputs, weighted by their score, and blur the result.

    Scale i is the input resized by 1 + i `step`; windows have the input's size. Each window's map N(U(relu(base))) is weighted
    by p / max p; the mean is over positive values; the blur is Gaussian, 11 pixels, sigma 5.

    Args:
        base: A method with one map per layer.
        scales: Number of scales, at least 1.
        step: Difference between two scales, as a fraction of the input's size.
        discard: Fraction of the windows with the lowest probabilities to skip, from 0 to below 1.

    References:
        Tursun et al., "SESS", ECCV 2022, https://arxiv.org/abs/2207.01769
    """

    scales: int = 12
    step: float = 64 / 224
    discard: float = 0.0

    card = MethodCard(
        "Tursun et al., SESS, ECCV 2022", "mean₊ of pasted (p/max p) N(U(relu(base)))",
        "Finds small and multiple objects that a single view of the image misses.",
        cost="about 122 forwards + backwards, shared by all layers", works_on="as its base",
        source="The authors' code (not package grad-cam's, whose step differs).",
        pitfalls="Each window is scaled to its own maximum: windows without the object add noise. Never negative.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.scales >= 1, f"scales={self.scales}: must be at least 1.")
        self.check(0 <= self.discard < 1, f"discard={self.discard}: must be a fraction from 0 to below 1.")

    def forwards(self, channels: int, cells: int) -> int:
        return len(self.windows((224, 224))) * (3 + self.base.forwards(channels, cells))

    def windows(self, size: tuple[int, ...]) -> list[InputWindow]:
        windows = []
        for scale in range(self.scales):
            sides = tuple(round(side * (1 + scale * self.step)) for side in size)
            starts: list[tuple[int, ...]] = [()]
            for side, window in zip(sides, size, strict=True):
                ends = [*range(0, side - window, window), side - window]
                starts = [(*start, end) for start in starts for end in ends]
            windows += [InputWindow(sides, start) for start in starts]
        return windows

    def passes(self, signals: Signals) -> VariantGenerator:
        size = tuple(signals.inputs.shape[2:])
        windows = self.windows(size)
        scores, pasted_maps = list[Tensor](), list[Tensor]()
        for window in windows:
            changed = yield window
            scores.append(changed.score_of(Probability()))
            window_map = normalize_minmax(resize(rectify(self.base(changed)), size))
            large = window_map.new_zeros(len(window_map), *window.sides)
            large[window.place(size)] = window_map
            pasted_maps.append(resize(large, size))
        weights = torch.stack(scores)
        ranks = weights.argsort(dim=0, stable=True).argsort(dim=0, stable=True)
        weights = torch.where(ranks < int(len(windows) * self.discard), 0.0, weights / weights.amax(0))
        total = torch.zeros_like(pasted_maps[0])
        times = torch.zeros_like(total)
        for weight, maps in zip(weights.to(total.dtype), pasted_maps, strict=True):
            maps = maps * weight.reshape(-1, *[1] * len(size))
            total += maps
            times += maps > 0
        return gaussian_blur((total / times.clamp(min=1))[:, None], 11, 5.0, "replicate")[:, 0]
