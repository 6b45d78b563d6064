"""Methods that run the full model on changed inputs and belong to no layer, or to several at once.

Notation: x (C, *size) one input, y the score, p the probability of the class, z its logit, U linear resizing.
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
from seewhy.tensors.map_functions import rectify, resize, weighted_sum


@final
@dataclass(frozen=True)
class Occlusion(NetworkMethod):
    """Compute the score lost when a window is covered: for each pixel the mean of y(x) - y(covered) over its windows.

    Windows at the far border are cut off.

    Args:
        window: Window size as a fraction of each side of the input, above 0 and at most 1.
        stride: Step between windows as a fraction of each side, above 0 and at most `window`.
        baseline: Value of the cover, in the model's input space.

    References:
        Zeiler and Fergus, ECCV 2014, figure 6, https://arxiv.org/abs/1311.2901
    """

    window: float = 2 / 7
    stride: float = 1 / 28
    baseline: float = 0.0

    card = MethodCard(
        "Zeiler & Fergus, ECCV 2014", "mean of y(x) − y(x covered)",
        "The most direct test: the score without each region.",
        cost="one forward for each window (729 by default)",
        source="The paper maps the score itself by the window's place; averages per pixel are captum's.",
        pitfalls="The cover itself can be evidence; covering part of a large object changes little.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(
            0 < self.window <= 1, f"window={self.window}: must be a fraction of the side, above 0 and at most 1."
        )
        self.check(
            0 < self.stride <= self.window, f"stride={self.stride}: must be a fraction above 0, and at most the window."
        )

    def forwards(self, channels: int, cells: int) -> int:
        return ceil((1 - self.window) / self.stride + 1) ** 2  # for two axes

    def __call__(self, signals: ModelSignals) -> Tensor:
        size = signals.inputs.shape[2:]
        windows = list(itertools.product(*(self.spans(side) for side in size)))
        own = signals.scores
        maps = []
        for index, image in enumerate(signals.inputs):

            def covered(rows: slice, image: Tensor = image) -> Tensor:
                images = image.repeat(rows.stop - rows.start, *[1] * image.dim())
                for changed, window in zip(images, windows[rows], strict=True):
                    changed[(slice(None), *window)] = self.baseline
                return images

            lost = own[index] - signals.score_inputs(index, len(windows), covered, shared=self)
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
    """Average many random masks, each weighted by the probability for the masked input: sum_i p(x m_i) m_i / (N p).

    Masks are `grid` by `grid` random bits, resized linearly and shifted at random.

    Args:
        masks: Number of masks N, at least 1.
        grid: Cells per side, at least 2.
        p: Probability that a cell is on, between 0 and 1.
        seed: Seed of the masks.

    References:
        Petsiuk et al., "RISE", BMVC 2018, equation 6, https://arxiv.org/abs/1806.07421
    """

    masks: int = 4000
    grid: int = 7
    p: float = 0.5
    seed: int = 0

    card = MethodCard(
        "Petsiuk et al., RISE, BMVC 2018", "Σᵢ p(x ⊙ mᵢ) mᵢ / (N p)",
        "Needs only the model's output: a check of all other methods.",
        cost="4000 forwards",
        source="The paper's settings; the authors' script takes 6000 masks of 8x8 cells, on with 0.1.",
        pitfalls="Noisy with few masks. All values are near the mean score: compare them with each other.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.masks >= 1, f"masks={self.masks}: must be at least 1.")
        self.check(self.grid >= 2, f"grid={self.grid}: must be at least 2.")
        self.check(0 < self.p < 1, f"p={self.p}: must be a probability between 0 and 1.")

    def forwards(self, channels: int, cells: int) -> int:
        return self.masks

    def __call__(self, signals: ModelSignals) -> Tensor:
        size = signals.inputs.shape[2:]
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.masks, *[self.grid] * len(size))
        bits = (torch.rand(shape, generator=generator, dtype=torch.float64) < self.p).to(map_dtype(signals.inputs))
        cells = [ceil(side / self.grid) for side in size]
        shifts = torch.stack([torch.randint(0, cell, (self.masks,), generator=generator) for cell in cells], 1)

        def masks(rows: slice) -> Tensor:
            large = resize(bits[rows], [(self.grid + 1) * cell for cell in cells])
            cut = [
                mask[tuple(slice(start, start + side) for start, side in zip(shift, size, strict=True))]
                for mask, shift in zip(large, shifts[rows].tolist(), strict=True)
            ]
            return torch.stack(cut).to(signals.inputs.device)

        maps = []
        for index, image in enumerate(signals.inputs):
            total = torch.zeros(size, dtype=map_dtype(image), device=image.device)

            def masked(rows: slice, image: Tensor = image) -> Tensor:
                return image * masks(rows)[:, None].to(image.dtype)

            scores = signals.score_inputs(index, self.masks, masked, scoring=Probability(), shared=self).to(total.dtype)
            for start in range(0, self.masks, 100):  # drawn again, because all masks take 800 MB
                rows = slice(start, min(start + 100, self.masks))
                total += torch.einsum("n,n...->...", scores[rows], masks(rows))
            maps.append(total / (self.masks * self.p))
        return torch.stack(maps)


@final
@dataclass(frozen=True)
class PolyCAM(NetworkMethod):
    """Sharpen coarse maps with finer ones: score-weighted channels at each scale, each multiplied into the next.

    Uses the last selected layer of each grid size. Masks are m_k = U(norm(A_k)). From the coarsest scale on, the finer map is
    divided by its own blurred version and multiplied by the resized map so far.

    Args:
        variant: The weights: "+": p(x m), "-": relu(p(x) - p(x (1 - m))), "+-": relu(p(x m) + p(x) - p(x (1 - m))).

    References:
        Englebert et al., "Poly-CAM", ICPR 2022, https://arxiv.org/abs/2204.13359
    """

    variant: Literal["+", "-", "+-"] = "+"

    card = MethodCard(
        "Englebert et al., Poly-CAM, ICPR 2022", "Πₗ local(Σₖ p(x mₖ) Aₖ)",
        "Score-CAM with the detail of early layers.",
        cost="K forwards for each scale",
        source="The authors' code: percentiles 0.1 and 99.9, division by the upper.",
        pitfalls="Never negative: it shows no evidence against the class.",
    )  # fmt: skip
    needs = Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.variant in ("+", "-", "+-"), f"variant={self.variant!r}: must be '+', '-' or '+-'.")

    @property
    def keeps_layers(self) -> bool:
        return True

    def forwards(self, channels: int, cells: int) -> int:
        return 2 * channels * (2 if self.variant == "+-" else 1)  # at least two layers, about as wide as the last

    def __call__(self, signals: ModelSignals) -> Tensor:
        stages = {layer.activations.shape[2:]: layer for layer in signals.layers.values()}
        ordered = sorted(stages.values(), key=lambda layer: layer.activations[0, 0].numel())
        if len(ordered) < 2:
            raise MethodError(
                "",
                f"it combines layers with different grids, and {len(ordered)} is selected. Select several, or layers='every'.",
            )
        maps: Tensor | None = None
        for layer in ordered:
            own = torch.stack([self.stage(layer, signals, index) for index in range(len(layer.activations))])
            maps = own if maps is None else sharpen(own, maps)
        assert maps is not None
        return maps

    def stage(self, layer: Signals, signals: ModelSignals, index: int) -> Tensor:
        own, image = layer.activations[index], signals.inputs[index]
        masks = clip_percentiles(own)

        def kept(rows: slice) -> Tensor:
            return image * resize(masks[rows], image.shape[1:])[:, None].to(image.dtype)

        def removed(rows: slice) -> Tensor:
            return image - kept(rows)

        count, weights = len(own), own.new_zeros(len(own))
        if "+" in self.variant:
            weights += signals.score_inputs(
                index, count, kept, scoring=Probability(), shared=(self, layer.layer, "kept")
            ).to(own.dtype)
        if "-" in self.variant:
            before = signals.score_of(Probability())[index]
            weights += (
                before
                - signals.score_inputs(
                    index, count, removed, scoring=Probability(), shared=(self, layer.layer, "removed")
                )
            ).to(own.dtype)
        return rectify(weighted_sum(rectify(weights)[None], own[None])[0])


def clip_percentiles(maps: Tensor) -> Tensor:
    """Subtract the 0.1 percentile of each map `(K, *grid)`, divide by its 99.9 percentile, and clip to [0, 1]."""
    flat = maps.flatten(1)
    low, high = flat.quantile(0.001, dim=1, keepdim=True), flat.quantile(0.999, dim=1, keepdim=True)
    return ((flat - low) / high.clamp(min=1e-12)).clamp(0, 1).reshape(maps.shape)


def sharpen(fine: Tensor, coarse: Tensor) -> Tensor:
    """Divide a fine map by its local mean and multiply it by the coarse map."""
    size = fine.shape[1:]
    local = fine / resize(resize(fine, coarse.shape[1:]), size).clamp(min=1e-12)
    return rectify(local * resize(coarse, size))


def map_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype of maps: float64 for float64 inputs, else float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
