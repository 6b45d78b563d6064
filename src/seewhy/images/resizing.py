"""`ResizedCrop`, and the sizes and offsets of resizing and cropping, rounded like torchvision and timm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from seewhy.images.types import ImageArray

Size = tuple[int, int]
Rule = Literal["exact", "cover", "contain"]

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "nearest-exact": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def is_size(value: object) -> bool:
    """Return True for a height and width in pixels."""
    return isinstance(value, Sequence) and len(value) == 2 and all(isinstance(side, int) for side in value)


@dataclass(frozen=True, eq=False)
class ResizedCrop:
    """An image resized and cropped for the model, before normalization.

    `pixels` is uint8 (H, W, 3), or (H, W) for a grayscale model; `corner` is the row and column of its upper left pixel in
    the input.
    """

    pixels: ImageArray
    corner: Size = (0, 0)


def resize_shorter_side(shape: Size, length: int) -> Size:
    """Return the size after the shorter side is resized to `length`; rounds down, like torchvision."""
    shorter = min(shape)
    return length * shape[0] // shorter, length * shape[1] // shorter


def scale_to_contain(shape: Size, target: Size) -> Size:
    """Return the largest size with the proportions of `shape` that fits into `target`."""
    return divide(shape, max(shape[0] / target[0], shape[1] / target[1]))


def scale_to_cover(shape: Size, target: Size) -> Size:
    """Return the smallest size with the proportions of `shape` that covers `target`."""
    return divide(shape, min(shape[0] / target[0], shape[1] / target[1]))


def divide(shape: Size, ratio: float) -> Size:
    return max(1, round(shape[0] / ratio)), max(1, round(shape[1] / ratio))


def center_offset(length: int, crop: int) -> int:
    """Return where a centered crop starts, rounded like torchvision; negative if the crop is longer than `length`."""
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)
