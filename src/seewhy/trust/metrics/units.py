"""Units: the cells of a regular grid over the input, which removal tests cover, and the sums of a map in them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.tensors.map_functions import INTERPOLATION_MODES

FINE = 56  # cells per side on which a map is resampled before its values in units are summed


def unit_sums(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """Return the sum of each signed map `(n, *cells)` in each unit of `grid`, `(n, units)`, in float64.

    A map with more cells than units per side is averaged over areas; others are interpolated first, as heatmaps are. The sums
    are scaled so that they add up to the sum over the map.
    """
    values = maps.detach().double()
    cells = values.shape[1:]
    means = resample(values, grid)
    return means.flatten(1) * (prod(cells) / prod(grid))


def resample(values: Tensor, grid: Sequence[int]) -> Tensor:
    """Return maps `(n, *cells)` on another grid: interpolated to a fine one if they are coarse, then averaged over areas."""
    grid = tuple(grid)
    if tuple(values.shape[1:]) == grid:
        return values
    fine = tuple(
        max(lengths) for lengths in zip(values.shape[1:], [side * -(-FINE // side) for side in grid], strict=True)
    )
    mode = INTERPOLATION_MODES[len(grid)]
    if tuple(values.shape[1:]) != fine:
        values = F.interpolate(values[:, None], fine, mode=mode, align_corners=False)[:, 0]
    pool: Any = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(grid)]
    pooled: Tensor = pool(values[:, None], grid)
    return pooled[:, 0]


def cover_units(covered: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return masks `(N, *size)` in {0, 1} from which units `(N, units)` are covered. Units differ by one pixel at most."""
    masks = covered.reshape(-1, *grid)
    for axis, (count, length) in enumerate(zip(grid, size, strict=True), 1):
        owner = (torch.arange(length, device=covered.device) * count) // length
        masks = masks.index_select(axis, owner)
    return masks.float()
