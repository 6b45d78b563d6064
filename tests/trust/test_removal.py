"""Removal tests on an additive model, f(x without S) = f(x) - sum of r over S, in which all of them have closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.explanation.curves import RemovalCurve, RemovalCurves
from seewhy.trust.metrics.removal import block_ends, random_curve, removal_counts, removal_curves
from seewhy.trust.metrics.removal_metrics import deletion, insertion, mas, road, srg

SIDE = 7
UNITS = SIDE * SIDE
Array = NDArray[np.float64]


class Additive:
    """An image whose pixels are the contributions of the units; covered ones are 0. Counts forward passes."""

    def __init__(self, contributions: Array) -> None:
        self.image = torch.from_numpy(contributions.reshape(1, SIDE, SIDE))
        self.passes = 0

    def fill(self, covered: Tensor) -> Tensor:
        return self.image * (1 - covered[:, None])

    def score(self, count: int, build: Callable[[slice], Tensor]) -> Tensor:
        self.passes += count
        parts = [build(slice(start, start + 5)).sum((1, 2, 3)) for start in range(0, count, 5)]
        return torch.cat(parts)

    def curves(self, values: Array, steps: int = UNITS) -> RemovalCurves:
        return removal_curves(self.score, self.fill, values, grid=(SIDE, SIDE), size=(SIDE, SIDE), steps=steps)


@pytest.fixture
def contributions() -> Array:
    return np.random.default_rng(0).gamma(1.0, size=UNITS)


def slow_area(contributions: Array, values: Array, *, most_first: bool) -> float:
    """Return the area under the curve of one order without ties, unit by unit."""
    order = sorted(range(len(values)), key=lambda unit: -values[unit] if most_first else values[unit])
    score, total = sum(contributions), 0.0
    for unit in order:
        after = score - contributions[unit]
        total += (score + after) / 2 / len(values)
        score = after
    return total


def test_areas_equal_those_of_a_loop(contributions: Array) -> None:
    values = np.random.default_rng(1).normal(size=UNITS)
    curves = Additive(contributions).curves(values)
    assert deletion(curves) == pytest.approx(slow_area(contributions, values, most_first=True), abs=1e-9)
    assert insertion(curves) == pytest.approx(slow_area(contributions, values, most_first=False), abs=1e-9)


def test_scores_follow_from_the_largest_contributions(contributions: Array) -> None:
    curve = Additive(contributions).curves(contributions, steps=10).most_first
    largest = np.sort(contributions)[::-1]
    counts = np.round(curve.fractions * UNITS).astype(int)
    expected = [contributions.sum() - largest[:count].sum() for count in counts]
    np.testing.assert_allclose(curve.scores, expected, atol=1e-9)
    assert len(counts) == 11


def test_srg_has_a_closed_form(contributions: Array) -> None:
    values = np.random.default_rng(2).normal(size=UNITS)
    ranked = contributions[np.argsort(-values)]
    expected = sum(r * (UNITS + 1 - 2 * j) / UNITS for j, r in enumerate(ranked, 1))
    assert srg(Additive(contributions).curves(values)) == pytest.approx(expected, abs=1e-9)


def test_srg_of_the_best_order_is_the_gini_index(contributions: Array) -> None:
    gini = np.abs(contributions[:, None] - contributions).sum() / (2 * UNITS**2 * contributions.mean())
    best = srg(Additive(contributions).curves(contributions))
    assert best == pytest.approx(gini * contributions.sum(), abs=1e-9)


def test_srg_changes_its_sign_with_the_map_and_is_zero_for_a_constant_one(contributions: Array) -> None:
    values = np.random.default_rng(3).normal(size=UNITS)
    model = Additive(contributions)
    assert srg(model.curves(-values, 10)) == pytest.approx(-srg(model.curves(values, 10)), abs=1e-9)
    assert srg(model.curves(np.full(UNITS, 0.3), 10)) == 0


def test_srg_of_random_orders_has_mean_zero_and_the_known_deviation(contributions: Array) -> None:
    random = np.random.default_rng(4)
    values = [srg(Additive(contributions).curves(random.normal(size=UNITS))) for _ in range(400)]
    deviation = contributions.std(ddof=1) * math.sqrt((UNITS**2 - 1) / (3 * UNITS))
    assert abs(np.mean(values)) < 4 * deviation / 20
    assert np.std(values) == pytest.approx(deviation, rel=0.15)


def test_equal_units_are_removed_together(contributions: Array) -> None:
    """A rectified map consists largely of zeros: their positions must not decide their order."""
    values = np.maximum(np.random.default_rng(5).normal(size=UNITS), 0)
    places = np.random.default_rng(6).permutation(UNITS)
    here = Additive(contributions).curves(values, 10)
    elsewhere = Additive(contributions[places]).curves(values[places], 10)
    np.testing.assert_allclose(here.most_first.scores, elsewhere.most_first.scores, atol=1e-9)
    np.testing.assert_allclose(here.least_first.scores, elsewhere.least_first.scores, atol=1e-9)
    zeros = (values == 0).sum()
    before = (UNITS - zeros) / UNITS  # the end of the last block before the zeros
    assert before in here.most_first.fractions
    assert not any(before < fraction < 1 for fraction in here.most_first.fractions)


def test_counts_replace_fractions_inside_a_block_by_its_ends() -> None:
    values = np.array([5.0, 4.0, 4.0, 4.0, 4.0, 1.0])
    assert block_ends(values).tolist() == [1, 5, 6]
    assert removal_counts(values, 2).tolist() == [0, 1, 5, 6]
    assert removal_counts(np.arange(6.0), 3).tolist() == [0, 2, 4, 6]


def test_the_number_of_forward_passes(contributions: Array) -> None:
    model = Additive(contributions)
    model.curves(np.random.default_rng(7).normal(size=UNITS), steps=10)
    assert model.passes == 2 * 9 + 2
    ends = (float(contributions.sum()), 0.0)
    again = Additive(contributions)
    known = removal_curves(
        again.score, again.fill, contributions, grid=(SIDE, SIDE), size=(SIDE, SIDE), steps=10, ends=ends
    )
    assert again.passes == 18
    assert srg(known) == pytest.approx(srg(model.curves(contributions, 10)), abs=1e-9)


def test_road_is_half_of_the_mean_difference_at_nine_fractions() -> None:
    random = np.random.default_rng(8)
    fractions = np.linspace(0, 1, 11)
    most, least = random.normal(size=11), random.normal(size=11)
    curves = RemovalCurves(RemovalCurve(fractions, most, fractions), RemovalCurve(fractions, least, fractions))
    assert road(curves) == pytest.approx(sum(least[1:-1] - most[1:-1]) / 9 / 2)


def test_mas_of_the_contributions_is_the_normalized_difference(contributions: Array) -> None:
    """The map accounts for the score at each step, so nothing is corrected."""
    curves = Additive(contributions).curves(contributions)
    total = contributions.sum()
    assert mas(curves) == pytest.approx((insertion(curves) - deletion(curves)) / total, abs=1e-9)


@pytest.mark.parametrize("transform", [lambda r: r**3, np.sqrt], ids=["cube", "root"])
def test_mas_is_lower_for_other_magnitudes_in_the_same_order(
    contributions: Array, transform: Callable[[Array], Array]
) -> None:
    model = Additive(contributions)
    changed = model.curves(transform(contributions))
    assert srg(changed) == pytest.approx(srg(model.curves(contributions)), abs=1e-9)
    assert mas(changed) < mas(model.curves(contributions)) - 0.02


def test_mas_of_a_nearly_constant_map_is_zero(contributions: Array) -> None:
    values = 1 + 1e-9 * contributions
    assert mas(Additive(contributions).curves(values)) == pytest.approx(0, abs=0.02)


def test_mas_is_undefined_without_positive_values_or_drop(contributions: Array) -> None:
    assert math.isnan(mas(Additive(contributions).curves(-contributions)))
    assert math.isnan(mas(Additive(-contributions).curves(contributions)))


def test_the_curve_of_random_orders_is_a_line(contributions: Array) -> None:
    model = Additive(np.ones(UNITS))
    curve = random_curve(model.score, model.fill, grid=(SIDE, SIDE), size=(SIDE, SIDE))
    np.testing.assert_allclose(curve.scores, UNITS * (1 - curve.fractions), atol=1e-9)
