"""Metrics whose masked forward passes do not depend on the map: one set of masks serves all maps of an image.

All functions take the sums of maps in units, `(maps, units)`, or under masks, `(maps, masks)`, and the drops of the score
that the masks caused, `(masks,)`; they return one value for each map. A value that is not defined is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from seewhy.explanation.curves import Array
from seewhy.trust.fillers import Fill
from seewhy.trust.metrics.removal import Score, score_masks

SUBSETS = 32  # random subsets of one size


def single_masks(units: int) -> NDArray[np.bool_]:
    """Return masks that cover one unit each, `(units, units)`."""
    return np.eye(units, dtype=bool)


def subset_masks(units: int, covered: int, count: int = SUBSETS, seed: int = 0) -> NDArray[np.bool_]:
    """Return `count` masks `(count, units)` that cover `covered` random units each."""
    random = np.random.default_rng(seed)
    return np.stack([random.permutation(units) < covered for _ in range(count)])


def score_drops(
    score: Score, fill: Fill, covered: NDArray[np.bool_], grid: Sequence[int], size: Sequence[int]
) -> Array:
    """Return by how much the score drops if the units of each mask `(masks, units)` are covered, `(masks,)`."""
    scores = score_masks(score, fill, np.concatenate([np.zeros((1, covered.shape[1]), bool), covered]), grid, size)
    drops: Array = scores[0] - scores[1:]
    return drops


def single_deletion(sums: Array, drops: Array) -> Array:
    """Return the rank correlation of the map with the drops for single units; higher is better.

    For each map, Spearman's correlation over the units between the sum of the signed map in a unit and the drop of the score if
    only this unit is covered. The standard deviation of a random map is 1 / sqrt(units - 1). Redundant evidence has no drop.

    Args:
        sums: `(maps, units)`.
        drops: `(units,)`, for `single_masks`.

    Returns:
        `(maps,)`, in [-1, 1]. NaN for a constant map or constant drops.

    References:
        Hesse et al., "Benchmarking the attribution quality of vision models", NeurIPS 2024
    """
    return correlations(rankdata(sums, axis=1), rankdata(drops))


def sensitivity_n(sums: Array, drops: Array, covered: NDArray[np.bool_]) -> Array:
    """Return the correlation of the sum of the map in a subset of units with the drop if it is covered; higher is better.

    All subsets have the same size: otherwise a constant map would correlate too. It does not change if a map is multiplied by a
    positive number, or if a number is added to it.

    Args:
        sums: `(maps, units)`.
        drops: `(masks,)`.
        covered: The subsets, `(masks, units)`.

    Returns:
        `(maps,)`, in [-1, 1]. NaN for a constant map or constant drops.

    Raises:
        ValueError: The subsets have several sizes.

    References:
        Ancona et al., "Towards better understanding of gradient-based attribution methods", ICLR 2018
    """
    if len(set(covered.sum(1).tolist())) != 1:
        raise ValueError("sensitivity-n needs subsets of one size.")
    return correlations(sums @ covered.T, drops)


def infidelity(sums: Array, drops: Array, covered: NDArray[np.bool_]) -> Array:
    """Return the fraction of the drops that the map does not explain with its best scale; lower is better.

    It is min over b of E[(b I.phi - D)^2] / E[D^2] = 1 - r^2, with the uncentered correlation r. If the best scale is negative,
    the map predicts the opposite of the drops, and the square would hide it: the value is 1 + r^2 then.

    Args:
        sums: `(maps, units)`.
        drops: `(masks,)`.
        covered: The subsets, `(masks, units)`.

    Returns:
        `(maps,)`, in [0, 2]; 1 for a map without relation. NaN for an all-zero map or drops of zero.

    References:
        Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019
    """
    predicted = sums @ covered.T
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (predicted @ drops) / (np.linalg.norm(predicted, axis=1) * np.linalg.norm(drops))
    values: Array = 1 - np.sign(r) * r**2
    return values


def additive_ceiling(drops: Array, covered: NDArray[np.bool_], *, ridge: float = 1.0) -> float:
    """Return the highest sensitivity-n that a map could reach, estimated on masks that were not used for fitting.

    A map is fitted to the drops of half of the masks and tested on the other half, both ways, and the mean is returned.

    Args:
        drops: `(masks,)`.
        covered: The subsets, `(masks, units)`.
        ridge: Penalty of the fit, in units of the mean square of a column.
    """
    halves = np.arange(len(drops)) % 2 == 0
    found = []
    for fitted in (halves, ~halves):
        x = covered[fitted] - covered[fitted].mean(0)
        y = drops[fitted] - drops[fitted].mean()
        penalty = ridge * (x**2).mean() * len(x)
        best = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
        found.append(correlations(best[None] @ covered[~fitted].T, drops[~fitted])[0])
    return float(np.mean(found))


def correlations(rows: Array, column: Array) -> Array:
    """Return Pearson's correlation of each row `(n, k)` with `column` `(k,)`; NaN where one of them is constant."""
    rows = rows - rows.mean(1, keepdims=True)
    column = column - column.mean()
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(column)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: Array = np.where(lengths > 0, rows @ column / lengths, np.nan)
    return values
