"""Methods that ask the whole network about changed pictures and belong to no layer, or to several at once.

Notation: x (C, *size) one picture, y the score, p the probability of the class, z its logit, U linear resizing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import ceil
from typing import Literal, final

import torch
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.methods.base import MethodCard, NetworkMethod
from seewhy.signals.layer import Need, Signals
from seewhy.signals.model import ModelSignals
from seewhy.signals.scoring import Probability
from seewhy.tensors import rectify, resize, weighted_sum


@final
@dataclass(frozen=True)
class Occlusion(NetworkMethod):
    """What the score loses when a window is covered: for each pixel the mean of y(x) - y(covered) over its windows.

    Zeiler and Fergus, ECCV 2014, figure 6, averaged as in captum. `window` and `stride` are shares of each side of the
    input; `baseline` is the value of the cover, in the network's input space. Windows at the far border are cut off.
    """

    window: float = 2 / 7
    stride: float = 1 / 28
    baseline: float = 0.0

    card = MethodCard(
        "Zeiler & Fergus, ECCV 2014", "mean of y(x) − y(x covered)",
        "Asks the plainest question: what if this were not there.",
        cost="one forward for each window (729 by default)",
        source="The paper maps the score itself by the window's place; per pixel averages are captum's.",
        pitfalls="A cover is itself something to see; objects larger than the window are hardly missed.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(0 < self.window <= 1, f"window={self.window}: give a share of the side, above 0 and at most 1.")
        self.check(0 < self.stride <= self.window, f"stride={self.stride}: give a share above 0, at most the window.")

    def forwards(self, channels: int, cells: int) -> int:
        return ceil((1 - self.window) / self.stride + 1) ** 2  # of a picture

    def __call__(self, whole: ModelSignals) -> Tensor:
        size = whole.inputs.shape[2:]
        windows = list(itertools.product(*(self.spans(side) for side in size)))
        own = whole.scores
        maps = []
        for picture, image in enumerate(whole.inputs):

            def covered(rows: slice, image: Tensor = image) -> Tensor:
                images = image.repeat(rows.stop - rows.start, *[1] * image.dim())
                for changed, window in zip(images, windows[rows], strict=True):
                    changed[(slice(None), *window)] = self.baseline
                return images

            lost = own[picture] - whole.score_inputs(picture, len(windows), covered, shared=self)
            total = torch.zeros(size, dtype=map_dtype(image), device=image.device)
            times = torch.zeros_like(total)
            for window, value in zip(windows, lost.to(total.dtype), strict=True):
                total[window] += value
                times[window] += 1
            maps.append(total / times.clamp(min=1))
        return torch.stack(maps)

    def spans(self, side: int) -> list[slice]:
        window, stride = max(1, round(self.window * side)), max(1, round(self.stride * side))
        count = ceil((side - window) / stride) + 1
        return [slice(i * stride, min(i * stride + window, side)) for i in range(count)]


@final
@dataclass(frozen=True)
class RISE(NetworkMethod):
    """The mean of many random masks, each weighted by what the network says of the picture behind it.

    Petsiuk et al., BMVC 2018, equation 6: sum_i p(x m_i) m_i / (N p). Masks are `grid` by `grid` random bits, on with
    probability `p`, resized linearly and shifted at random.
    """

    masks: int = 4000
    grid: int = 7
    p: float = 0.5
    seed: int = 0

    card = MethodCard(
        "Petsiuk et al., RISE, BMVC 2018", "Σᵢ p(x ⊙ mᵢ) mᵢ / (N p)",
        "Needs nothing but answers: a check of all other methods.",
        cost="4000 forwards",
        source="The paper's settings; the authors' script takes 6000 masks of 8x8 cells, on with 0.1.",
        pitfalls="Noisy with few masks. The whole map lies near the mean score: read differences, not heights.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.masks >= 1, f"masks={self.masks}: give at least 1.")
        self.check(self.grid >= 2, f"grid={self.grid}: give at least 2.")
        self.check(0 < self.p < 1, f"p={self.p}: give a probability between 0 and 1.")

    def forwards(self, channels: int, cells: int) -> int:
        return self.masks

    def __call__(self, whole: ModelSignals) -> Tensor:
        size = whole.inputs.shape[2:]
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.masks, *[self.grid] * len(size))
        bits = (torch.rand(shape, generator=generator, dtype=torch.float64) < self.p).to(map_dtype(whole.inputs))
        cells = [ceil(side / self.grid) for side in size]
        shifts = torch.stack([torch.randint(0, cell, (self.masks,), generator=generator) for cell in cells], 1)

        def masks(rows: slice) -> Tensor:
            large = resize(bits[rows], [(self.grid + 1) * cell for cell in cells])
            cut = [
                mask[tuple(slice(start, start + side) for start, side in zip(shift, size, strict=True))]
                for mask, shift in zip(large, shifts[rows].tolist(), strict=True)
            ]
            return torch.stack(cut).to(whole.inputs.device)

        maps = []
        for picture, image in enumerate(whole.inputs):
            total = torch.zeros(size, dtype=map_dtype(image), device=image.device)

            def masked(rows: slice, image: Tensor = image) -> Tensor:
                return image * masks(rows)[:, None].to(image.dtype)

            scores = whole.score_inputs(picture, self.masks, masked, scoring=Probability(), shared=self).to(total.dtype)
            for start in range(0, self.masks, 100):  # made again: all of them would be 800 MB
                rows = slice(start, min(start + 100, self.masks))
                total += torch.einsum("n,n...->...", scores[rows], masks(rows))
            maps.append(total / (self.masks * self.p))
        return torch.stack(maps)


@final
@dataclass(frozen=True)
class PolyCAM(NetworkMethod):
    """Coarse maps sharpened by finer ones: score-weighted channels at each scale, each stage multiplied into the next.

    Englebert et al., ICPR 2022. Of the chosen layers the last of each grid size. Masks m_k = U(norm(A_k)); weights for
    `variant` "+": p(x m), "-": relu(p(x) - p(x (1 - m))), "+-": relu(p(x m) + p(x) - p(x (1 - m))). From the coarsest on, the
    finer stage a is divided by its own blurred version and multiplied by the map so far, resized.
    """

    variant: Literal["+", "-", "+-"] = "+"

    card = MethodCard(
        "Englebert et al., Poly-CAM, ICPR 2022", "Πₗ local(Σₖ p(x mₖ) Aₖ)",
        "Score-CAM with the detail of early layers.",
        cost="K forwards for each scale",
        source="The authors' code: percentiles 0.1 and 99.9, division by the upper.",
        pitfalls="Never negative: it tells nothing against the class.",
    )  # fmt: skip
    needs = Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.variant in ("+", "-", "+-"), f"variant={self.variant!r}: give '+', '-' or '+-'.")

    @property
    def keeps_layers(self) -> bool:
        return True

    def forwards(self, channels: int, cells: int) -> int:
        return 2 * channels * (2 if self.variant == "+-" else 1)  # at least two layers, about as wide as the last

    def __call__(self, whole: ModelSignals) -> Tensor:
        stages = {at.activations.shape[2:]: at for at in whole.layers.values()}
        ordered = sorted(stages.values(), key=lambda at: at.activations[0, 0].numel())
        if len(ordered) < 2:
            raise MethodError(
                "",
                f"it joins layers of different grids, and there is {len(ordered)}: choose several, or layers='every'.",
            )
        maps: Tensor | None = None
        for at in ordered:
            own = torch.stack([self.stage(at, whole, picture) for picture in range(len(at.activations))])
            maps = own if maps is None else sharpened(own, maps)
        assert maps is not None
        return maps

    def stage(self, at: Signals, whole: ModelSignals, picture: int) -> Tensor:
        own, image = at.activations[picture], whole.inputs[picture]
        masks = clipped(own)

        def kept(rows: slice) -> Tensor:
            return image * resize(masks[rows], image.shape[1:])[:, None].to(image.dtype)

        def removed(rows: slice) -> Tensor:
            return image - kept(rows)

        count, weights = len(own), own.new_zeros(len(own))
        if "+" in self.variant:
            weights += whole.score_inputs(
                picture, count, kept, scoring=Probability(), shared=(self, at.layer, "kept")
            ).to(own.dtype)
        if "-" in self.variant:
            before = whole.score_of(Probability())[picture]
            weights += (
                before
                - whole.score_inputs(picture, count, removed, scoring=Probability(), shared=(self, at.layer, "removed"))
            ).to(own.dtype)
        return rectify(weighted_sum(rectify(weights)[None], own[None])[0])


def clipped(maps: Tensor) -> Tensor:
    """Each map (K, *grid) from its 0.1 percentile, by its 99.9 percentile, on [0, 1]."""
    flat = maps.flatten(1)
    low, high = flat.quantile(0.001, dim=1, keepdim=True), flat.quantile(0.999, dim=1, keepdim=True)
    return ((flat - low) / high.clamp(min=1e-12)).clamp(0, 1).reshape(maps.shape)


def sharpened(fine: Tensor, coarse: Tensor) -> Tensor:
    """A fine map by its own local mean, times the coarse map."""
    size = fine.shape[1:]
    local = fine / resize(resize(fine, coarse.shape[1:]), size).clamp(min=1e-12)
    return rectify(local * resize(coarse, size))


def map_dtype(tensor: Tensor) -> torch.dtype:
    """float32, or float64 for that: what maps are made in."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
