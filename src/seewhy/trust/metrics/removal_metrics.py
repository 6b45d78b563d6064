"""Deletion, insertion, SRG, MAS and ROAD, read from the curves of one removal test.

In the additive model f(x without S) = f(x) - sum of r_i over S, all of them have closed forms, which the tests compute.
"""

from __future__ import annotations

import math

import numpy as np

from seewhy.explanation.curves import Array, RemovalCurve, RemovalCurves, area

ROAD_STEPS = 10


def deletion(curves: RemovalCurves) -> float:
    """Return the area under the score while the units with the largest values are covered first; lower is better.

    References:
        Petsiuk et al., "RISE", BMVC 2018
    """
    return curves.most_first.area


def insertion(curves: RemovalCurves) -> float:
    """Return the area under the score while the units with the largest values are revealed first; higher is better.

    The image starts fully covered by the same filler, so this is the area under the curve of the reverse order.

    References:
        Petsiuk et al., "RISE", BMVC 2018
    """
    return curves.least_first.area


def srg(curves: RemovalCurves) -> float:
    """Return the symmetric relevance gain: the area between both curves. Higher is better; 0 for a random order.

    It is in [-1, 1] if the score is a probability, and changes its sign with the map.

    References:
        Bluecher, Vielhaben, Strodthoff, "Decoupling pixel flipping and occlusion strategy", TMLR 2024
    """
    return curves.least_first.area - curves.most_first.area


def road(curves: RemovalCurves) -> float:
    """Return half of the mean difference of both curves at 10, 20, ... 90 % of the units; higher is better.

    With the filler `LinearImputation` and a score, this is the combined score of ROAD. It rises if a map is blurred, although
    blurring adds no information: compare maps of equal smoothness only.

    References:
        Rong et al., "A consistent and efficient evaluation strategy", ICML 2022; Song et al., 2023, arXiv:2304.13836
    """
    at = np.arange(1, ROAD_STEPS) / ROAD_STEPS
    return float((curves.least_first.at(at) - curves.most_first.at(at)).mean() / 2)


def mas(curves: RemovalCurves) -> float:
    """Return the magnitude-aligned score: insertion minus deletion, each corrected for the values of the map.

    Each curve is scaled to [0, 1] between the fully covered image and the image, and made monotone. Its distance from the
    fraction of the map's positive values that is present is subtracted (insertion) or added (deletion). NaN if the map has no
    positive values, or if covering the entire image does not lower the score.

    References:
        Walker et al., "Metric-driven attributions", IJCAI 2024
    """
    deleted = aligned(curves.most_first, is_deletion=True)
    inserted = aligned(curves.least_first, is_deletion=False)
    return inserted - deleted


def aligned(curve: RemovalCurve, *, is_deletion: bool) -> float:
    """Return the area of one curve of MAS."""
    drop = curve.scores[0] - curve.scores[-1]
    if not drop > 0 or not np.isfinite(curve.mass).all():
        return math.nan
    response = np.clip((curve.scores - curve.scores[-1]) / drop, 0, 1)
    # Insertion starts at the covered image, so its curve is made monotone from there.
    response = np.minimum.accumulate(response) if is_deletion else np.maximum.accumulate(response[::-1])[::-1]
    distance = np.abs(response - curve.mass)
    values = response + distance if is_deletion else response - distance
    return area(rescaled(np.clip(values, 0, 1)), curve.fractions)


def rescaled(values: Array) -> Array:
    """Scale values linearly to [0, 1]; 0.5 where they are constant."""
    low, high = values.min(), values.max()
    return np.full_like(values, 0.5) if high == low else (values - low) / (high - low)
