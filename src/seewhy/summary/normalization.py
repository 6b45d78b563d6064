"""Heat in shares of its sum: what all counting, clustering and comparing of maps starts from."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Kind = TypeVar("Kind", bound=np.floating[Any])


def shares(maps: NDArray[Kind]) -> NDArray[Kind]:
    """Heat (N, h, w) in shares of each map's own sum, so that each counts as much; zeros where there is none.

    What is no number, or infinite, counts as none.

    >>> shares(np.array([[[1.0, 3.0], [-2.0, np.inf]]])).tolist()
    [[[0.25, 0.75], [0.0, 0.0]]]
    """
    heat = np.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    sums = heat.sum((1, 2), keepdims=True, dtype=np.float64)
    return np.asarray(np.divide(heat, sums, out=np.zeros_like(heat), where=sums > 0))
