"""Signed maps as the bytes of a Parquet cell, and back.

`uint8`: levels as in `rendering.quantization.UINT8`. `float16`: values divided by the larger of |lo| and |hi|, because the
units of a map may be outside the range of float16.
"""

from __future__ import annotations

import numpy as np

from seewhy.rendering.quantization import UINT8, Float32Array, dequantize, finite_range, quantize


def encode_maps(maps: Float32Array, store: str) -> tuple[list[bytes], Float32Array, Float32Array]:
    """Return the bytes of maps (N, h, w), row by row, with `lo` (N,) <= 0 and `hi` (N,) >= 0. Non-finite values count as 0.

    >>> content, lo, hi = encode_maps(np.array([[[1.0, -50.0, 0.5, 0.0]]], np.float32), "uint8")
    >>> list(content[0]), lo.tolist(), hi.tolist()
    ([255, 0, 192, 128], [-50.0], [1.0])
    """
    if store == "uint8":
        levels, lo, hi = quantize(maps, UINT8)
        return [one.tobytes() for one in levels], lo, hi
    rows, lo, hi = finite_range(maps)
    scale = np.maximum(-lo, hi)[:, None]
    fractions = np.divide(rows, scale, out=np.zeros_like(rows), where=scale > 0)
    return [row.tobytes() for row in fractions.astype("<f2")], lo, hi


def decode_bytes(content: bytes, shape: tuple[int, int], lo: float, hi: float, store: str) -> Float32Array:
    """Return one map (h, w) in the units of its method.

    >>> decode_bytes(bytes([255, 0, 128]), (1, 3), -50.0, 1.0, "uint8").tolist()
    [[1.0, -50.0, 0.0]]
    """
    if store == "uint8":
        return dequantize(np.frombuffer(content, np.uint8).reshape(shape), lo, hi, UINT8)
    fractions = np.frombuffer(content, "<f2").astype(np.float32)
    return np.asarray(fractions * np.float32(max(-lo, hi))).reshape(shape)
