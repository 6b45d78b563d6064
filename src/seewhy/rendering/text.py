"""Captions in Pillow's built-in font."""

from __future__ import annotations

import math
import unicodedata
from functools import cache

from PIL import ImageDraw, ImageFont


@cache
def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load Pillow's built-in font at `size` pixels."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Return the width of `text` in pixels."""
    return math.ceil(load_font(size).getlength(text))


def write_text(
    draw: ImageDraw.ImageDraw, position: tuple[int, int], text: str, size: int, color: tuple[int, ...], max_width: int
) -> None:
    """Write one line, shortened in the middle to fit `max_width`: layer names differ mostly at their two ends."""
    line = text = to_drawable(text)
    kept = len(text)
    while text_width(line, size) > max_width and kept > 6:
        kept -= 1
        line = text[: kept // 2] + "…" + text[len(text) - (kept - kept // 2) :]
    draw.text(position, line, color, load_font(size))


def to_drawable(text: str) -> str:
    """Reduce `text` to the characters of Pillow's built-in font: accents are dropped, other scripts become "?".

    >>> to_drawable("Müller · 猫")
    'Muller · ?'
    """
    letters = (sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    return "".join(sign if sign.isascii() or sign in "·…" else "?" for sign in letters)
