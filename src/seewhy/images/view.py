"""Which rectangle of the photo the network saw, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """The rectangle of a photo that fills the network's input.

    `photo` is (height, width) of the upright photo in pixels, `inputs` (height, width) of the network's input, and `box`
    (left, top, right, bottom) the rectangle in photo pixels, as real numbers: pixel i covers [i, i+1]. The box lies inside
    the photo for a crop, equals it for a squash, and reaches beyond it where the picture was padded.

    >>> view = View(photo=(100, 200), inputs=(50, 50), box=(50, 0, 150, 100))
    >>> view.seen
    (50, 0, 150, 100)
    >>> view.place(np.ones((2, 2), np.float32), (10, 20)).shape
    (10, 20)
    """

    photo: tuple[int, int]
    inputs: tuple[int, int]
    box: tuple[float, float, float, float]

    @classmethod
    def whole(cls, size: Sequence[int]) -> Self:
        """The view of an input (height, width) that is its own photo."""
        height, width = size
        return cls((height, width), (height, width), (0.0, 0.0, float(width), float(height)))

    @property
    def seen(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in whole photo pixels: every pixel whose centre the network saw."""
        return self.seen_at(self.photo)

    def seen_at(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The same on the photo drawn at `size` (height, width)."""
        height, width = size
        left, right = span(width, self.photo[1], self.box[0], self.box[2])
        top, bottom = span(height, self.photo[0], self.box[1], self.box[3])
        return left, top, right, bottom

    def place(self, grid: Floats, size: tuple[int, int]) -> Floats:
        """A map over the network's input, drawn on the photo at `size`.

        `grid` (h, w) covers the input evenly; the result (`size`, that is height, width) is the same bilinear function
        (align_corners=False, as in `tensors.resize`) read at the photo's pixel centres. What the network did not see is 0.
        """
        rows = axis_weights(grid.shape[0], size[0], self.photo[0], self.box[1], self.box[3])
        columns = axis_weights(grid.shape[1], size[1], self.photo[1], self.box[0], self.box[2])
        # NumPy's own threads and torch's would wait for each other: 8 ms for a product that takes a tenth of one.
        import torch

        placed = (
            torch.from_numpy(rows) @ torch.from_numpy(grid.astype(np.float32, copy=False)) @ torch.from_numpy(columns).T
        )
        return placed.numpy()


def axis_weights(cells: int, pixels: int, length: int, start: float, end: float) -> Floats:
    """(pixels, cells) weights that read a row of cells, which covers [start, end] of [0, length], at evenly spread pixels."""
    centres = (np.arange(pixels) + 0.5) * (length / pixels)
    at = (centres - start) / (end - start) * cells - 0.5
    low = np.floor(at).astype(int)
    part = (at - low).astype(np.float32)
    weights = np.zeros((pixels, cells), np.float32)
    rows = np.arange(pixels)
    np.add.at(weights, (rows, low.clip(0, cells - 1)), 1 - part)
    np.add.at(weights, (rows, (low + 1).clip(0, cells - 1)), part)
    first, last = span(pixels, length, start, end)
    weights[:first] = 0
    weights[last:] = 0
    return weights


def span(pixels: int, length: int, start: float, end: float) -> tuple[int, int]:
    """First pixel and one past the last, of `pixels` over [0, length], whose centre lies in [start, end)."""
    scale = pixels / length
    first, last = (int(np.ceil(edge * scale - 0.5)) for edge in (start, end))
    return min(max(first, 0), pixels), min(max(last, 0), pixels)
