"""Numbers of a map alone, and of dimmed images, against loops and oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest

from seewhy.trust.metrics.dimming import Dimming
from seewhy.trust.metrics.map_metrics import (
    adcc,
    coherency,
    complexity,
    entropy,
    explained_fraction,
    histogram_entropy,
    sparseness,
)


def test_sparseness_is_the_gini_index() -> None:
    values = np.random.default_rng(0).normal(size=(5, 6))
    sizes = np.abs(values).ravel()
    expected = sum(abs(a - b) for a in sizes for b in sizes) / (2 * len(sizes) ** 2 * sizes.mean())
    assert sparseness(values) == pytest.approx(expected)
    assert sparseness(np.ones((4, 4))) == 0
    assert sparseness(np.eye(1, 100)) == pytest.approx(0.99)
    assert math.isnan(sparseness(np.zeros(4)))


def test_entropies() -> None:
    assert entropy(np.full((5, 5), -2.0)) == pytest.approx(math.log(25))
    assert entropy(np.eye(1, 9)) == 0
    assert math.isnan(entropy(np.zeros(4)))
    values = np.random.default_rng(1).random((8, 8))
    shuffled = np.random.default_rng(2).permutation(values.ravel()).reshape(8, 8)
    assert histogram_entropy(values) == histogram_entropy(shuffled) > 0
    assert histogram_entropy(np.zeros((8, 8))) == 0
    assert histogram_entropy(np.repeat([0.0, 1.0], 8)) == pytest.approx(math.log(2))


def test_a_map_of_ones() -> None:
    """It keeps the entire image: no drop, no gain, full complexity."""
    kept = Dimming(image=0.8, kept=0.8, removed=0.1)
    assert (kept.average_drop, kept.increase, kept.average_gain) == (0, 0, 0)
    assert complexity(np.ones((7, 7))) == 1
    assert adcc(1.0, 1.0, 0.0) == 0
    assert math.isnan(coherency(np.ones((7, 7)), np.ones((7, 7))))


def test_dimming() -> None:
    lower, higher = Dimming(0.8, 0.2, 0.4), Dimming(0.8, 0.9, 0.8)
    assert lower.average_drop == pytest.approx(0.75) and lower.average_gain == lower.increase == 0
    assert higher.average_drop == 0 and higher.average_gain == pytest.approx(0.5) and higher.increase == 1
    assert lower.drop_in_deletion == pytest.approx(0.5)
    assert math.isnan(Dimming(0, 0.1, 0).average_drop) and math.isnan(Dimming(1, 1, 1).average_gain)


def test_a_fixed_pattern_is_perfectly_coherent() -> None:
    """The trap of coherency: the map ignores the image."""
    pattern = np.random.default_rng(3).random((7, 7))
    assert coherency(pattern, pattern) == pytest.approx(1)
    assert coherency(pattern, 1 - pattern) == pytest.approx(0)


def test_adcc_is_a_harmonic_mean() -> None:
    assert adcc(0.5, 0.5, 0.5) == pytest.approx(0.5)
    assert adcc(0.9, 0.2, 0.4) == pytest.approx(3 / (1 / 0.9 + 1 / 0.8 + 1 / 0.6))
    assert math.isnan(adcc(math.nan, 0.2, 0.4))


def test_explained_fraction() -> None:
    assert explained_fraction(np.array([[1.0, 2.0], [-0.5, 0.5]]), 5.0, 2.0) == 1
    assert math.isnan(explained_fraction(np.ones(4), 1.0, 1.0))


def test_probabilities_that_are_not_finite_give_no_value() -> None:
    for dimmed in (Dimming(0.5, math.nan, math.nan), Dimming(math.nan, 0.2, 0.3)):
        for value in (dimmed.average_drop, dimmed.increase, dimmed.average_gain, dimmed.drop_in_deletion):
            assert math.isnan(value)
