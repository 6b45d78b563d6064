"""`View`: which rectangle of a photo fills the model's input, and how to map a result back to the photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """The rectangle of a photo that fills the model's input.

    The rectangle lies inside the photo for a crop, equals it for fit "squash", and extends beyond it where the photo is
    padded.

    Attributes:
        photo_size: Height and width of the upright photo, in pixels.
        input_size: Height and width of the model's input, in pixels.
        box: Left, top, right, bottom of the rectangle in photo pixels, as real numbers: pixel i covers [i, i + 1].

    Example:
        >>> view = View(photo_size=(100, 200), input_size=(50, 50), box=(50, 0, 150, 100))
        >>> view.visible_box
        (50, 0, 150, 100)
        >>> view.to_photo(np.ones((2, 2), np.float32), (10, 20)).shape
        (10, 20)
    """

    photo_size: tuple[int, int]
    input_size: tuple[int, int]
    box: tuple[float, float, float, float]

    @classmethod
    def identity(cls, size: Sequence[int]) -> Self:
        """Return the view of an input that is itself the photo.

        Args:
            size: Height and width in pixels.

        Example:
            >>> View.identity((4, 6)).visible_box
            (0, 0, 6, 4)
        """
        height, width = size
        return cls((height, width), (height, width), (0.0, 0.0, float(width), float(height)))

    def crop(self, rows: tuple[int, int], columns: tuple[int, int]) -> View:
        """Return the view of a part of the input, from its first position to the one after the last along both axes.

        Example:
            >>> View((100, 200), (50, 50), (50, 0, 150, 100)).crop((0, 25), (10, 50)).box
            (70.0, 0.0, 150.0, 50.0)
        """
        left, top, right, bottom = self.box
        height, width = self.input_size
        across, down = (right - left) / width, (bottom - top) / height
        box = (left + columns[0] * across, top + rows[0] * down, left + columns[1] * across, top + rows[1] * down)
        return View(self.photo_size, (rows[1] - rows[0], columns[1] - columns[0]), box)

    @property
    def visible_box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom (exclusive) of the photo pixels whose centers are in the input."""
        return self.visible_box_at(self.photo_size)

    def visible_box_at(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return `visible_box` for the photo resized to `size` (height, width)."""
        height, width = size
        left, right = find_pixel_range(width, self.photo_size[1], self.box[0], self.box[2])
        top, bottom = find_pixel_range(height, self.photo_size[0], self.box[1], self.box[3])
        return left, top, right, bottom

    def to_photo(self, grid: Floats, size: tuple[int, int]) -> Floats:
        """Resample a map over the input at the pixels of the photo.

        Args:
            grid: A map `(h, w)`, float32, that covers the input evenly.
            size: Height and width at which the photo is drawn.

        Returns:
            The map `(*size)`, float32: bilinear interpolation (`align_corners=False`, like `map_functions.resize`) at the
            pixel centers; 0 outside the input.
        """
        height, width = self.photo_size
        rows = interpolation_weights(grid.shape[0], size[0], height, self.box[1], self.box[3])
        columns = interpolation_weights(grid.shape[1], size[1], width, self.box[0], self.box[2])
        # The product runs in torch: the thread pools of NumPy and torch block each other (8 ms instead of under 1 ms).
        import torch

        values = torch.from_numpy(grid.astype(np.float32, copy=False))
        with torch.autocast("cpu", enabled=False):  # a caller in training may have it enabled
            return (torch.from_numpy(rows) @ values @ torch.from_numpy(columns).T).numpy()


def interpolation_weights(cells: int, pixels: int, length: int, start: float, end: float) -> Floats:
    """Return weights (pixels, cells) of a linear interpolation.

    The cells cover [start, end] of [0, length]; the pixels are spread evenly over [0, length].
    """
    centers = (np.arange(pixels) + 0.5) * (length / pixels)
    positions = (centers - start) / (end - start) * cells - 0.5
    low = np.floor(positions).astype(int)
    fraction = (positions - low).astype(np.float32)
    weights = np.zeros((pixels, cells), np.float32)
    rows = np.arange(pixels)
    np.add.at(weights, (rows, low.clip(0, cells - 1)), 1 - fraction)
    np.add.at(weights, (rows, (low + 1).clip(0, cells - 1)), fraction)
    first, last = find_pixel_range(pixels, length, start, end)
    weights[:first] = 0
    weights[last:] = 0
    return weights


def find_pixel_range(pixels: int, length: int, start: float, end: float) -> tuple[int, int]:
    """Return the first pixel and one past the last, of `pixels` over [0, length], with centers in [start, end)."""
    scale = pixels / length
    first, last = (int(np.ceil(edge * scale - 0.5)) for edge in (start, end))
    return min(max(first, 0), pixels), min(max(last, 0), pixels)
