"""Where the heat of a map lies, in a few numbers: peak, centre, spread, shares of border, corner and region.

Heat is what is drawn: the map rectified and resized to the input (bilinear). All of these are sums over it with weights that
only depend on the place, so they are read off the low-resolution map with the weights brought down to its grid: exact, and
for thousands of maps one product of matrices.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from seewhy.images.view import interpolation_weights

Float64Array = NDArray[np.float64]

FRAME = 1 / 8  # of a side: how wide the border is
QUARTER = 1 / 4  # of a side: how large a corner is
NAMES = ("positive", "peak_x", "peak_y", "center_x", "center_y", "spread", "border", "corner")
UNIFORM = {
    "spread": 6**-0.5,
    "border": 1 - (1 - 2 * FRAME) ** 2,
    "corner": QUARTER**2,
}  # of heat that is the same everywhere


def statistics(maps: NDArray[np.float32], size: tuple[int, int]) -> dict[str, Float64Array]:
    """Numbers on signed maps (N, h, w) of an input of `size` (height, width): each (N,), NaN where there is no heat.

    `positive` is the share of positive evidence. Places are shares of the input's width (x) and height (y), from the left and
    the top: `peak` of the strongest cell, `centre` of mass of the heat, `spread` its root mean square distance from there
    (0.41 for heat that is the same everywhere). `border` is the share of the heat in the outer eighth of each side (0.44),
    `corner` that in one of the four corners of a quarter of each side, in the one where it is largest (0.06).

    >>> found = statistics(np.array([[[-1.0, 0.0], [0.0, 3.0]]], np.float32), (8, 8))
    >>> float(found["positive"][0]), float(found["peak_x"][0]), float(found["peak_y"][0])
    (0.75, 0.75, 0.75)
    """
    count, *grid = maps.shape
    clean = np.nan_to_num(maps.reshape(count, -1).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    heat = clean.clip(min=0)
    sums = heat @ place_weights((grid[0], grid[1]), size)
    with np.errstate(invalid="ignore", divide="ignore"):
        positive = heat.sum(1) / np.abs(clean).sum(1)
        shares = np.where(sums[:, :1] > 0, sums / sums[:, :1], np.nan)
    _, x, y, squares, border, *corners = shares.T
    best = heat.argmax(1)
    none = np.isnan(x)
    return {
        "positive": positive,
        "peak_x": np.where(none, np.nan, (best % grid[1] + 0.5) / grid[1]),
        "peak_y": np.where(none, np.nan, (best // grid[1] + 0.5) / grid[0]),
        "center_x": x,
        "center_y": y,
        "spread": np.sqrt((squares - x**2 - y**2).clip(min=0)),
        "border": border,
        "corner": np.max(corners, axis=0),
    }


def fraction_inside(maps: NDArray[np.float32], regions: Float64Array) -> Float64Array:
    """The share of the heat of each map (N, h, w) that lies in its region (N, H, W), in [0, 1]; NaN without heat.

    A region says for each pixel of the input how much of it belongs to the region.
    """
    heat = np.nan_to_num(maps.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    rows, columns = (resizing(cells, pixels) for cells, pixels in zip(maps.shape[1:], regions.shape[1:], strict=True))
    lowered = rows.T @ regions @ columns
    total = (heat * np.outer(rows.sum(0), columns.sum(0))).sum((1, 2))
    inside = (heat * lowered).sum((1, 2))
    return np.asarray(np.divide(inside, total, out=np.full(len(maps), np.nan), where=total > 0))


@lru_cache(maxsize=256)
def place_weights(grid: tuple[int, int], size: tuple[int, int]) -> Float64Array:
    """(cells, 9): what a cell adds to the sum of the heat, to its moments x, y and x² + y², to the border, to each corner."""
    rows, columns = (resizing(cells, pixels) for cells, pixels in zip(grid, size, strict=True))
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
    """What each cell adds along one axis; a pixel on an edge belongs to both sides in its shares."""
    pixels = len(matrix)
    edges = np.arange(pixels + 1) / pixels
    places = (edges[:-1] + edges[1:]) / 2
    return {
        "all": matrix.sum(0),
        "at": places @ matrix,
        "square": places**2 @ matrix,
        "inner": covered(edges, FRAME, 1 - FRAME) @ matrix,
        "first": covered(edges, 0, QUARTER) @ matrix,
        "last": covered(edges, 1 - QUARTER, 1) @ matrix,
    }


def covered(edges: Float64Array, start: float, end: float) -> Float64Array:
    """How much of each pixel, between two `edges` each, lies in [start, end].

    >>> covered(np.array([0.0, 0.5, 1.0]), 0.25, 1.0).tolist()
    [0.5, 1.0]
    """
    inside = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
    return np.asarray(inside.clip(min=0) / np.diff(edges))


@lru_cache(maxsize=256)
def resizing(cells: int, pixels: int) -> Float64Array:
    """(pixels, cells): the bilinear resize of `tensors.resize` along one axis."""
    return interpolation_weights(cells, pixels, pixels, 0.0, float(pixels)).astype(np.float64)
