"""Signed maps as bytes, and back.

uint8: 128 is 0, 255 is `hi`, 0 is `lo`, with a straight line on either side, so that 0 is exact and a little evidence among
much counter-evidence keeps its levels. float16: shares of the larger of |lo| and |hi|, as a map's own units may be too small.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
ZERO, UP, DOWN = 128, 127, 128


def packed(maps: Floats, store: str) -> tuple[list[bytes], Floats, Floats]:
    """The cells of maps (N, h, w), row by row, with `lo` (N,), at most 0, and `hi` (N,), at least 0. NaN counts as 0.

    >>> cells, lo, hi = packed(np.array([[[1.0, -50.0, 0.5, 0.0]]], np.float32), "uint8")
    >>> list(cells[0]), lo.tolist(), hi.tolist()
    ([255, 0, 192, 128], [-50.0], [1.0])
    """
    flat = np.nan_to_num(maps.reshape(len(maps), -1), nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32, copy=False)
    lo, hi = flat.min(1).clip(max=0), flat.max(1).clip(min=0)
    if store == "float16":
        scale = np.maximum(-lo, hi)[:, None]
        shares = np.divide(flat, scale, out=np.zeros_like(flat), where=scale > 0)
        return [row.tobytes() for row in shares.astype("<f2")], lo, hi
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        up = np.where(hi[:, None] > 0, flat / hi[:, None], 0) * UP
        down = np.where(lo[:, None] < 0, flat / -lo[:, None], 0) * DOWN
    levels = np.rint(np.where(flat > 0, up, down)) + ZERO
    return [row.tobytes() for row in levels.clip(0, 255).astype(np.uint8)], lo, hi


def dequantize(cells: bytes, shape: tuple[int, int], lo: float, hi: float, store: str) -> Floats:
    """One map (h, w) in its own units.

    >>> dequantize(bytes([255, 0, 128]), (1, 3), -50.0, 1.0, "uint8").tolist()
    [[1.0, -50.0, 0.0]]
    """
    if store == "float16":
        shares = np.frombuffer(cells, "<f2").astype(np.float32)
        return np.asarray(shares * np.float32(max(-lo, hi))).reshape(shape)
    levels = np.frombuffer(cells, np.uint8).astype(np.float32) - ZERO
    up, down = levels.clip(min=0) / np.float32(UP), levels.clip(max=0) / np.float32(-DOWN)
    return np.asarray(up * np.float32(hi) + down * np.float32(lo), np.float32).reshape(shape)
