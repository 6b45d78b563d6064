"""Paired comparisons of candidates on the same images, with intervals that hold for all pairs at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.05
FLIPS = 4000


@dataclass(frozen=True)
class Difference:
    """The mean difference of two candidates over images.

    Attributes:
        first, second: Positions of the candidates; the difference is first minus second.
        mean: Mean difference.
        error: Its standard error.
        low, high: Interval that holds for all pairs at once with 95 %.
    """

    first: int
    second: int
    mean: float
    error: float
    low: float
    high: float

    def images_needed(self, images: int, margin: float) -> int:
        """Return with how many images the interval would be above 0 or within the margin, if the mean does not change.

        At least 1.5 times `images`, because the mean is uncertain; 0 if no number of images decides it.
        """
        distance = max(abs(self.mean), margin - abs(self.mean))
        if not distance > 0:
            return 0
        return math.ceil(images * max(1.5, ((self.high - self.mean) / distance) ** 2))


def compare_all(values: Array, *, flips: int = FLIPS, seed: int = 0) -> list[Difference]:
    """Compare all pairs of candidates.

    The intervals are mean +- q * standard error. If two candidates are equal, the sign of their difference in an image is
    random: q is the 95 % quantile of the largest |mean / error| over all pairs when the signs of the images are flipped at
    random. All pairs are flipped together, so the correlation of the pairs is accounted for.

    Args:
        values: `(candidates, images)`, at least two of each, without NaN.
        flips: Number of random sign flips.
        seed: Seed of the signs.

    Returns:
        One difference for each pair, first < second.

    Example:
        >>> values = np.array([[0.3, 0.4, 0.2, 0.5], [0.1, 0.2, 0.1, 0.2]])
        >>> round(compare_all(values)[0].mean, 3)
        0.2
    """
    pairs = list(combinations(range(len(values)), 2))
    differences = np.stack([values[first] - values[second] for first, second in pairs])
    means, errors = means_and_errors(differences)
    images = differences.shape[1]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(flips, images))
    flipped = signs @ differences.T / images  # (flips, pairs)
    squares = (differences**2).mean(1)
    deviations = np.sqrt(np.maximum(squares - flipped**2, 0) / (images - 1))
    ratios = np.where(deviations > 0, np.abs(flipped) / np.where(deviations > 0, deviations, 1), 0)
    quantile = float(np.quantile(ratios.max(1), 1 - LEVEL, method="higher"))
    return [
        Difference(*pair, float(mean), float(error), float(mean - quantile * error), float(mean + quantile * error))
        for pair, mean, error in zip(pairs, means, errors, strict=True)
    ]


def means_and_errors(rows: Array) -> tuple[Array, Array]:
    """Return the mean of each row, and its standard error."""
    return rows.mean(1), rows.std(1, ddof=1) / math.sqrt(rows.shape[1])


def mean_and_error(row: Array) -> tuple[float, float]:
    """Return the mean of a row, and its standard error."""
    (mean,), (error,) = means_and_errors(row[None])
    return float(mean), float(error)
