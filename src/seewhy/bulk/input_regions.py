"""Boxes and masks of objects, mapped from the photo to the model's input."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.dataset import Box
from seewhy.errors import ImageError
from seewhy.images.files import UnreadableImage, check_tiles, describe_error, open_binary, open_image
from seewhy.images.loading import MAX_PIXELS
from seewhy.images.view import View

Floats = NDArray[np.float32]
EXACT_MODES = ("P", "L", "1", "I", "I;16", "I;16B", "F")  # Pillow modes with one exact value per pixel


def from_boxes(boxes: Sequence[Box], view: View) -> Floats:
    """Return the fraction of each input pixel (height, width) that is inside a box: the largest fraction of all boxes."""
    height, width = view.input_size
    region = np.zeros((height, width), np.float32)
    for left, top, right, bottom in boxes:
        across = overlaps(width, view.box[0], view.box[2], np.array([left, right]))[:, 0]
        down = overlaps(height, view.box[1], view.box[3], np.array([top, bottom]))[:, 0]
        region = np.maximum(region, np.outer(down, across))
    return region


def from_mask(mask: NDArray[np.bool_], view: View) -> Floats:
    """Return the fraction of each input pixel (height, width) that is inside a mask on the photo (H0, W0)."""
    rows = overlaps(view.input_size[0], view.box[1], view.box[3], np.arange(mask.shape[0] + 1))
    columns = overlaps(view.input_size[1], view.box[0], view.box[2], np.arange(mask.shape[1] + 1))
    region: Floats = rows @ mask.astype(np.float32) @ columns.T
    return region


def overlaps(pixels: int, start: float, end: float, edges: NDArray[np.generic]) -> Floats:
    """Return the fraction of each pixel between two edges. Shape (pixels, len(edges) - 1); the pixels divide [start, end].

    >>> overlaps(2, 0.0, 4.0, np.array([1, 3, 4])).tolist()
    [[0.5, 0.0], [0.5, 0.5]]
    """
    borders = np.linspace(start, end, pixels + 1)
    positions = edges.astype(np.float64)
    inside = np.minimum(borders[1:, None], positions[None, 1:]) - np.maximum(borders[:-1, None], positions[None, :-1])
    return (inside.clip(min=0) / ((end - start) / pixels)).astype(np.float32)


def read_mask(path: str, value: int | None, photo: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where a mask image is nonzero, or equal to `value`: bool (H0, W0).

    Raises ImageError if it cannot be read or does not have the size of the photo.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block
            raise UnreadableImage("not a regular file")
        with open_binary(path, MAX_PIXELS) as file, open_image(file) as image:
            if image.size != photo[::-1]:  # checked before decoding
                size, expected = (f"{width} x {height}" for width, height in (image.size, photo[::-1]))
                raise ImageError(path, f"the mask {path} is {size}, but the photo is {expected}")
            check_tiles(image, max(MAX_PIXELS, photo[0] * photo[1]))  # a tile is decoded at once
            exact = image.mode in EXACT_MODES
            values = np.asarray(image) if exact else np.asarray(image.convert("RGB")).max(2)  # a dark color is not 0
    except ImageError:
        raise
    except Exception as error:  # decoders raise exceptions of any type
        raise ImageError(path, f"the mask {path}: {describe_error(error)}") from None
    return np.asarray(values != 0 if value is None else values == value)
