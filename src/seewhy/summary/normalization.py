"""Normalization of the positive evidence, so that every image has the same weight."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Float = TypeVar("Float", bound=np.floating[Any])


def normalize_to_sum(maps: NDArray[Float]) -> NDArray[Float]:
    """Divide the positive part of each map (N, h, w) by its sum; all zeros if there is none. Non-finite values count as 0.

    >>> normalize_to_sum(np.array([[[1.0, 3.0], [-2.0, np.inf]]])).tolist()
    [[[0.25, 0.75], [0.0, 0.0]]]
    """
    evidence = np.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    sums = evidence.sum((1, 2), keepdims=True, dtype=np.float64)
    return np.asarray(np.divide(evidence, sums, out=np.zeros_like(evidence), where=sums > 0))
