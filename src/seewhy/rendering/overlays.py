"""Maps and photos to pictures: numpy arrays and Pillow images only."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from seewhy.errors import UnknownName, UsageError
from seewhy.images.view import View
from seewhy.rendering import colors as color_tables

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two exclusive

LONGEST = 1024  # pixels of an overlay's longer side, unless asked otherwise
UNSEEN_LIGHT = 0.38  # what the network did not see is drawn this bright
PAPER, INK, FAINT = (18, 19, 23), (236, 236, 232), (150, 152, 158)
SCALES = ("own", "shared")  # what a heat map is divided by: its own maximum, or that over all targets


@dataclass(frozen=True)
class OverlayStyle:
    """How overlays are drawn. `style` "fade": opacity follows the map; "blend": the same opacity everywhere.

    `opacity` in [0, 1] is that of the strongest evidence; `colors` names a colour table. `scale` "own" draws each map in
    shares of its own maximum; "shared" in shares of the maximum over all targets (of the same picture, method and layer),
    so that a weak answer looks weak. Raises UnknownName for another scale.
    """

    style: str = "fade"
    colors: str = color_tables.DEFAULT
    opacity: float = 0.8
    scale: str = "own"

    def __post_init__(self) -> None:
        check_scale(self.scale)


def check_scale(name: str) -> str:
    """`name`, where it is one of SCALES; UnknownName where it is not.

    >>> check_scale("shared")
    'shared'
    """
    if name not in SCALES:
        raise UnknownName("scale", name, SCALES, hint=f"There are {' and '.join(SCALES)}.")
    return name


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet."""

    name: str
    remark: str
    picture: Image.Image


def colorize(levels: Bytes, colors: str = color_tables.DEFAULT) -> Image.Image:
    """Levels (H, W) uint8 as an RGB picture in the colours of a table."""
    picture = Image.fromarray(levels)
    picture.putpalette(color_tables.table(colors).tobytes())
    return picture.convert("RGB")


def overlay(photo: Image.Image, heat: Floats, look: OverlayStyle, seen: Box) -> Image.Image:
    """A heat map (H, W) in [0, 1] over an RGB photo of the same size, drawn inside the pixel box `seen` only."""
    levels = np.arange(256) / 255
    # Below half of the maximum the colour gives way quickly, so that the photo stays readable.
    opacity = look.opacity * (np.clip(1.6 * levels, 0, 1) if look.style == "fade" else np.ones(256))
    levels_of_heat = to_bytes(heat)
    alpha = Image.fromarray(levels_of_heat).point(np.rint(opacity * 255).astype(int).tolist())
    picture = photo.copy()
    picture.paste(colorize(levels_of_heat, look.colors).crop(seen), seen[:2], alpha.crop(seen))
    return picture


def classic_overlay(photo: Bytes, heat: Floats) -> Image.Image:
    """The tutorial's picture: heat (H, W) in [0, 1] times 255, truncated, in jet; 0.6 photo + 0.4 colour."""
    colored = color_tables.table("jet")[(heat * 255).astype(np.uint8)]
    return Image.fromarray(np.rint(0.6 * photo + 0.4 * colored).astype(np.uint8))


def seen(inputs: Floats, preprocess: Mapping[str, Any] | None) -> Bytes:
    """The picture (H, W, 3) that a network's input (C, H, W) shows; without a known mean and std, in its own range."""
    if inputs.ndim != 3 or len(inputs) not in (1, 3):
        raise UsageError(f"an input of shape {inputs.shape} is no picture; use map() or heat().")
    if preprocess and "mean" in preprocess:
        mean, std = (np.reshape(preprocess[name], (-1, 1, 1)) for name in ("mean", "std"))
        levels = inputs * std + mean
        levels = levels[::-1] if preprocess.get("channels") == "BGR" else levels
    else:
        low, high = inputs.min(), inputs.max()
        levels = (inputs - low) / max(float(high - low), 1e-12)
    return np.ascontiguousarray(np.broadcast_to(to_bytes(levels), (3, *inputs.shape[1:])).transpose(1, 2, 0))


def scaled_photo(photo: Bytes, view: View, longest: int | None) -> tuple[Image.Image, Box]:
    """The photo with its longer side at most `longest` pixels, what the network did not see dimmed, and the box it saw."""
    picture = shrunk(photo, longest)
    seen = view.seen_at((picture.height, picture.width))
    if seen == (0, 0, *picture.size):
        return picture, seen
    dimmed = ImageEnhance.Brightness(ImageEnhance.Color(picture).enhance(0.35)).enhance(UNSEEN_LIGHT)
    dimmed.paste(picture.crop(seen), seen[:2])
    return dimmed, seen


def shrunk(photo: Bytes, longest: int | None) -> Image.Image:
    """The photo with its longer side at most `longest` pixels."""
    height, width = fit_size(photo.shape[:2], longest)
    picture = Image.fromarray(photo)
    if (width, height) == picture.size:
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def fit_size(size: tuple[int, ...], longest: int | None) -> tuple[int, int]:
    """(height, width) shrunk, never enlarged, so that the longer side is at most `longest` pixels; None keeps it."""
    scale = min(1.0, longest / max(size)) if longest else 1.0
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_bytes(heat: Floats) -> Bytes:
    return (np.nan_to_num(heat, nan=0.0).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def contact_sheet(tiles: Sequence[Tile], title: str, note: str = "", columns: int = 0) -> Image.Image:
    """Pictures of one size on a sheet, each with a name and a faint remark underneath, and a title on top."""
    width, height = tiles[0].picture.size
    columns = columns or choose_columns(len(tiles), width, height)
    gap, caption, top = 12, 38, 72
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (gap + columns * (width + gap), top + rows * (height + caption + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (gap, 12), title, 24, INK, sheet.width - 2 * gap)
    write(draw, (gap, 44), note, 14, FAINT, sheet.width - 2 * gap)
    for index, tile in enumerate(tiles):
        x = gap + index % columns * (width + gap)
        y = top + index // columns * (height + caption + gap)
        sheet.paste(tile.picture, (x, y))
        write(draw, (x, y + height + 3), tile.name, 13, INK, width)
        write(draw, (x, y + height + 20), tile.remark, 12, FAINT, width)
    return sheet


def choose_columns(count: int, width: int, height: int) -> int:
    """Columns for a sheet about one and a half times as wide as high, with few empty places in its last row."""
    ideal = round((1.5 * count * (height + 50) / (width + 12)) ** 0.5)
    near = range(max(1, ideal - 2), ideal + 3)
    return min(count, min(near, key=lambda columns: (-count % columns, abs(columns - ideal))))


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    return math.ceil(font(size).getlength(text))


def write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, color: tuple[int, ...], space: int
) -> None:
    """Text that is shortened in its middle to fit: a layer's name tells most at its two ends."""
    shown = text = drawable(text)
    kept = len(text)
    while text_width(shown, size) > space and kept > 6:
        kept -= 1
        shown = text[: kept // 2] + "…" + text[len(text) - (kept - kept // 2) :]
    draw.text(at, shown, color, font(size))


def drawable(text: str) -> str:
    """Text in the signs that Pillow's built-in font has: accents are dropped, other scripts become "?"."""
    letters = (sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    return "".join(sign if sign.isascii() or sign in "·…" else "?" for sign in letters)
