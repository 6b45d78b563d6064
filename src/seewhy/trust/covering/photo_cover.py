"""Cover parts of a photo before preprocessing: rectangles and brush strokes, filled with a blurred copy or with one color.

Covering pixels of the photo needs no mapping of coordinates: crop, squash and pad see the photo that the user sees.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw

from seewhy.errors import UnknownName, UsageError
from seewhy.images.types import ImageArray
from seewhy.images.view import find_pixel_range
from seewhy.trust.fillers import Blur, gaussian_blur

FILLERS = ("blur", "mean", "#rrggbb")
BLUR_SIDE = 256  # pixels of the longer side on which the blurred copy is computed: a Gaussian of 15 pixels stays smooth
COVERED = 255  # in a mask


@dataclass(frozen=True)
class Rectangle:
    """A covered rectangle.

    Args:
        left, top, right, bottom: Its edges as fractions of the width or height of the photo, in [0, 1].

    Raises:
        UsageError: An edge is outside [0, 1], or the right or bottom edge is not after the other one.

    Example:
        >>> mask = Image.new("L", (4, 2))
        >>> Rectangle(0.5, 0.0, 1.0, 1.0).draw(mask)
        >>> np.asarray(mask).tolist()
        [[0, 0, 255, 255], [0, 0, 255, 255]]
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):  # also False for NaN
            raise UsageError(
                f"rectangle from {self.left:g}, {self.top:g} to {self.right:g}, {self.bottom:g}: give left, top, right and "
                "bottom as fractions of the photo, from 0 to 1, with left < right and top < bottom."
            )

    def draw(self, mask: Image.Image) -> None:
        """Set the covered pixels of a mask, in mode "L" and at the size of the photo: those whose centers are inside."""
        top, bottom = find_pixel_range(mask.height, 1, self.top, self.bottom)
        left, right = find_pixel_range(mask.width, 1, self.left, self.right)
        mask.paste(COVERED, (left, top, right, bottom))


@dataclass(frozen=True)
class Stroke:
    """A covered line, painted with a round brush.

    Args:
        points: Its corners (x, y) as fractions of the width and height of the photo, in [0, 1]. One point is a disk.
        radius: Of the brush, as a fraction of the longer side of the photo, above 0 and at most 1.

    Raises:
        UsageError: There is no point, or a number is out of range.

    Example:
        >>> mask = Image.new("L", (100, 100))
        >>> Stroke([(0.5, 0.5)], 0.1).draw(mask)
        >>> mask.getbbox()
        (40, 40, 60, 60)
    """

    points: Sequence[tuple[float, float]]
    radius: float

    def __post_init__(self) -> None:
        if not self.points or not all(0 <= x <= 1 and 0 <= y <= 1 for x, y in self.points):
            raise UsageError("a stroke has no points, or one outside the photo: give (x, y) in fractions from 0 to 1.")
        if not 0 < self.radius <= 1:
            raise UsageError(f"radius {self.radius:g}: give a fraction of the longer side, above 0 and at most 1.")

    def draw(self, mask: Image.Image) -> None:
        """Set the covered pixels of a mask, in mode "L" and at the size of the photo, up to one pixel at the edge."""
        radius = max(0.5, self.radius * max(mask.size))
        draw = ImageDraw.Draw(mask)
        # Pillow draws from pixel center to pixel center, and these have integer coordinates.
        corners = [(x * mask.width - 0.5, y * mask.height - 0.5) for x, y in self.points]
        for x, y in corners:
            first = [math.ceil(start - radius) for start in (x, y)]
            last = [max(start, math.floor(end + radius)) for start, end in zip(first, (x, y), strict=True)]
            draw.ellipse((*first, *last), fill=COVERED)
        for (x, y), (x2, y2) in pairwise(corners):
            length = math.hypot(x2 - x, y2 - y)
            if length > 0:
                across, down = radius * (y - y2) / length, radius * (x2 - x) / length
                sides = [
                    (x + across, y + down),
                    (x2 + across, y2 + down),
                    (x2 - across, y2 - down),
                    (x - across, y - down),
                ]
                draw.polygon(sides, fill=COVERED)


Shape = Rectangle | Stroke


def cover_photo(photo: ImageArray, shapes: Sequence[Shape], filler: str = "blur") -> ImageArray:
    """Return a copy of a photo with covered parts.

    Args:
        photo: uint8 `(H, W, 3)`, as `load_image` returns it.
        shapes: `Rectangle` and `Stroke` instances, in fractions of the photo.
        filler: What covered parts show: "blur", a blurred copy of the photo; "mean", its mean color; or a color such as
            "#808080".

    Returns:
        uint8 `(H, W, 3)`. Pixels outside the shapes are unchanged.

    Raises:
        UnknownName: `filler` is none of these.

    Example:
        >>> photo = np.zeros((2, 4, 3), np.uint8)
        >>> cover_photo(photo, [Rectangle(0.5, 0, 1, 1)], "#0a0000")[..., 0].tolist()
        [[0, 0, 10, 10], [0, 0, 10, 10]]
    """
    check_filler(filler)
    mask = Image.new("L", (photo.shape[1], photo.shape[0]))
    for shape in shapes:
        shape.draw(mask)
    covered, box = photo.copy(), mask.getbbox()
    if box is not None:
        part = covered[box[1] : box[3], box[0] : box[2]]
        np.copyto(part, filled(photo, filler, box), where=np.asarray(mask.crop(box))[..., None] > 0)
    return covered


def check_filler(filler: str) -> None:
    """Raise UnknownName if there is no such filler."""
    if filler not in FILLERS[:2] and not re.fullmatch("#[0-9a-fA-F]{6}", filler):
        raise UnknownName("filler", filler[:20], FILLERS, hint='Use "blur", "mean", or a color such as "#808080".')


def filled(photo: ImageArray, filler: str, box: tuple[int, int, int, int]) -> ImageArray:
    """Return what `filler` shows in the box (left, top, right, bottom) of a photo: a blurred part of it, or one color (3,)."""
    if filler == "blur":
        return blurred(photo, box)
    if filler == "mean":
        counts = np.array(Image.fromarray(photo).histogram(), np.float64).reshape(3, 256)
        color: ImageArray = np.rint(counts @ np.arange(256) / counts.sum(1)).astype(np.uint8)
        return color
    return np.array([int(filler[at : at + 2], 16) for at in (1, 3, 5)], np.uint8)


def blurred(photo: ImageArray, box: tuple[int, int, int, int]) -> ImageArray:
    """Return a part of the blurred photo.

    The photo is scaled down, blurred, and scaled up again: a Gaussian of this width on 12 megapixels would take minutes.
    """
    image = Image.fromarray(photo)
    scale = min(1.0, BLUR_SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = np.array(image.resize((width, height), Image.Resampling.BOX))
    rows = torch.from_numpy(small).permute(2, 0, 1)[None].float()
    soft = gaussian_blur(rows, [Blur().sigma * side for side in (height, width)])[0].permute(1, 2, 0)
    pixels = Image.fromarray(soft.round().clamp(0, 255).to(torch.uint8).numpy())
    across, down = width / image.width, height / image.height
    part = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    return np.asarray(pixels.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR, part))
