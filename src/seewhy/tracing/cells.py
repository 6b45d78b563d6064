"""The cells of a grid over an input: their numbers, positions and neighbors."""

from __future__ import annotations

from itertools import product
from math import prod
from operator import mul
from typing import Any

from torch import Tensor
from torch.nn import functional as F


def resize_mean(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the means of values (*size) in the cells of a grid of `shape`."""
    pool: Any = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(shape)]
    pooled: Tensor = pool(values[None, None], shape)[0, 0]
    return pooled


def sides(corner: int, axes: int) -> list[int]:
    """Return 0 or 1 for each axis: which half of a cell a corner is.

    >>> sides(2, 2)
    [1, 0]
    """
    return [corner >> (axes - 1 - axis) & 1 for axis in range(axes)]


def span(index: int, cells: int, length: int) -> tuple[int, int]:
    """Return the positions of one of `cells` cells along an axis.

    >>> span(1, 4, 8), span(2, 3, 2)
    ((2, 4), (1, 2))
    """
    start = min(index * length // cells, length - 1)
    return start, max(start + 1, (index + 1) * length // cells)


def neighbors(cell: int, grid: tuple[int, ...]) -> list[int]:
    """Return a cell and those that touch it.

    >>> neighbors(3, (2, 4))
    [2, 3, 6, 7]
    """
    steps = [
        [min(max(i + s, 0), length - 1) for s in (-1, 0, 1)]
        for i, length in zip(unravel(cell, grid), grid, strict=True)
    ]
    weights = [prod(grid[axis + 1 :]) for axis in range(len(grid))]
    return sorted({sum(map(mul, place, weights)) for place in product(*steps)})


def unravel(cell: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Return the indices of a cell that is counted row by row."""
    return tuple(cell // prod(grid[axis + 1 :]) % grid[axis] for axis in range(len(grid)))
