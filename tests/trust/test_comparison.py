"""Paired comparisons: intervals, false preferences among equal candidates, and the rules of the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from seewhy.trust.candidates import Candidate, merge_equal
from seewhy.trust.choice import Finalist, judge
from seewhy.trust.comparison import compare_all, images_needed

Array = NDArray[np.float64]
NAMES = [Candidate(name, "layer") for name in ("a", "b", "c")]
COSTS = {name: (cost,) for name, cost in zip(NAMES, (3, 1, 2), strict=True)}


def correlated(random: np.random.Generator, images: int, candidates: int = 3) -> Array:
    """Return equally good candidates that are correlated over images, as maps of one model are."""
    return 0.3 * random.normal(size=images) + 0.2 * random.standard_t(4, size=(candidates, images))


def test_equal_candidates_are_rarely_different() -> None:
    """The intervals of all pairs exclude 0 together in at most 5 % of the samples."""
    random = np.random.default_rng(0)
    false = 0
    for seed in range(600):
        differences = compare_all(correlated(random, 30), 0.01, flips=500, seed=seed)
        false += any(one.low > 0 or one.high < 0 for one in differences)
    assert 0.02 < false / 600 < 0.08  # 3000 other samples: 0.049


def test_a_clear_difference_is_found_and_its_interval_contains_the_truth() -> None:
    random = np.random.default_rng(1)
    found = covered = 0
    for seed in range(100):
        values = correlated(random, 40)
        values[0] += 0.25
        first = compare_all(values, 0.01, flips=500, seed=seed)[0]
        found += first.low > 0
        covered += first.low <= 0.25 <= first.high
    assert found > 85 and covered > 93


def test_means_and_errors_are_those_of_the_differences() -> None:
    values = np.random.default_rng(2).normal(size=(2, 11))
    (only,) = compare_all(values, 0.1)
    difference = values[0] - values[1]
    assert only.mean == pytest.approx(difference.mean())
    assert only.error == pytest.approx(difference.std(ddof=1) / 11**0.5)
    assert only.low < only.mean < only.high
    assert only.needed == images_needed(float(difference.std(ddof=1)), 0.1)


def finalists(*rows: Array) -> list[Finalist]:
    return [Finalist(name, (name,), row, 0.0) for name, row in zip(NAMES, rows, strict=False)]


def verdict_of(*rows: Array, margin: float = 0.05) -> tuple[Candidate, str, str]:
    found = finalists(*rows)
    ahead = [one for one in compare_all(np.stack(rows), margin) if one.first == 0]
    return judge(found, ahead, margin, COSTS)


def test_the_verdicts() -> None:
    noise = np.random.default_rng(3).normal(size=(3, 40))
    image = noise[0]
    close = image + 0.01 * noise[1]
    assert verdict_of(image + 1 + 0.1 * noise[1], image)[:2] == (NAMES[0], "better")
    assert verdict_of(image, close)[:2] == (NAMES[1], "no difference")  # b is the cheaper one
    assert verdict_of(image, close, image - 1)[:2] == (NAMES[1], "no difference")  # c is clearly worse
    assert verdict_of(image, image + noise[1])[:2] == (NAMES[0], "not enough images")
    assert judge(finalists(image), [], 0.05, COSTS)[1] == "equal maps"


def test_a_certain_difference_that_does_not_matter_is_no_preference() -> None:
    image = np.random.default_rng(4).normal(size=40)
    candidate, verdict, reason = verdict_of(image + 0.001, image)
    assert (candidate, verdict) == (NAMES[1], "no difference")
    assert "less than 0.050" in reason


def test_the_number_of_images_is_stated_if_more_could_decide() -> None:
    noise = np.random.default_rng(5).normal(size=(2, 40))
    assert "images are needed to decide" in verdict_of(noise[0], noise[0] + 0.5 * noise[1])[2]
    assert "hardly decide" in verdict_of(noise[0], noise[0] + noise[1], margin=1e-4)[2]
    assert "hardly decide" in verdict_of(noise[0], noise[0] + noise[1], margin=0.0)[2]


def test_maps_that_differ_in_one_image_are_not_merged() -> None:
    random = np.random.default_rng(6)
    images = [random.normal(size=16) for _ in range(3)]
    other = [*images[:2], images[2] + 0.1 * random.normal(size=16)]
    groups = merge_equal({
        NAMES[0]: images, NAMES[1]: [2.5 * one for one in images], NAMES[2]: other,
        Candidate("d", "layer"): [-one for one in images],
    })  # fmt: skip
    assert groups == {
        NAMES[0]: (NAMES[0], NAMES[1]), NAMES[2]: (NAMES[2],), Candidate("d", "layer"): (Candidate("d", "layer"),)
    }  # fmt: skip
