"""Signed maps as small integers and back, with one scale per sign.

Zero stays exact, and weak positive evidence keeps its levels next to strong negative evidence. Two level formats are in use;
stored files and pages depend on their bytes:

* `UINT8` (part files of bulk runs): 128 is zero, 255 the highest value, 0 the lowest.
* `INT8` (HTML pages): 0 is zero, 127 the highest value, -127 the lowest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class LevelFormat:
    """Integer levels of a signed map: the level of zero, and the number of levels above and below it."""

    dtype: type[np.integer]
    zero: int
    above: int
    below: int
    divide_first: bool  # float32 `value / limit * levels`; otherwise float64 `value * (levels / limit)`

    def scaled(self, values: Float32Array, limit: Float32Array, levels: int) -> NDArray[np.floating]:
        """Return `values` in levels; 0 where `limit`, the value of the last level, is 0."""
        # The two formulas round differently in the last bit, so each format keeps its own.
        if self.divide_first:
            return np.asarray(np.where(limit > 0, values / limit, 0) * levels)
        factors = np.divide(levels, limit.astype(np.float64), out=np.zeros(limit.shape), where=limit > 0)
        return np.asarray(values * factors)


UINT8 = LevelFormat(np.uint8, zero=128, above=127, below=128, divide_first=True)
INT8 = LevelFormat(np.int8, zero=0, above=127, below=127, divide_first=False)


def quantize(maps: Float32Array, form: LevelFormat) -> tuple[NDArray[np.integer], Float32Array, Float32Array]:
    """Return levels (N, h, w) of signed maps, with `low` (N,) <= 0 and `high` (N,) >= 0. Non-finite values count as 0.

    >>> levels, low, high = quantize(np.array([[[1.0, -50.0, 0.5, 0.0]]], np.float32), UINT8)
    >>> levels.tolist(), low.tolist(), high.tolist()
    ([[[255, 0, 192, 128]]], [-50.0], [1.0])
    """
    values, low, high = finite_range(maps)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        up = form.scaled(values, high[:, None], form.above)
        down = form.scaled(values, -low[:, None], form.below)
    limits = np.iinfo(form.dtype)
    levels = (np.rint(np.where(values > 0, up, down)) + form.zero).clip(limits.min, limits.max)
    return levels.astype(form.dtype).reshape(maps.shape), low, high


def dequantize(levels: NDArray[np.integer], low: float, high: float, form: LevelFormat) -> Float32Array:
    """Return the float32 map of levels (h, w), in the units of the map that was quantized.

    >>> dequantize(np.array([[255, 0, 128]], np.uint8), -50.0, 1.0, UINT8).tolist()
    [[1.0, -50.0, 0.0]]
    """
    signed = levels.astype(np.float32) - form.zero
    up, down = signed.clip(min=0) / np.float32(form.above), signed.clip(max=0) / np.float32(-form.below)
    return np.asarray(up * np.float32(high) + down * np.float32(low), np.float32)


def finite_range(maps: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Return maps (N, h, w) as finite float32 rows (N, h * w), and their ranges: `low` (N,) <= 0 <= `high` (N,)."""
    rows = np.nan_to_num(maps.reshape(len(maps), -1), nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32, copy=False)
    return rows, rows.min(1).clip(max=0), rows.max(1).clip(min=0)
