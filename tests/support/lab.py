"""CIELAB, to compare colors as people see them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

TO_XYZ = np.array(  # of linear sRGB, for the white point D65
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(1)


def to_lab(colors: ArrayLike) -> NDArray[np.float64]:
    """Return L*, a* and b* of sRGB colors from 0 to 255, `(..., 3)`.

    >>> to_lab([[255, 255, 255], [255, 0, 0]]).round(1).tolist()
    [[100.0, 0.0, 0.0], [53.2, 80.1, 67.2]]
    """
    levels = np.asarray(colors, np.float64) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    ratios = linear @ TO_XYZ.T / WHITE
    x, y, z = np.moveaxis(np.where(ratios > 216 / 24389, np.cbrt(ratios), (24389 / 27 * ratios + 16) / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def distance(colors: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Return the distance of colors in CIELAB (CIE76); 2.3 is just noticeable."""
    result: NDArray[np.float64] = np.linalg.norm(to_lab(colors) - to_lab(others), axis=-1)
    return result
