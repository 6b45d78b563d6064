"""From the drops of a score under the masks to correlations, p-values and verdicts of maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seewhy.explanation.checks import LEVEL, MapCheck
from seewhy.explanation.windows import MASKS, SMALL, normalized
from seewhy.trust.map_checks.copies import covered_sums

Array = NDArray[np.float64]

LEAST = 0.2  # correlation of a confirmed map: a smaller one is no evidence, even if the copies have less
QUANTILE = 1.96  # of the normal distribution, for 95 %


def check_maps(maps: Tensor, drops: Array) -> list[MapCheck]:
    """Return the check of each map of one image and one target.

    Args:
        maps: Maps of one grid, `(n, height, width)`, that are finite, not constant and have positive values. Negative values
            count as 0, as in a heatmap.
        drops: By how much each mask of `window_masks` lowers the score, `(27,)`.
    """
    own, copies = covered_sums(maps.clamp(min=0))
    effects = correlation(own, drops)
    others = correlation(copies, drops)
    p_values = (1 + (others >= effects[:, None] - SMALL).sum(1)) / (1 + others.shape[1])
    return [judge(float(r), float(p)) for r, p in zip(effects, p_values, strict=True)]


def correlation(sums: Array, drops: Array) -> Array:
    """Return Pearson's correlation of `sums` `(..., 27)` with `drops` `(27,)`, averaged over the modes, `(...)`."""
    values: Array = (normalized(sums) * normalized(drops)).sum(-1).mean(-1)
    return np.clip(values, -1, 1)  # rounding


def interval(r: float, masks: int = MASKS) -> tuple[float, float]:
    """Return the interval of a correlation by Fisher's z, with the number of masks as sample size.

    It contains the correlation that more windows of the same kind would give in 98 % of the images (83 photos, EfficientNet-
    Lite0). It does not test whether a map is related to the image: the masks overlap, so `p` is needed for that.

    >>> [round(limit, 2) for limit in interval(0.57)]
    [0.24, 0.78]
    """
    z, half = np.arctanh(np.clip(r, -0.9999, 0.9999)), QUANTILE / np.sqrt(masks - 3)
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def judge(r: float, p: float) -> MapCheck:
    """Return the verdict of a correlation and its p-value."""
    low, high = interval(r)
    if r >= LEAST and p <= LEVEL:
        return MapCheck("confirmed", r, low, high, p)
    if low > 0:
        return MapCheck("not specific", r, low, high, p)
    if high < 0 and p >= 1 - LEVEL:
        return MapCheck("contradicted", r, low, high, p)
    return MapCheck("inconclusive", r, low, high, p)


def why_no_drops(drops: Sequence[float] | Array) -> str:
    """Return why the drops of a score cannot be compared with any map; "" if they can."""
    values = np.asarray(drops)
    if not np.isfinite(values).all():
        return "the score is not a finite number when parts of the image are covered"
    if not np.abs(normalized(values)).max() > 0:
        return "the score does not change when parts of the image are covered"
    return ""
