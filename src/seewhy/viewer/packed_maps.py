"""Signed maps as bytes, with one scale per sign: small positive values keep their resolution next to large negative ones."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seewhy.rendering.quantization import INT8, Float32Array, dequantize, quantize

MAX_CELLS = 56  # per side; larger maps are averaged down


@dataclass(frozen=True, eq=False)
class PackedMap:
    """One map (h, w) as int8 `levels`: `level / 127 * high` if positive, `level / 127 * low` if negative.

    `high` and `low` are non-negative, in the units of the map.
    """

    levels: NDArray[np.int8]
    high: float
    low: float


def pack(values: Float32Array, max_cells: int = MAX_CELLS) -> PackedMap:
    """Quantize a signed map (h, w), averaged to at most `max_cells` per side. NaN and infinity count as 0.

    >>> packed = pack(np.array([[1.0, -50.0]], np.float32))
    >>> packed.levels.tolist(), packed.high, packed.low
    ([[127, -127]], 1.0, 50.0)
    """
    values = np.nan_to_num(values.astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)
    values = average_rows(average_rows(values, max_cells).T, max_cells).T
    levels, low, high = quantize(values[None], INT8)
    return PackedMap(levels[0].astype(np.int8, copy=False), float(high[0]), abs(float(low[0])))


def unpack(packed: PackedMap) -> Float32Array:
    """Return the map that the page draws.

    >>> unpack(pack(np.array([[1.0, -50.0, 0.25]], np.float32))).round(2).tolist()
    [[1.0, -50.0, 0.25]]
    """
    return dequantize(packed.levels, -packed.low, packed.high, INT8)


def average_rows(values: Float32Array, max_rows: int) -> Float32Array:
    """Average the rows to at most `max_rows`; a row that spans two output rows contributes to both in proportion.

    >>> average_rows(np.array([[0.0], [2.0], [4.0], [6.0]], np.float32), 2).tolist()
    [[1.0], [5.0]]
    """
    rows = len(values)
    if rows <= max_rows:
        return values
    edges = np.linspace(0, rows, max_rows + 1)
    sums = np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(0, dtype=np.float64)])
    lower = edges.astype(int).clip(max=rows - 1)
    at_edges = sums[lower] + (edges - lower)[:, None] * values[lower]
    means: Float32Array = ((at_edges[1:] - at_edges[:-1]) * (max_rows / rows)).astype(np.float32)
    return means


def encode_levels(maps: Sequence[PackedMap]) -> str:
    """Concatenate the levels of all maps, compress them with zlib, and encode them in base64."""
    raw = b"".join(packed.levels.tobytes() for packed in maps)
    return base64.b64encode(zlib.compress(raw, 6)).decode("ascii")
