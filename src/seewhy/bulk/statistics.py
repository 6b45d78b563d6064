"""Statistics of heatmaps: peak, center, spread, and the fractions in the border, the corners and a region.

A heatmap is the map after ReLU, resized to the input (bilinear). Every statistic is a sum over it with weights that depend
only on the position. The transposed resize brings the weights to the grid of the map, so a sum over the low-resolution map is
exact, and thousands of maps take one matrix product.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from seewhy.images.view import interpolation_weights

Float64Array = NDArray[np.float64]

FRAME = 1 / 8  # width of the border, as a fraction of the side
QUARTER = 1 / 4  # side of a corner, as a fraction of the side
NAMES = ("positive", "peak_x", "peak_y", "center_x", "center_y", "spread", "border", "corner")
# Values of a constant heatmap
UNIFORM = {"spread": 6**-0.5, "border": 1 - (1 - 2 * FRAME) ** 2, "corner": QUARTER**2}


def statistics(maps: NDArray[np.float32], size: tuple[int, int]) -> dict[str, Float64Array]:
    """Return statistics of signed maps (N, h, w) for an input of `size` (height, width): each (N,), NaN if the heatmap is 0.

    `positive` is the positive evidence. Positions are fractions of the input's width (x, from the left) and height (y, from
    the top): `peak`, the strongest cell; `center`, the center of mass; `spread`, the root mean square distance from the center
    (0.41 if constant). `border` is the fraction of the heatmap in the outer eighth of each side (0.44 if constant), `corner`
    the largest fraction in one of the four corners with a quarter of each side (0.06 if constant).

    >>> values = statistics(np.array([[[-1.0, 0.0], [0.0, 3.0]]], np.float32), (8, 8))
    >>> float(values["positive"][0]), float(values["peak_x"][0]), float(values["peak_y"][0])
    (0.75, 0.75, 0.75)
    """
    count, *grid = maps.shape
    clean = np.nan_to_num(maps.reshape(count, -1).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    heat = clean.clip(min=0)
    sums = heat @ position_weights((grid[0], grid[1]), size)
    with np.errstate(invalid="ignore", divide="ignore"):
        positive = heat.sum(1) / np.abs(clean).sum(1)
        fractions = np.where(sums[:, :1] > 0, sums / sums[:, :1], np.nan)
    _, x, y, squares, border, *corners = fractions.T
    peak = heat.argmax(1)
    is_empty = np.isnan(x)
    return {
        "positive": positive,
        "peak_x": np.where(is_empty, np.nan, (peak % grid[1] + 0.5) / grid[1]),
        "peak_y": np.where(is_empty, np.nan, (peak // grid[1] + 0.5) / grid[0]),
        "center_x": x,
        "center_y": y,
        "spread": np.sqrt((squares - x**2 - y**2).clip(min=0)),
        "border": border,
        "corner": np.max(corners, axis=0),
    }


def fraction_inside(maps: NDArray[np.float32], regions: Float64Array) -> Float64Array:
    """Return the fraction of each heatmap of maps (N, h, w) inside its region (N, H, W); NaN if the heatmap is 0.

    A region holds the fraction of each input pixel that belongs to it.
    """
    heat = np.nan_to_num(maps.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    rows, columns = (
        resize_matrix(cells, pixels) for cells, pixels in zip(maps.shape[1:], regions.shape[1:], strict=True)
    )
    weights = rows.T @ regions @ columns
    total = (heat * np.outer(rows.sum(0), columns.sum(0))).sum((1, 2))
    inside = (heat * weights).sum((1, 2))
    return np.asarray(np.divide(inside, total, out=np.full(len(maps), np.nan), where=total > 0))


@lru_cache(maxsize=256)
def position_weights(grid: tuple[int, int], size: tuple[int, int]) -> Float64Array:
    """Return the weights (cells, 9) of each cell in the sum, the moments x, y and x² + y², the border and the four corners."""
    rows, columns = (resize_matrix(cells, pixels) for cells, pixels in zip(grid, size, strict=True))
    y, x = (axis_moments(matrix) for matrix in (rows, columns))
    sums = [
        np.outer(y["all"], x["all"]),
        np.outer(y["all"], x["at"]),
        np.outer(y["at"], x["all"]),
        np.outer(y["all"], x["square"]) + np.outer(y["square"], x["all"]),
        np.outer(y["all"], x["all"]) - np.outer(y["inner"], x["inner"]),
        *(np.outer(y[vertical], x[across]) for vertical in ("first", "last") for across in ("first", "last")),
    ]
    return np.stack([one.ravel() for one in sums], 1)


def axis_moments(matrix: Float64Array) -> dict[str, Float64Array]:
    """Return the weights of each cell along one axis. A pixel on the edge of an area counts with the fraction inside it."""
    pixels = len(matrix)
    edges = np.arange(pixels + 1) / pixels
    centers = (edges[:-1] + edges[1:]) / 2
    return {
        "all": matrix.sum(0),
        "at": centers @ matrix,
        "square": centers**2 @ matrix,
        "inner": coverage(edges, FRAME, 1 - FRAME) @ matrix,
        "first": coverage(edges, 0, QUARTER) @ matrix,
        "last": coverage(edges, 1 - QUARTER, 1) @ matrix,
    }


def coverage(edges: Float64Array, start: float, end: float) -> Float64Array:
    """Return the fraction of each pixel, between two `edges` each, that is inside [start, end].

    >>> coverage(np.array([0.0, 0.5, 1.0]), 0.25, 1.0).tolist()
    [0.5, 1.0]
    """
    inside = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
    return np.asarray(inside.clip(min=0) / np.diff(edges))


@lru_cache(maxsize=256)
def resize_matrix(cells: int, pixels: int) -> Float64Array:
    """Return the matrix (pixels, cells) of the bilinear resize of `map_functions.resize` along one axis."""
    return interpolation_weights(cells, pixels, pixels, 0.0, float(pixels)).astype(np.float64)
