"""Signals as images: one lane with a curve per channel, the heatmap behind the curves and in a strip below them."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from seewhy.rendering.fonts import load_font
from seewhy.rendering.overlays import FAINT, INK, PAPER, Floats, OverlayStyle, colorize, draw_overlay, to_bytes
from seewhy.rendering.text import text_width, write_text

MAX_LANES = 12  # channels that are drawn
SUPERSAMPLING = 3  # curves are drawn this many times larger, then shrunk: Pillow's lines are not antialiased
GLOW = 0.6  # of the style's opacity: behind a curve, the full color would hide it
RULE, DIM = (52, 54, 61), (112, 114, 121)
MIN_LABEL_WIDTH = 420  # pixels of width from which lanes are labeled with numbers


def draw_signal(signal: Floats, heatmap: Floats, style: OverlayStyle, width: int) -> Image.Image:
    """Draw a signal (C, L) with its heatmap (L,) in [0, 1], `width` pixels wide; sample i covers [i, i + 1] of the axis.

    Each channel is scaled from its own minimum to its own maximum, which label its lane.
    """
    channels, length = signal.shape
    lanes = signal[:MAX_LANES]
    labeled = width >= MIN_LABEL_WIDTH
    size = 13 if labeled else 10
    left, gap, strip, foot = (64 if labeled else 6), (10 if labeled else 5), (9 if labeled else 5), size + 12
    lane = max(24, round(width * (0.19 if len(lanes) == 1 else max(0.05, 0.34 / (len(lanes) + 0.4)))))
    inner = (max(16, width - left - gap), len(lanes) * lane)
    image = Image.new("RGB", (width, gap + inner[1] + strip + foot), PAPER)
    draw = ImageDraw.Draw(image)
    levels = resample_columns(heatmap, inner[0])
    image.paste(draw_glow(levels, style, inner[1]), (left, gap))
    bar = colorize(to_bytes(levels)[None], style.colors).resize((inner[0], strip), Image.Resampling.NEAREST)
    image.paste(bar, (left, gap + inner[1]))
    ticks = [
        (left + (at + 0.5) * inner[0] / length, at) for at in choose_ticks(length, inner[0] // (90 if labeled else 60))
    ]
    for x, _ in ticks:
        draw.line([(x, gap), (x, gap + inner[1] - 1)], RULE)
    for number, values in enumerate(lanes):
        top = gap + number * lane
        if number:
            draw.line([(left, top), (left + inner[0], top)], RULE)
        mask = draw_curve(values, inner[0], lane, 1.7 if labeled else 1.2)
        image.paste(INK, (left, top), mask)
        if labeled:
            label_lane(draw, values, number if channels > 1 else None, (left - 8, top, lane))
    for x, at in ticks:
        middle = min(x, width - 2 - text_width(str(at), size) / 2)
        draw.text((middle, image.height - 4), str(at), FAINT, load_font(size), anchor="ms")
    if channels > MAX_LANES:
        image = append_line(image, f"channels 0 to {MAX_LANES - 1} of {channels}", size, left)
    return image


def draw_glow(levels: Floats, style: OverlayStyle, height: int) -> Image.Image:
    """Draw the heatmap of each pixel column as a colored area behind the curves."""
    ground = Image.new("RGB", (len(levels), height), PAPER)
    softer = OverlayStyle(style.mode, style.colors, style.opacity * GLOW)
    return draw_overlay(ground, np.broadcast_to(levels, (height, len(levels))), softer, (0, 0, *ground.size))


def resample_columns(heatmap: Floats, columns: int) -> Floats:
    """Resample a heatmap (L,) to pixel columns: linear between samples; the maximum if several samples share a column.

    >>> resample_columns(np.array([0, 1, 0, 0, 0, 0], np.float32), 3).tolist()
    [1.0, 0.0, 0.0]
    """
    if len(heatmap) > columns:
        return np.maximum.reduceat(heatmap, np.arange(columns) * len(heatmap) // columns)
    at = (np.arange(columns) + 0.5) * len(heatmap) / columns - 0.5
    return np.interp(at, np.arange(len(heatmap)), heatmap).astype(np.float32)


def draw_curve(values: Floats, width: int, height: int, thickness: float) -> Image.Image:
    """Draw one channel (L,) as a white curve on black; values that are not finite leave gaps."""
    columns, rows = width * SUPERSAMPLING, height * SUPERSAMPLING
    mask = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(mask)
    heights = lane_rows(values, rows)
    line = max(1, round(thickness * SUPERSAMPLING))
    if len(values) > width:  # several samples per column: a bar from the lowest to the highest of them
        starts = np.arange(width) * len(values) // width
        low, high = np.fmin.reduceat(heights, starts), np.fmax.reduceat(heights, starts)
        for column in range(width):
            # Extend the bar to the previous column, so that a steep edge has no gap.
            near = slice(max(0, column - 1), column + 1)
            top = min(low[column], high[near][0]) if math.isfinite(high[near][0]) else low[column]
            end = max(high[column], low[near][0]) if math.isfinite(low[near][0]) else high[column]
            if math.isfinite(top) and math.isfinite(end):
                x = column * SUPERSAMPLING
                draw.rectangle((x, top - line / 2, x + SUPERSAMPLING - 1, end + line / 2), 255)
    else:
        across = (np.arange(len(values)) + 0.5) * columns / len(values)
        finite = np.isfinite(heights)
        for part in np.split(np.arange(len(values)), np.flatnonzero(np.diff(finite)) + 1):
            points = [(float(across[at]), float(heights[at])) for at in part if finite[at]]
            if len(points) > 1:
                draw.line(points, 255, line, joint="curve")
            for along, down in points if len(points) == 1 else []:
                draw.ellipse((along - line, down - line, along + line, down + line), 255)
    return mask.resize((width, height), Image.Resampling.BOX)


def lane_rows(values: Floats, rows: int) -> Floats:
    """Return the row of each value in a lane: the maximum near the top; a constant signal in the middle."""
    low, high = finite_range(values)
    span = high - low
    position = (values.astype(np.float64) - low) / span if span > 0 else values * 0.0 + 0.5
    position = np.where(np.isfinite(values), position, np.nan)
    return (rows * (0.9 - 0.8 * position)).astype(np.float32)


def finite_range(values: Floats) -> tuple[float, float]:
    """Return the minimum and maximum of the finite values; (0, 0) if there are none."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)


