"""Volumes as pictures: slices along the first axis side by side, in gray, with the heat over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageDraw

from seewhy.images.view import View
from seewhy.rendering import overlays as render
from seewhy.rendering.overlays import FAINT, INK, PAPER, Bytes, Floats, OverlayStyle

MOST = 16  # slices of a mosaic
NARROWEST = 100  # pixels of a slice: a smaller mosaic has fewer
GAP, FOOT = 4, 22
MARK = (255, 214, 92)  # around the slice with the map's maximum


def overlay(volume: Bytes, heat: Floats, look: OverlayStyle, longest: int) -> Image.Image:
    """A mosaic of a volume (D, H, W, 3) with its heat (D, H, W) in [0, 1]; its longer side is about `longest` pixels.

    The slices are evenly spread, except that the one with the map's maximum is always shown, and framed. All share one
    scale of gray and of heat, so what is strong in one slice can be compared with all others.
    """
    depth, height, width = heat.shape
    peak = int(heat.max((1, 2)).argmax()) if heat.max() > 0 else None
    shown = choose_slices(depth, min(MOST, max(1, longest // NARROWEST) ** 2), peak)
    columns = render.choose_columns(len(shown), width, height)
    rows = -(-len(shown) // columns)
    zoom = (longest - GAP) / max(columns * width, rows * height)
    size = max(8, round(zoom * height) - GAP), max(8, round(zoom * width) - GAP)
    foot = FOOT if longest >= 600 else 0
    mosaic = Image.new("RGB", (GAP + columns * (size[1] + GAP), GAP + rows * (size[0] + GAP) + foot), PAPER)
    for place, number in enumerate(shown):
        tile = slice_picture(volume[number], heat[number], look, size)
        caption(tile, str(number), number == peak)
        mosaic.paste(tile, (GAP + place % columns * (size[1] + GAP), GAP + place // columns * (size[0] + GAP)))
    if foot:
        most = "all" if len(shown) == depth else f"{len(shown)} of"
        text = f"{most} {depth} slices along the first axis"
        text += "" if peak is None else f"  ·  framed: slice {peak}, where the map is strongest"
        render.write(ImageDraw.Draw(mosaic), (GAP + 2, mosaic.height - 20), text, 13, FAINT, mosaic.width - 2 * GAP)
    return mosaic


def choose_slices(depth: int, count: int, peak: int | None) -> list[int]:
    """`count` slices of `depth`, the middles of equal parts; in its own part the `peak` takes the middle's place.

    >>> choose_slices(40, 4, 17), choose_slices(3, 16, 0)
    ([5, 17, 25, 35], [0, 1, 2])
    """
    count = min(depth, count)
    chosen = [int((part + 0.5) * depth / count) for part in range(count)]
    if peak is not None and peak not in chosen:
        chosen[peak * count // depth] = peak
    return chosen


def slice_picture(pixels: Bytes, heat: Floats, look: OverlayStyle, size: tuple[int, int]) -> Image.Image:
    height, width = size
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    placed = View.whole(heat.shape).place(heat, size)
    return render.overlay(picture, placed, look, (0, 0, width, height))


def caption(tile: Image.Image, text: str, marked: bool) -> None:
    """The slice's number in its corner, on a dark edge so that it reads on any ground."""
    draw = ImageDraw.Draw(tile)
    size = 15 if tile.width >= 150 else 11
    draw.text((5, 2), text, MARK if marked else INK, render.font(size), stroke_width=2, stroke_fill=PAPER)
    if marked:
        draw.rectangle((0, 0, tile.width - 1, tile.height - 1), outline=MARK, width=2)


def seen(inputs: Floats, preprocess: Mapping[str, Any] | None) -> Bytes:
    """What a network's input (C, D, H, W) shows, (D, H, W, 3): three channels as colours, else the first one in gray.

    One scale for the whole volume, from its lowest to its highest value, or from the known mean and std.
    """
    shown = inputs if len(inputs) == 3 else inputs[:1]
    channels, depth, height, width = shown.shape
    flat = render.seen(shown.reshape(channels, depth * height, width), preprocess if len(inputs) in (1, 3) else None)
    return flat.reshape(depth, height, width, 3)
