"""Numbers of a map alone, without further forward passes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sparseness(values: Array) -> float:
    """Return the Gini index of the absolute values of a map: 0 if all are equal, near 1 if one cell has everything.

    Won by maps without information, such as a single pixel. NaN for an all-zero map.

    References:
        Chalasani et al., "Concise explanations of neural networks", ICML 2020
    """
    ordered = np.sort(np.abs(values).ravel())
    total, count = ordered.sum(), len(ordered)
    if not total > 0:
        return math.nan
    return float(((2 * np.arange(1, count + 1) - count - 1) * ordered).sum() / (count * total))


def complexity(heatmap: Array) -> float:
    """Return the mean of a heatmap in [0, 1]: the fraction of the image that it marks; lower is called simpler.

    References:
        Poppi et al., "Revisiting the evaluation of class activation mapping", CVPR Workshops 2021
    """
    return float(heatmap.mean())


def entropy(values: Array) -> float:
    """Return the entropy of the absolute values of a map, in nats: 0 for a single cell, log(cells) for a uniform map.

    NaN for an all-zero map.

    References:
        Bhatt, Weller, Moura, "Evaluating and aggregating feature-based model explanations", IJCAI 2020
    """
    sizes = np.abs(values).ravel()
    total = sizes.sum()
    if not total > 0:
        return math.nan
    parts = sizes[sizes > 0] / total
    return float(-(parts * np.log(parts)).sum())


def histogram_entropy(values: Array, bins: int = 100) -> float:
    """Return the entropy of the histogram of a map's values, in nats; 0 for a constant map. It ignores positions."""
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return 0.0
    counts = np.histogram(values, bins=bins, range=(low, high))[0]
    parts = counts[counts > 0] / counts.sum()
    return float(-(parts * np.log(parts)).sum())


def explained_fraction(values: Array, score: float, reference: float = 0.0) -> float:
    """Return the sum of a signed map divided by the score minus its reference; 1 if the map accounts for the score.

    Args:
        values: The signed map, in the units of a method whose values add up to the score.
        score: The score of the image.
        reference: The score with the layer set to zero.

    Returns:
        Any real number; NaN if the score equals its reference.
    """
    difference = score - reference
    return float(values.sum() / difference) if difference else math.nan


def coherency(heatmap: Array, again: Array) -> float:
    """Return (r + 1) / 2, with Pearson's r of a heatmap and that of the image multiplied by it; higher is better.

    It measures whether a map repeats itself: a fixed pattern that ignores the image has the best value. NaN if one of them is
    constant.
    """
    first, second = (one.ravel() - one.mean() for one in (heatmap, again))
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return (float(first @ second) / lengths + 1) / 2 if lengths > 0 else math.nan


def adcc(coherency: float, complexity: float, average_drop: float) -> float:
    """Return the harmonic mean of coherency, 1 - complexity and 1 - average drop; 0 if one of them is 0.

    References:
        Poppi et al., "Revisiting the evaluation of class activation mapping", CVPR Workshops 2021
    """
    parts = (coherency, 1 - complexity, 1 - average_drop)
    if any(math.isnan(part) for part in parts):
        return math.nan
    return 3 / sum(1 / part for part in parts) if min(parts) > 0 else 0.0
