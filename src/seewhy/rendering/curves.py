"""Signals as pictures: a lane with a curve for each channel, the heat glowing behind it and in a strip underneath."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from seewhy.rendering import overlays as render
from seewhy.rendering.overlays import FAINT, INK, PAPER, Floats, OverlayStyle, text_width

LANES = 12  # channels drawn at most
FINE = 3  # curves are drawn this many times as large, then shrunk: Pillow's lines have no smooth edges
GLOW = 0.6  # of the look's opacity: behind a curve full colour would hide it
RULE, DIM = (52, 54, 61), (112, 114, 121)
ROOMY = 420  # pixels of width from which the picture has numbers beside its lanes


def overlay(signal: Floats, heat: Floats, look: OverlayStyle, width: int) -> Image.Image:
    """A signal (C, L) with its heat (L,) in [0, 1] as a picture `width` pixels wide; sample i covers [i, i + 1] of the axis.

    Each channel has its own scale, from its lowest to its highest value, which stand beside it.
    """
    channels, length = signal.shape
    shown = signal[:LANES]
    roomy = width >= ROOMY
    size = 13 if roomy else 10
    left, gap, strip, foot = (64 if roomy else 6), (10 if roomy else 5), (9 if roomy else 5), size + 12
    lane = max(24, round(width * (0.19 if len(shown) == 1 else max(0.05, 0.34 / (len(shown) + 0.4)))))
    inner = (max(16, width - left - gap), len(shown) * lane)
    picture = Image.new("RGB", (width, gap + inner[1] + strip + foot), PAPER)
    draw = ImageDraw.Draw(picture)
    levels = at_columns(heat, inner[0])
    picture.paste(glow(levels, look, inner[1]), (left, gap))
    bar = render.colorize(render.to_bytes(levels)[None], look.colors).resize(
        (inner[0], strip), Image.Resampling.NEAREST
    )
    picture.paste(bar, (left, gap + inner[1]))
    ticks = [
        (left + (at + 0.5) * inner[0] / length, at) for at in tick_places(length, inner[0] // (90 if roomy else 60))
    ]
    for x, _ in ticks:
        draw.line([(x, gap), (x, gap + inner[1] - 1)], RULE)
    for number, values in enumerate(shown):
        top = gap + number * lane
        if number:
            draw.line([(left, top), (left + inner[0], top)], RULE)
        mask = curve(values, inner[0], lane, 1.7 if roomy else 1.2)
        picture.paste(INK, (left, top), mask)
        if roomy:
            label(draw, values, number if channels > 1 else None, (left - 8, top, lane))
    for x, at in ticks:
        middle = min(x, width - 2 - text_width(str(at), size) / 2)
        draw.text((middle, picture.height - 4), str(at), FAINT, render.font(size), anchor="ms")
    if channels > LANES:  # a signal with many channels has a line more
        picture = with_line(picture, f"channels 0 to {LANES - 1} of {channels}", size, left)
    return picture


def glow(levels: Floats, look: OverlayStyle, height: int) -> Image.Image:
    """The heat at each column as a coloured ground on the paper."""
    ground = Image.new("RGB", (len(levels), height), PAPER)
    softer = OverlayStyle(look.style, look.colors, look.opacity * GLOW)
    return render.overlay(ground, np.broadcast_to(levels, (height, len(levels))), softer, (0, 0, *ground.size))


def at_columns(heat: Floats, columns: int) -> Floats:
    """Heat (L,) at pixel columns: linear between samples, and the largest where several samples share a column.

    >>> at_columns(np.array([0, 1, 0, 0, 0, 0], np.float32), 3).tolist()
    [1.0, 0.0, 0.0]
    """
    if len(heat) > columns:
        return np.maximum.reduceat(heat, np.arange(columns) * len(heat) // columns)
    at = (np.arange(columns) + 0.5) * len(heat) / columns - 0.5
    return np.interp(at, np.arange(len(heat)), heat).astype(np.float32)


def curve(values: Floats, width: int, height: int, thick: float) -> Image.Image:
    """The curve of one channel (L,) as a mask of white on black; values that are no numbers leave gaps."""
    columns, rows = width * FINE, height * FINE
    mask = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(mask)
    heights = place(values, rows)
    line = max(1, round(thick * FINE))
    if len(values) > width:  # several samples a column: from the lowest to the highest of them
        starts = np.arange(width) * len(values) // width
        low, high = np.fmin.reduceat(heights, starts), np.fmax.reduceat(heights, starts)
        for column in range(width):
            # Up to halfway to the column before, so that a steep edge is not torn.
            near = slice(max(0, column - 1), column + 1)
            top = min(low[column], high[near][0]) if math.isfinite(high[near][0]) else low[column]
            end = max(high[column], low[near][0]) if math.isfinite(low[near][0]) else high[column]
            if math.isfinite(top) and math.isfinite(end):
                x = column * FINE
                draw.rectangle((x, top - line / 2, x + FINE - 1, end + line / 2), 255)
    else:
        across = (np.arange(len(values)) + 0.5) * columns / len(values)
        known = np.isfinite(heights)
        for part in np.split(np.arange(len(values)), np.flatnonzero(np.diff(known)) + 1):
            points = [(float(across[at]), float(heights[at])) for at in part if known[at]]
            if len(points) > 1:
                draw.line(points, 255, line, joint="curve")
            for along, down in points if len(points) == 1 else []:
                draw.ellipse((along - line, down - line, along + line, down + line), 255)
    return mask.resize((width, height), Image.Resampling.BOX)


def place(values: Floats, rows: int) -> Floats:
    """Where values stand in a lane, in rows from its top: the highest near the top, what never varies in the middle."""
    low, high = limits(values)
    span = high - low
    share = (values.astype(np.float64) - low) / span if span > 0 else values * 0.0 + 0.5
    share = np.where(np.isfinite(values), share, np.nan)
    return (rows * (0.9 - 0.8 * share)).astype(np.float32)


def limits(values: Floats) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)


def label(draw: ImageDraw.ImageDraw, values: Floats, number: int | None, at: tuple[int, int, int]) -> None:
    """A lane's highest and lowest value, and between them its number, right-aligned beside it."""
    x, top, lane = at
    low, high = limits(values)
    small = render.font(11)
    if number is None or lane >= 44:
        inset = max(9, round(lane * 0.1))
        draw.text((x, top + inset), f"{high:.3g}", DIM, small, anchor="rm")
        draw.text((x, top + lane - inset), f"{low:.3g}", DIM, small, anchor="rm")
    if number is not None:
        draw.text((x, top + lane / 2), str(number), INK, render.font(13), anchor="rm")


def tick_places(length: int, most: int) -> list[int]:
    """Round sample numbers, at most about `most` of them, from 0 on.

    >>> tick_places(1000, 8)
    [0, 200, 400, 600, 800]
    """
    rough = max(1.0, length / max(1, most))
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(int(power * unit) for unit in (1, 2, 5, 10) if power * unit >= rough)
    return list(range(0, length, step))


def with_line(picture: Image.Image, text: str, size: int, left: int) -> Image.Image:
    """The picture with a line of faint text underneath."""
    longer = Image.new("RGB", (picture.width, picture.height + size + 8), PAPER)
    longer.paste(picture)
    render.write(ImageDraw.Draw(longer), (left, picture.height), text, size, FAINT, picture.width - left)
    return longer
