"""Mosaics: images put together from several ones, so that it is known where evidence cannot be.

GridPG shows the model a mosaic. In DiFull, each cell goes through the model alone and has its own class scores: the other
cells cannot influence them, so evidence elsewhere is wrong by construction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SMALL = 1e-7  # below this sum, a map has no evidence


def make_mosaic(images: Tensor) -> Tensor:
    """Return one image `(1, C, side * H, side * W)` of `side * side` images `(side * side, C, H, W)`, row by row.

    Raises:
        ValueError: The number of images is not a square.

    Example:
        >>> make_mosaic(torch.arange(4.0).reshape(4, 1, 1, 1))[0, 0].tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """
    side = math.isqrt(len(images))
    if not side or side * side != len(images):
        raise ValueError(f"a mosaic needs 4, 9, 16, ... images, not {len(images)}.")
    rows = [torch.cat(list(images[row * side : (row + 1) * side]), dim=-1) for row in range(side)]
    return torch.cat(rows, dim=-2)[None]


def split_mosaic(mosaic: Tensor, side: int) -> Tensor:
    """Return the cells `(B * side * side, C, H, W)` of mosaics `(B, C, side * H, side * W)`.

    Example:
        >>> split_mosaic(make_mosaic(torch.arange(4.0).reshape(4, 1, 1, 1)), 2).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    count, channels, height, width = mosaic.shape
    rows = mosaic.reshape(count, channels, side, height // side, side, width // side)
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def cell_fractions(signed_map: Tensor, side: int) -> Tensor:
    """Return the fraction of the positive values of a map `(height, width)` in each cell of the mosaic, `(side * side,)`.

    The cells of the map are assigned before it is resized: a heatmap at input size spreads over the borders. NaN for a map
    without positive values.

    References:
        Boehle et al., "Convolutional dynamic alignment networks", CVPR 2021; Rao et al., "Towards better understanding
        attribution methods", CVPR 2022
    """
    positive = signed_map.double().clamp(min=0)
    height, width = positive.shape
    if height % side or width % side:
        raise ValueError(f"a map of {height} x {width} cells has no equal parts for a mosaic of {side} x {side}.")
    sums = positive.reshape(side, height // side, side, width // side).sum((1, 3)).flatten()
    total = sums.sum()
    return sums / total if total > SMALL else torch.full_like(sums, torch.nan)


class CellTail(nn.Module):
    """DiFull: the class scores of one cell, as a function of the activations of all cells.

    Each cell went through the first part of the model alone, and its activations are put together with `make_mosaic`. The map
    at `stitched` covers the mosaic, and the score depends on one cell only.

    Args:
        tail: The rest of the model: from the activations of one cell to class scores `(B, classes)`.
        side: Cells per side of the mosaic.
        cell: The cell, counted row by row, whose class scores are returned.
    """

    def __init__(self, tail: nn.Module, side: int, cell: int) -> None:
        super().__init__()
        self.tail, self.side, self.cell = tail, side, cell
        self.stitched = nn.Identity()

    def forward(self, activations: Tensor) -> Tensor:
        """Return the class scores of the cell for stitched activations `(B, K, side * h, side * w)`."""
        scores: Tensor = self.tail(split_mosaic(self.stitched(activations), self.side)[self.cell :: self.side**2])
        return scores
