"""Images whose map differs from those of the other images, by each statistic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.statistics import Float64Array

Indices = NDArray[np.intp]

THRESHOLD = 3.5  # robust standard deviations, the usual bound (Iglewicz and Hoaglin, 1993)
MEDIAN_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation, for a normal distribution
MEAN_TO_SIGMA = 1.2533  # mean absolute deviation to standard deviation
HIGH_ONLY = ("border", "corner")  # little evidence at the border is the normal case
EDGE = "edge"  # the larger deviation of border and corner


@dataclass(frozen=True, eq=False)
class Outliers:
    """The images farthest from the median by one statistic, farthest first; ties by index.

    `scores` are the deviations in robust standard deviations, negative below the median. `count` is the number of all images
    beyond 3.5. Every dataset has some: this is a list of images to look at, not a warning.
    """

    statistic: str
    indices: Indices
    scores: Float64Array
    count: int


def find_outliers(statistics: Mapping[str, Float64Array], limit: int = 30) -> dict[str, Outliers]:
    """Return at most `limit` outliers for each statistic (N,), and for "edge" if "border" and "corner" are among them.

    The median is over all images, not per class: if a watermark determines half of a class, it is normal in that class. NaN (no
    evidence) is never an outlier. For border, corner and edge, only high values count.

    >>> outliers = find_outliers({"corner": np.array([0.05, 0.06, 0.9, 0.07, 0.05])}, limit=2)["corner"]
    >>> outliers.indices.tolist(), outliers.count
    ([2, 3], 1)
    """
    scores = {name: robust_scores(values) for name, values in statistics.items()}
    strengths = {name: score if name in HIGH_ONLY else np.abs(score) for name, score in scores.items()}
    if all(name in scores for name in HIGH_ONLY):
        scores[EDGE] = strengths[EDGE] = np.maximum(*(scores[name] for name in HIGH_ONLY))
    return {name: rank_outliers(name, scores[name], strengths[name], limit) for name in scores}


def rank_outliers(name: str, scores: Float64Array, strengths: Float64Array, limit: int) -> Outliers:
    ranked = np.argsort(-strengths, kind="stable")[:limit]
    kept = ranked[strengths[ranked] > 0]
    return Outliers(name, kept, scores[kept], int((strengths > THRESHOLD).sum()))


def robust_scores(values: Float64Array) -> Float64Array:
    """Return deviations from the median (N,) in robust standard deviations; 0 for NaN.

    The scale is the median absolute deviation. It is 0 if more than half of the values are equal; the mean absolute deviation
    replaces it then.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(len(values))
    median = np.median(finite)
    deviations = np.abs(finite - median)
    scale = MEDIAN_TO_SIGMA * np.median(deviations) or MEAN_TO_SIGMA * deviations.mean()
    if scale == 0:
        return np.zeros(len(values))
    return np.asarray(np.where(np.isfinite(values), (values - median) / scale, 0.0))