def label_lane(draw: ImageDraw.ImageDraw, values: Floats, number: int | None, position: tuple[int, int, int]) -> None:
    """Write a lane's maximum and minimum, and its number between them, right-aligned at the left of the lane."""
    x, top, lane = position
    low, high = finite_range(values)
    small = load_font(11)
    if number is None or lane >= 44:
        inset = max(9, round(lane * 0.1))
        draw.text((x, top + inset), f"{high:.3g}", DIM, small, anchor="rm")
        draw.text((x, top + lane - inset), f"{low:.3g}", DIM, small, anchor="rm")
    if number is not None:
        draw.text((x, top + lane / 2), str(number), INK, load_font(13), anchor="rm")


def choose_ticks(length: int, count: int) -> list[int]:
    """Return round sample numbers from 0 on, about `count` of them at most.

    >>> choose_ticks(1000, 8)
    [0, 200, 400, 600, 800]
    """
    rough = max(1.0, length / max(1, count))
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(int(power * unit) for unit in (1, 2, 5, 10) if power * unit >= rough)
    return list(range(0, length, step))


def append_line(image: Image.Image, text: str, size: int, left: int) -> Image.Image:
    """Return the image with a line of faint text below it."""
    longer = Image.new("RGB", (image.width, image.height + size + 8), PAPER)
    longer.paste(image)
    write_text(longer, (left, image.height), text, size, FAINT, image.width - left)
    return longer
