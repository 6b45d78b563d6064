"""Pictures whose map is unlike those of the others, by each number on where its heat lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.statistics import Float64Array

Indices = NDArray[np.intp]

FAR = 3.5  # robust standard deviations: the usual bound (Iglewicz and Hoaglin, 1993)
TO_SIGMA = 1.4826  # times the median absolute deviation is the standard deviation of a normal distribution
MEAN_TO_SIGMA = 1.2533  # times the mean absolute deviation is
HIGH_ONLY = ("border", "corner")  # little heat at the border is what one expects
EDGE = "edge"  # the border or a corner, whichever is the more unusual


@dataclass(frozen=True, eq=False)
class Outliers:
    """The pictures farthest from the median by one statistic, the farthest first; of equal ones the lower index.

    `scores` are their distances in robust standard deviations, below 0 on the low side; `far` is how many of all pictures lie
    beyond 3.5. In any set some lie far out: this is a list of what to look at, no warning.
    """

    statistic: str
    indices: Indices
    scores: Float64Array
    far: int


def find_outliers(numbers: Mapping[str, Float64Array], most: int = 30) -> dict[str, Outliers]:
    """For each statistic (N,) of a run, at most `most` pictures; `edge` where `border` and `corner` are among them.

    The median is that of all pictures, not of a class: where half a class is decided by a watermark, that is the class's
    norm. NaN (no heat) is no outlier. Of `border`, `corner` and `edge` only the high side counts.

    >>> found = find_outliers({"corner": np.array([0.05, 0.06, 0.9, 0.07, 0.05])}, most=2)["corner"]
    >>> found.indices.tolist(), found.far
    ([2, 3], 1)
    """
    scores = {name: robust_scores(values) for name, values in numbers.items()}
    strengths = {name: score if name in HIGH_ONLY else np.abs(score) for name, score in scores.items()}
    if all(name in scores for name in HIGH_ONLY):
        scores[EDGE] = strengths[EDGE] = np.maximum(*(scores[name] for name in HIGH_ONLY))
    return {name: farthest(name, scores[name], strengths[name], most) for name in scores}


def farthest(name: str, scores: Float64Array, strengths: Float64Array, most: int) -> Outliers:
    ranked = np.argsort(-strengths, kind="stable")[:most]
    kept = ranked[strengths[ranked] > 0]
    return Outliers(name, kept, scores[kept], int((strengths > FAR).sum()))


def robust_scores(values: Float64Array) -> Float64Array:
    """Distances from the median (N,) in median absolute deviations, scaled to standard deviations; 0 for NaN.

    Where more than half are the same number that deviation is 0, and the mean deviation stands in for it.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values))
    middle = np.median(known)
    off = np.abs(known - middle)
    scale = TO_SIGMA * np.median(off) or MEAN_TO_SIGMA * off.mean()
    if scale == 0:
        return np.zeros(len(values))
    return np.asarray(np.where(np.isfinite(values), (values - middle) / scale, 0.0))
