"""The masks of the check: windows of the image that are kept or hidden.

They do not depend on any map, so the same masked forward passes serve the maps of every layer and method.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seewhy.explanation.windows import MODES, STEPS, Mode
from seewhy.trust.fillers import gaussian_blur

EDGE = 3 / 224  # standard deviation of the soft edges, as a fraction of the side


def window_masks(size: tuple[int, int]) -> Tensor:
    """Return the masks `(27, H, W)` in [0, 1] for an input of `size`, 1 = covered, in float64.

    The edges are soft, so that a mask adds no sharp shape to the image.
    """
    return torch.cat([mode_masks(mode, size) for mode in MODES])


def mode_masks(mode: Mode, size: tuple[int, int]) -> Tensor:
    """Return the masks of one mode, row by row. A window is the product of an interval on each axis."""
    rows, columns = (intervals(length, mode.side) for length in size)
    masks = (rows[:, None, :, None] * columns[None, :, None, :]).flatten(0, 1)
    return 1 - masks if mode.keeps else masks


def intervals(length: int, side: float) -> Tensor:
    """Return `STEPS` intervals with soft ends on an axis of `length`, evenly spaced from end to end."""
    part = round(length * side)
    lines = torch.zeros(STEPS, 1, length, dtype=torch.double)
    for step, line in enumerate(lines):
        start = round(step * (length - part) / (STEPS - 1))
        line[0, start : start + part] = 1
    return gaussian_blur(lines, [EDGE * length])[:, 0]
