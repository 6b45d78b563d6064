"""Metrics with shared masks on an additive model: drop of a subset = sum of r over the subset."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from seewhy.trust.metrics.shared_masks import (
    additive_ceiling,
    infidelity,
    sensitivity_n,
    single_deletion,
    subset_masks,
)

UNITS = 49
Array = NDArray[np.float64]


@pytest.fixture
def contributions() -> Array:
    return np.random.default_rng(0).normal(size=UNITS)


def slow_spearman(first: Array, second: Array) -> float:
    """Return the rank correlation, from ranks that are counted one by one."""

    def ranks(values: Array) -> list[float]:
        return [
            sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
            for value in values
        ]

    a, b = ranks(first), ranks(second)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    products = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    squares = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return products / squares**0.5


def test_single_deletion_is_the_rank_correlation(contributions: Array) -> None:
    random = np.random.default_rng(1).normal(size=UNITS).round(1)  # with ties
    maps = np.stack([contributions, -contributions, random])
    values = single_deletion(maps, contributions)
    np.testing.assert_allclose(values, [1, -1, slow_spearman(random, contributions)], atol=1e-12)


def test_rectifying_costs_single_deletion() -> None:
    """For 16 normal contributions, the positive part of the true map reaches 0.92 on average."""
    values = []
    for seed in range(300):
        contributions = np.random.default_rng(seed).normal(size=16)
        values.append(single_deletion(np.maximum(contributions, 0)[None], contributions)[0])
    assert np.mean(values) == pytest.approx(0.92, abs=0.01)


@pytest.mark.parametrize("covered", [1, 10, 48])
def test_sensitivity_n_of_the_contributions_is_one(contributions: Array, covered: int) -> None:
    masks = subset_masks(UNITS, covered, 40)
    assert masks.sum(1).tolist() == [covered] * 40
    drops = masks @ contributions
    values = sensitivity_n(np.stack([contributions, 3 * contributions + 7, -contributions]), drops, masks)
    np.testing.assert_allclose(values, [1, 1, -1], atol=1e-9)


def test_subsets_of_several_sizes_are_an_error(contributions: Array) -> None:
    masks = np.concatenate([subset_masks(UNITS, 3, 2), subset_masks(UNITS, 4, 2)])
    with pytest.raises(ValueError, match="one size"):
        sensitivity_n(contributions[None], masks @ contributions, masks)


def test_infidelity_is_the_error_of_the_best_scale(contributions: Array) -> None:
    masks = subset_masks(UNITS, 12, 60)
    drops = masks @ contributions
    other = np.random.default_rng(2).normal(size=UNITS) + 0.5 * contributions
    values = infidelity(np.stack([contributions, 5 * contributions, other]), drops, masks)
    scales = np.linspace(-3, 3, 600_001)
    predicted = masks @ other
    errors = ((scales**2) * (predicted**2).mean() - 2 * scales * (predicted * drops).mean() + (drops**2).mean()) / (
        drops**2
    ).mean()
    np.testing.assert_allclose(values, [0, 0, errors.min()], atol=1e-9)


def test_a_negative_scale_is_a_failure(contributions: Array) -> None:
    masks = subset_masks(UNITS, 12, 60)
    assert infidelity(-contributions[None], masks @ contributions, masks)[0] == pytest.approx(2)


def test_undefined_values_are_nan(contributions: Array) -> None:
    masks = subset_masks(UNITS, 12, 60)
    drops = masks @ contributions
    constant = np.ones((1, UNITS))
    assert np.isnan(single_deletion(constant, contributions)).all()
    assert np.isnan(sensitivity_n(constant, drops, masks)).all()
    assert np.isnan(infidelity(0 * constant, drops, masks)).all()
    assert np.isnan(sensitivity_n(contributions[None], 0 * drops, masks)).all()


def test_the_ceiling_is_high_for_an_additive_model_and_low_for_noise(contributions: Array) -> None:
    masks = subset_masks(UNITS, 16, 400)
    assert additive_ceiling(masks @ contributions, masks, ridge=0.01) > 0.9
    assert abs(additive_ceiling(np.random.default_rng(3).normal(size=400), masks)) < 0.25
