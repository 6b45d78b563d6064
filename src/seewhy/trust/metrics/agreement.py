"""Do images agree on an order of methods? Krippendorff's alpha, with images as raters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]


def krippendorff_alpha(values: Array) -> float:
    """Return how much the images agree on the order of the candidates.

    Each image ranks the candidates by their values; alpha compares the squared differences between the ranks that two images
    give to one candidate with those between all ranks.

    Args:
        values: `(images, candidates)`, at least two of each, without NaN.

    Returns:
        1 if all images have the same order, about 0 if their orders are unrelated; NaN if every image ranks all equally. A low
        value does not mean that the candidates are equal: it means that a single image does not show their order.

    Example:
        >>> krippendorff_alpha(np.array([[0.1, 0.2, 0.9], [1.0, 2.0, 3.0]]))
        1.0

    References:
        Krippendorff, "Content analysis", 2004; Tomsett et al., "Sanity checks for saliency metrics", AAAI 2020
    """
    ranks = rankdata(values, axis=1)
    images = len(ranks)
    observed = 2 * ranks.var(axis=0, ddof=1).mean()  # mean squared difference of two images on one candidate
    count = ranks.size
    expected = 2 * ranks.var() * count / (count - 1)  # of two different values among all
    return float(1 - observed / expected) if expected > 0 and images > 1 else float("nan")
