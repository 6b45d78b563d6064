"""Krippendorff's alpha: the closed form for ranks without ties, and a loop over all pairs."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from seewhy.trust.metrics.agreement import krippendorff_alpha


def slow_alpha(values: np.ndarray) -> float:
    ranks = [list(rankdata(row)) for row in values]
    observed = [
        (ranks[a][item] - ranks[b][item]) ** 2
        for a, b in combinations(range(len(ranks)), 2)
        for item in range(len(ranks[0]))
    ]
    flat = [rank for row in ranks for rank in row]
    expected = [(x - y) ** 2 for x, y in combinations(flat, 2)]
    return 1 - (sum(observed) / len(observed)) / (sum(expected) / len(expected))


@pytest.mark.parametrize("ties", [False, True])
def test_it_equals_a_loop(ties: bool) -> None:
    values = np.random.default_rng(0).normal(size=(7, 5)) + np.arange(5)
    values = values.round() if ties else values
    assert krippendorff_alpha(values) == pytest.approx(slow_alpha(values), abs=1e-12)


def test_its_closed_form_without_ties() -> None:
    """alpha = rho + (1 - rho) / (n J), with the mean rank correlation rho of all pairs of n images, for J candidates."""
    values = np.random.default_rng(1).normal(size=(6, 8)) + np.arange(8) / 2
    pairs = [spearmanr(values[a], values[b])[0] for a, b in combinations(range(6), 2)]
    rho = sum(pairs) / len(pairs)
    assert krippendorff_alpha(values) == pytest.approx(rho + (1 - rho) / (6 * 8), abs=1e-12)


def test_unrelated_orders_are_near_zero_and_equal_values_have_none() -> None:
    assert abs(krippendorff_alpha(np.random.default_rng(2).normal(size=(200, 6)))) < 0.03
    assert math.isnan(krippendorff_alpha(np.ones((4, 3))))
