"""Signed maps as bytes: a scale for each sign, so that a little evidence among much counter-evidence keeps its levels."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 127  # for each sign
MOST_CELLS = 56  # along a side; finer maps are averaged
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Packed:
    """One map (h, w) as int8 `levels`: v = level / 127 * `high` where positive, level / 127 * `low` where negative.

    `high` and `low` are at least 0, in the map's own units.
    """

    levels: NDArray[np.int8]
    high: float
    low: float


def pack(values: Floats, most: int = MOST_CELLS) -> Packed:
    """A signed map (h, w), averaged to at most `most` cells along a side. What is no number counts as 0.

    >>> packed = pack(np.array([[1.0, -50.0]], np.float32))
    >>> packed.levels.tolist(), packed.high, packed.low
    ([[127, -127]], 1.0, 50.0)
    """
    values = np.nan_to_num(values.astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)
    values = averaged(averaged(values, most).T, most).T
    high, low = max(0.0, float(values.max())), max(0.0, -float(values.min()))
    scale = np.where(values > 0, LEVELS / high if high else 0.0, LEVELS / low if low else 0.0)
    return Packed(np.rint(values * scale).astype(np.int8), high, low)


def unpack(packed: Packed) -> Floats:
    """The map that the page draws.

    >>> unpack(pack(np.array([[1.0, -50.0, 0.25]], np.float32))).round(2).tolist()
    [[1.0, -50.0, 0.25]]
    """
    levels = packed.levels.astype(np.float32) / LEVELS
    return np.where(levels > 0, levels * packed.high, levels * packed.low).astype(np.float32)


def averaged(values: Floats, most: int) -> Floats:
    """Rows averaged to at most `most`; where a row falls between two, each takes its share.

    >>> averaged(np.array([[0.0], [2.0], [4.0], [6.0]], np.float32), 2).tolist()
    [[1.0], [5.0]]
    """
    rows = len(values)
    if rows <= most:
        return values
    edges = np.linspace(0, rows, most + 1)
    sums = np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(0, dtype=np.float64)])
    whole = edges.astype(int).clip(max=rows - 1)
    at_edges = sums[whole] + (edges - whole)[:, None] * values[whole]
    means: Floats = ((at_edges[1:] - at_edges[:-1]) * (most / rows)).astype(np.float32)
    return means


def joined(maps: Sequence[Packed]) -> str:
    """All levels, one map behind the other, deflated, in base64."""
    raw = b"".join(packed.levels.tobytes() for packed in maps)
    return base64.b64encode(zlib.compress(raw, 6)).decode("ascii")
