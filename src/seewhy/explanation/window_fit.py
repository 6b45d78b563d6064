"""The measured map: where covering lowers a score, fitted to the drops under the 27 masks of the check.

The fit is a Gaussian process on a grid. It is linear in the drops, and the masks are the same for all images, so it is one
constant matrix.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from seewhy.explanation.windows import MASKS, MODES, Array, Mode, WindowDrops, normalized

GRID = 14  # cells per side
LENGTH = 0.15  # of the squared exponential kernel, as a fraction of the side
NOISE = 0.3  # standard deviation of a drop; each mode has nine, with length 1


def fit_map(drops: WindowDrops) -> Array:
    """Return the map `(14, 14)` that explains the drops of one image; `drops.reason` must be empty.

    Its unit is the standard deviation of a cell before the fit; 0 is the mean of the image.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # drops of a saved explanation may be of any size
        values = normalized(np.array(drops.values)).ravel()
    return np.nan_to_num(fit_matrix() @ values).reshape(GRID, GRID)


@cache
def fit_matrix() -> Array:
    """Return the matrix `(196, 27)` from normalized drops to the map: the posterior mean of a Gaussian process.

    Each mask hides a part of the image, and its drop is the mean of the map there. The rows of a mode are centered, as the
    drops are, and scaled to an expected length of 1, which is the length of the drops.
    """
    rows = np.concatenate([hidden_parts(mode) for mode in MODES]) / GRID**2
    covariance = cell_covariance()
    modes = rows.reshape(len(MODES), -1, GRID**2)
    modes = modes - modes.mean(1, keepdims=True)
    lengths = np.sqrt([np.trace(mode @ covariance @ mode.T) for mode in modes])
    rows = (modes / lengths[:, None, None]).reshape(MASKS, -1)
    known = rows @ covariance @ rows.T + NOISE**2 * np.eye(MASKS)
    matrix: Array = covariance @ rows.T @ np.linalg.inv(known)
    return matrix


def cell_covariance() -> Array:
    """Return the covariance of the cells `(196, 196)`: 1 on the diagonal, and a Gaussian of their distance elsewhere."""
    centers = (np.arange(GRID) + 0.5) / GRID
    axis = np.exp(-((centers[:, None] - centers) ** 2) / (2 * LENGTH**2))
    # The Gaussian of a distance is the product of those along both axes.
    return (axis[:, None, :, None] * axis[None, :, None, :]).reshape(GRID**2, GRID**2)


def hidden_parts(mode: Mode) -> Array:
    """Return the fraction of each cell that the masks of a mode hide, `(9, 196)`."""
    edges = np.linspace(0, 1, GRID + 1)
    starts = np.array(mode.starts)[:, None]
    overlap = np.minimum(edges[1:], starts + mode.side) - np.maximum(edges[:-1], starts)
    axis: Array = np.clip(overlap, 0, None) * GRID
    windows: Array = (axis[:, None, :, None] * axis[None, :, None, :]).reshape(-1, GRID**2)
    return 1 - windows if mode.keeps else windows
