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
POWER = 8  # (1.96 + 0.84)^2: images for 80 % power are POWER * (deviation / difference)^2


@dataclass(frozen=True)
class Difference:
    """The mean difference of two candidates over images.

    Attributes:
        first, second: Positions of the candidates; the difference is first minus second.
        mean: Mean difference.
        error: Its standard error.
        low, high: Interval that holds for all pairs at once with 95 %.
        needed: Images with which a difference of `margin` would be found with 80 % power.
    """

    first: int
    second: int
    mean: float
    error: float
    low: float
    high: float
    needed: int

    def reversed(self) -> Difference:
        """Return second minus first."""
        return Difference(self.second, self.first, -self.mean, self.error, -self.high, -self.low, self.needed)


def compare_all(values: Array, margin: float, *, flips: int = FLIPS, seed: int = 0) -> list[Difference]:
    """Compare all pairs of candidates.

    The intervals are mean +- q * standard error. If two candidates are equal, the sign of their difference in an image is
    random: q is the 95 % quantile of the largest |mean / error| over all pairs when the signs of the images are flipped at
    random. All pairs are flipped together, so the correlation of the pairs is accounted for.

    Args:
        values: `(candidates, images)`, at least two of each.
        margin: A difference that would matter.
        flips: Number of random sign flips.
        seed: Seed of the signs.

    Returns:
        One difference for each pair, first < second.

    Example:
        >>> values = np.array([[0.3, 0.4, 0.2, 0.5], [0.1, 0.2, 0.1, 0.2]])
        >>> round(compare_all(values, 0.01)[0].mean, 3)
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
        Difference(
            *pair, float(mean), float(error), float(mean - quantile * error), float(mean + quantile * error),
            images_needed(float(error) * math.sqrt(images), margin),
        )
        for pair, mean, error in zip(pairs, means, errors, strict=True)
    ]  # fmt: skip


def means_and_errors(rows: Array) -> tuple[Array, Array]:
    """Return the mean of each row, and its standard error."""
    return rows.mean(1), rows.std(1, ddof=1) / math.sqrt(rows.shape[1])


def images_needed(deviation: float, margin: float) -> int:
    """Return with how many images a difference of `margin` would be found with 80 % power; 0 if that is not defined.

    >>> images_needed(0.2, 0.05)
    128
    """
    return math.ceil(POWER * (deviation / margin) ** 2) if margin > 0 else 0
