"""Maps and photos to pictures: numpy arrays and Pillow images only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from seewhy import colors as color_tables
from seewhy.errors import UsageError
from seewhy.view import View

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

UNSEEN_LIGHT = 0.38  # what the network did not see is drawn this bright
PAPER, INK, FAINT = (18, 19, 23), (236, 236, 232), (150, 152, 158)


@dataclass(frozen=True)
class Look:
    """How overlays are drawn. `style` "fade": opacity follows the map; "blend": the same opacity everywhere.

    `opacity` in [0, 1] is that of the strongest evidence; `colors` names a colour table.
    """

    style: str = "fade"
    colors: str = color_tables.DEFAULT
    opacity: float = 0.8


def colorize(heat: Floats, colors: str = color_tables.DEFAULT) -> Image.Image:
    """A heat map (H, W) in [0, 1] as an RGB picture in the colours of a table."""
    picture = Image.fromarray(to_bytes(heat))
    picture.putpalette(color_tables.table(colors).tobytes())
    return picture.convert("RGB")


def overlay(photo: Image.Image, heat: Floats, look: Look) -> Image.Image:
    """A heat map (H, W) in [0, 1] over an RGB photo of the same size."""
    levels = np.arange(256) / 255
    # Below half of the maximum the colour gives way quickly, so that the photo stays readable.
    opacity = look.opacity * (np.clip(1.6 * levels, 0, 1) if look.style == "fade" else np.ones(256))
    alpha = Image.fromarray(to_bytes(heat)).point(np.rint(opacity * 255).astype(int).tolist())
    return Image.composite(colorize(heat, look.colors), photo, alpha)


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
    else:
        low, high = inputs.min(), inputs.max()
        levels = (inputs - low) / max(float(high - low), 1e-12)
    return np.ascontiguousarray(np.broadcast_to(to_bytes(levels), (3, *inputs.shape[1:])).transpose(1, 2, 0))


def scaled_photo(photo: Bytes, view: View, longest: int | None) -> Image.Image:
    """The photo with its longer side at most `longest` pixels; what the network did not see is dimmed."""
    height, width = fit_size(photo.shape[:2], longest)
    picture = Image.fromarray(photo)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    scale_x, scale_y = width / view.photo[1], height / view.photo[0]
    left, top, right, bottom = view.box
    box = (round(left * scale_x), round(top * scale_y), round(right * scale_x), round(bottom * scale_y))
    if box[0] <= 0 and box[1] <= 0 and box[2] >= width and box[3] >= height:
        return picture
    dimmed = ImageEnhance.Brightness(ImageEnhance.Color(picture).enhance(0.35)).enhance(UNSEEN_LIGHT)
    seen = (max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3]))
    dimmed.paste(picture.crop(seen), seen[:2])
    return dimmed


def fit_size(size: tuple[int, ...], longest: int | None) -> tuple[int, int]:
    """(height, width) shrunk, never enlarged, so that the longer side is at most `longest` pixels; None keeps it."""
    scale = min(1.0, longest / max(size)) if longest else 1.0
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_bytes(heat: Floats) -> Bytes:
    return (heat.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def contact_sheet(
    tiles: Sequence[tuple[str, str, Image.Image]], title: str, note: str = "", columns: int = 0
) -> Image.Image:
    """A sheet of pictures of one size, each with its caption (left, right) underneath, and a title on top."""
    width, height = tiles[0][2].size
    columns = columns or choose_columns(len(tiles), width, height)
    gap, caption, top = 10, 24, 64
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (gap + columns * (width + gap), top + rows * (height + caption + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (gap, 12), title, 22, INK, sheet.width - 2 * gap)
    write(draw, (gap, 40), note, 13, FAINT, sheet.width - 2 * gap)
    for index, (left, right, picture) in enumerate(tiles):
        x = gap + index % columns * (width + gap)
        y = top + index // columns * (height + caption + gap)
        sheet.paste(picture, (x, y))
        space = width - text_width(right, 13) - 8
        write(draw, (x, y + height + 4), left, 13, INK, space)
        write(draw, (x + width - text_width(right, 13), y + height + 4), right, 13, FAINT, width)
    return sheet


def choose_columns(count: int, width: int, height: int) -> int:
    """Columns for a sheet about one and a half times as wide as high."""
    columns = round((1.5 * count * (height + 34) / (width + 10)) ** 0.5)
    return max(1, min(count, columns))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    return int(np.ceil(font(size).getlength(text)))


def write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, color: tuple[int, ...], space: int) -> None:
    """Text that is shortened in its middle to fit: a layer's name tells most at its two ends."""
    shown = text
    while text_width(shown, size) > space and len(text) > 8:
        text = text[: len(text) // 2 - 1] + text[len(text) // 2 + 1 :]
        shown = text[: len(text) // 2] + "…" + text[len(text) // 2 :]
    draw.text(at, shown, color, font(size))
