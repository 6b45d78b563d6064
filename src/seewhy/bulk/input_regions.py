"""Where the object is, brought from the photo to the network's input."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.dataset import Box
from seewhy.errors import ImageError
from seewhy.images.loading import Refusal, binary_file, open_picture, reason_of
from seewhy.images.view import View

Floats = NDArray[np.float32]
EXACT = ("P", "L", "1", "I", "I;16", "I;16B", "F")  # modes whose values NumPy reads as they are


def from_boxes(boxes: Sequence[Box], view: View) -> Floats:
    """How much of each pixel of the input (height, width) lies in a box, in [0, 1]; of several the one that covers most."""
    height, width = view.inputs
    region = np.zeros((height, width), np.float32)
    for left, top, right, bottom in boxes:
        across = overlaps(width, view.box[0], view.box[2], np.array([left, right]))[:, 0]
        down = overlaps(height, view.box[1], view.box[3], np.array([top, bottom]))[:, 0]
        region = np.maximum(region, np.outer(down, across))
    return region


def from_mask(mask: NDArray[np.bool_], view: View) -> Floats:
    """How much of each pixel of the input (height, width) lies in a mask on the photo (H0, W0), in [0, 1]."""
    rows = overlaps(view.inputs[0], view.box[1], view.box[3], np.arange(mask.shape[0] + 1))
    columns = overlaps(view.inputs[1], view.box[0], view.box[2], np.arange(mask.shape[1] + 1))
    region: Floats = rows @ mask.astype(np.float32) @ columns.T
    return region


def overlaps(pixels: int, start: float, end: float, edges: NDArray[np.generic]) -> Floats:
    """(pixels, len(edges) - 1): which share of each of `pixels`, evenly spread over [start, end], lies between two edges.

    >>> overlaps(2, 0.0, 4.0, np.array([1, 3, 4])).tolist()
    [[0.5, 0.0], [0.5, 0.5]]
    """
    own = np.linspace(start, end, pixels + 1)
    places = edges.astype(np.float64)
    inside = np.minimum(own[1:, None], places[None, 1:]) - np.maximum(own[:-1, None], places[None, :-1])
    return (inside.clip(min=0) / ((end - start) / pixels)).astype(np.float32)


def read_mask(path: str, value: int | None, photo: tuple[int, int]) -> NDArray[np.bool_]:
    """(H0, W0): where a mask picture is not 0, or is `value`. ImageError where it cannot be read or is not the photo's size."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for without end
            raise Refusal("is no file")
        with binary_file(path) as file, open_picture(file) as picture:
            if picture.size != photo[::-1]:  # before it is decoded
                size, own = (f"{width} x {height}" for width, height in (picture.size, photo[::-1]))
                raise ImageError(path, f"the mask {path} is {size}, and the photo {own}")
            exact = picture.mode in EXACT  # of colours the largest channel: a dark one is not 0
            values = np.asarray(picture) if exact else np.asarray(picture.convert("RGB")).max(2)
    except ImageError:
        raise
    except Exception as error:  # as for pictures: whatever a decoder raises
        raise ImageError(path, f"the mask {path}: {reason_of(error)}") from None
    return np.asarray(values != 0 if value is None else values == value)
