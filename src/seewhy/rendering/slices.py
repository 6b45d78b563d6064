"""Volumes as images: slices along the first axis side by side, in gray, with the heatmap over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageDraw

from seewhy.images.view import View
from seewhy.rendering.contact_sheets import choose_columns
from seewhy.rendering.fonts import load_font
from seewhy.rendering.overlays import FAINT, INK, PAPER, Bytes, Floats, OverlayStyle, draw_overlay, input_pixels
from seewhy.rendering.text import write_text

MAX_SLICES = 16
MIN_SLICE_SIDE = 100  # pixels; a smaller mosaic has fewer slices
GAP, FOOT = 4, 22
MARK = (255, 214, 92)  # frame of the slice with the map's maximum


def draw_volume(volume: Bytes, heatmap: Floats, style: OverlayStyle, longest: int) -> Image.Image:
    """Draw a mosaic of a volume (D, H, W, 3) with its heatmap (D, H, W) in [0, 1]; its longer side is about `longest` pixels.

    The slices are evenly spaced, and the slice with the map's maximum is always included, in a frame. All slices share
    one scale of gray and of the heatmap, so they can be compared.
    """
    depth, height, width = heatmap.shape
    peak = int(heatmap.max((1, 2)).argmax()) if heatmap.max() > 0 else None
    chosen = choose_slices(depth, min(MAX_SLICES, max(1, longest // MIN_SLICE_SIDE) ** 2), peak)
    columns = choose_columns(len(chosen), width, height)
    rows = -(-len(chosen) // columns)
    zoom = (longest - GAP) / max(columns * width, rows * height)
    size = max(8, round(zoom * height) - GAP), max(8, round(zoom * width) - GAP)
    foot = FOOT if longest >= 600 else 0
    mosaic = Image.new("RGB", (GAP + columns * (size[1] + GAP), GAP + rows * (size[0] + GAP) + foot), PAPER)
    for position, number in enumerate(chosen):
        tile = draw_slice(volume[number], heatmap[number], style, size)
        label_slice(tile, str(number), number == peak)
        mosaic.paste(tile, (GAP + position % columns * (size[1] + GAP), GAP + position // columns * (size[0] + GAP)))
    if foot:
        count = "all" if len(chosen) == depth else f"{len(chosen)} of"
        text = f"{count} {depth} slices along the first axis"
        text += "" if peak is None else f"  ·  framed: slice {peak}, where the map is strongest"
        write_text(mosaic, (GAP + 2, mosaic.height - 20), text, 13, FAINT, mosaic.width - 2 * GAP)
    return mosaic


def choose_slices(depth: int, count: int, peak: int | None) -> list[int]:
    """Return `count` slices of `depth`, the centers of equal parts; `peak` replaces the center of the part that contains it.

    >>> choose_slices(40, 4, 17), choose_slices(3, 16, 0)
    ([5, 17, 25, 35], [0, 1, 2])
    """
    count = min(depth, count)
    chosen = [int((part + 0.5) * depth / count) for part in range(count)]
    if peak is not None and peak not in chosen:
        chosen[peak * count // depth] = peak
    return chosen


def draw_slice(pixels: Bytes, heatmap: Floats, style: OverlayStyle, size: tuple[int, int]) -> Image.Image:
    """Draw one slice (H, W, 3) with its heatmap (H, W) at `size`."""
    height, width = size
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    placed = View.identity(heatmap.shape).to_photo(heatmap, size)
    return draw_overlay(image, placed, style, (0, 0, width, height))


def label_slice(tile: Image.Image, text: str, is_peak: bool) -> None:
    """Write the slice's number into its corner with a dark outline, readable on any background."""
    draw = ImageDraw.Draw(tile)
    size = 15 if tile.width >= 150 else 11
    draw.text((5, 2), text, MARK if is_peak else INK, load_font(size), stroke_width=2, stroke_fill=PAPER)
    if is_peak:
        draw.rectangle((0, 0, tile.width - 1, tile.height - 1), outline=MARK, width=2)


def volume_pixels(inputs: Floats, preprocess: Mapping[str, Any] | None) -> Bytes:
    """Convert a model input (C, D, H, W) back to pixels (D, H, W, 3): three channels as colors, else the first in gray.

    The entire volume has one scale: from its minimum to its maximum, or from the known mean and std.
    """
    drawn = inputs if len(inputs) == 3 else inputs[:1]
    channels, depth, height, width = drawn.shape
    known = preprocess if len(inputs) in (1, 3) else None
    flat = input_pixels(drawn.reshape(channels, depth * height, width), known)
    return flat.reshape(depth, height, width, 3)
