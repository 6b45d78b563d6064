"""Paired comparisons: intervals, false preferences among equal candidates, and the rules of the verdict."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from seewhy.trust.choices.candidates import Candidate, merge_equal
from seewhy.trust.choices.choice_rules import Finalist, apply_witnesses, judge
from seewhy.trust.choices.comparison import compare_all

Array = NDArray[np.float64]
NAMES = [Candidate(name, "layer") for name in ("a", "b", "c")]


def correlated(random: np.random.Generator, images: int, candidates: int = 3) -> Array:
    """Return equally good candidates that are correlated over images, as maps of one model are."""
    return 0.3 * random.normal(size=images) + 0.2 * random.standard_t(4, size=(candidates, images))


def test_equal_candidates_are_rarely_different() -> None:
    """The intervals of all pairs exclude 0 together in at most 5 % of the samples."""
    random = np.random.default_rng(0)
    false = 0
    for seed in range(600):
        differences = compare_all(correlated(random, 30), flips=500, seed=seed)
        false += any(one.low > 0 or one.high < 0 for one in differences)
    assert 0.02 < false / 600 < 0.08  # 3000 other samples: 0.049


def test_a_clear_difference_is_found_and_its_interval_contains_the_truth() -> None:
    random = np.random.default_rng(1)
    found = covered = 0
    for seed in range(100):
        values = correlated(random, 40)
        values[0] += 0.25
        first = compare_all(values, flips=500, seed=seed)[0]
        found += first.low > 0
        covered += first.low <= 0.25 <= first.high
    assert found > 85 and covered > 93


def test_means_and_errors_are_those_of_the_differences() -> None:
    values = np.random.default_rng(2).normal(size=(2, 11))
    (only,) = compare_all(values)
    difference = values[0] - values[1]
    assert only.mean == pytest.approx(difference.mean())
    assert only.error == pytest.approx(difference.std(ddof=1) / 11**0.5)
    assert only.low < only.mean < only.high


def finalists(*rows: Array) -> list[Finalist]:
    costs = [(3, 0, 0), (1, 0, 0), (2, 0, 0)]
    return [Finalist(name, (name,), row, 0.0, cost) for name, row, cost in zip(NAMES, rows, costs, strict=False)]


def verdict_of(*rows: Array, probability: float | None = None) -> tuple[Candidate, str, str]:
    found = judge(finalists(*rows), compare_all(np.stack(rows)), probability)
    return found.recommended.candidate, found.verdict, found.reason


def test_the_verdicts() -> None:
    noise = 0.1 * np.random.default_rng(3).normal(size=(3, 40))
    image = 0.5 + noise[0]
    close = image - 0.002 + 0.02 * noise[1]
    assert verdict_of(image + 0.2 + 0.1 * noise[1], image)[:2] == (NAMES[0], "better")
    assert verdict_of(image, close)[:2] == (NAMES[1], "no difference")  # b is the cheaper one
    assert verdict_of(image, close, image - 0.3)[:2] == (NAMES[1], "no difference")  # c is clearly worse
    assert verdict_of(image, image - 0.01 + 3 * (noise[1] - noise[1].mean()))[:2] == (NAMES[0], "not enough images")
    assert judge(finalists(image), [], None).verdict == "equal maps"


def test_a_certain_difference_that_does_not_matter_is_no_preference() -> None:
    image = 0.5 + 0.1 * np.random.default_rng(4).normal(size=40)
    candidate, verdict, reason = verdict_of(image + 0.001, image)
    assert (candidate, verdict) == (NAMES[1], "no difference")
    assert "it needs fewer forward passes" in reason


def test_the_numbers_are_those_of_the_recommended_pair() -> None:
    image = 0.5 + 0.01 * np.random.default_rng(5).normal(size=40)
    found = judge(
        [
            Finalist(name, (name,), row, 0.0, (0, cells, 0))
            for name, row, cells in zip(NAMES, (image, image - 0.001, image - 0.02), (-1, -2, -3), strict=True)
        ],
        compare_all(np.stack([image, image - 0.001, image - 0.02])), None,
    )  # fmt: skip
    assert found.recommended.candidate == NAMES[2] and "0.020 (" in found.reason and "finer grid" in found.reason


def test_low_probabilities_are_compared_like_others() -> None:
    """SRG cannot exceed the probability: the margin is relative to it."""
    noise = 0.002 * np.random.default_rng(6).normal(size=(2, 50))
    assert verdict_of(0.009 + noise[0], 0.001 + noise[1], probability=0.02)[:2] == (NAMES[0], "better")
    assert verdict_of(0.0002 + noise[0] / 50, noise[1] / 50, probability=0.5)[1] == "no effect"


@pytest.mark.parametrize("seed", range(5))
def test_more_images_are_needed_than_were_used(seed: int) -> None:
    noise = 0.2 * np.random.default_rng(seed).normal(size=(2, 40))
    rows = [0.5 + noise[0], 0.48 + noise[1] - noise[1].mean() + noise[0].mean()]
    found = verdict_of(*rows)
    assert found[1] == "not enough images"
    number = re.search(r"About ([\d,]+) images in total", found[2])
    assert number is None or int(number[1].replace(",", "")) >= 120
    (difference,) = compare_all(np.stack(rows))
    assert difference.images_needed(40, 0.05) >= 60


def test_witnesses_can_change_the_verdict() -> None:
    noise = 0.1 * np.random.default_rng(7).normal(size=(2, 40))
    image = 0.5 + noise[0]
    rows = finalists(image + 0.2 + 0.1 * noise[1], image)
    better = judge(rows, compare_all(np.stack([one.values for one in rows])), None)
    against = {"other": np.stack([image, image + 0.2])}
    changed, notes = apply_witnesses(better, rows[0], against)
    assert changed.verdict == "metrics disagree" and changed.recommended is rows[0] and "disagrees" in notes[0]
    same, notes = apply_witnesses(better, rows[0], {"other": np.stack([image, image + 0.001])})
    assert same is better and "does not decide" in notes[0]

    rows = finalists(image, image - 0.001)
    equal = judge(rows, compare_all(np.stack([one.values for one in rows])), None)
    assert equal.recommended is rows[1]
    changed, _ = apply_witnesses(equal, rows[0], {"other": np.stack([image + 0.2, image])})
    assert changed.recommended is rows[0] and changed.verdict == "no difference"
    same, _ = apply_witnesses(equal, rows[0], {"other": np.stack([image, image + 0.2])})
    assert same.recommended is rows[1]


def test_maps_that_differ_in_one_image_are_not_merged() -> None:
    random = np.random.default_rng(6)
    images = {number: random.normal(size=16) for number in range(3)}
    other = {**images, 2: images[2] + 0.1 * random.normal(size=16)}
    groups = merge_equal({
        NAMES[0]: images, NAMES[1]: {number: 2.5 * one for number, one in images.items()}, NAMES[2]: other,
        Candidate("d", "layer"): {number: -one for number, one in images.items()},
    })  # fmt: skip
    assert groups == {
        NAMES[0]: (NAMES[0], NAMES[1]), NAMES[2]: (NAMES[2],), Candidate("d", "layer"): (Candidate("d", "layer"),)
    }  # fmt: skip
