"""Localization against oracles and loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch

from seewhy.errors import UsageError
from seewhy.trust.metrics.localization import (
    box_iou,
    box_mask,
    box_overlaps,
    crossfit_box_accuracy,
    energy,
    max_box_accuracy,
    pointing_game,
    rank_accuracy,
)

SIZE = (24, 30)
BOX = (6.0, 4.0, 18.0, 14.0)


def test_a_map_equal_to_the_object_scores_one() -> None:
    mask = box_mask([BOX], SIZE)
    heatmap = mask.astype(float)
    assert pointing_game(heatmap, mask) == energy(heatmap, mask) == rank_accuracy(heatmap, mask) == 1
    overlaps = box_overlaps(heatmap, [BOX])
    assert overlaps[1:].min() == 1
    assert max_box_accuracy(overlaps[None]) == 1


def test_a_uniform_map_scores_the_area_of_the_object() -> None:
    mask = box_mask([BOX], SIZE)
    area = 12 * 10 / (24 * 30)
    heatmap = np.ones(SIZE)
    assert energy(heatmap, mask) == rank_accuracy(heatmap, mask) == pointing_game(heatmap, mask) == pytest.approx(area)


def test_random_maps_score_the_area_on_average() -> None:
    mask = box_mask([BOX], SIZE)
    random = np.random.default_rng(0)
    values = [rank_accuracy(random.random(SIZE), mask) for _ in range(300)]
    assert np.mean(values) == pytest.approx(mask.mean(), abs=0.01)


def test_values_equal_those_of_loops() -> None:
    random = np.random.default_rng(1)
    heatmap, mask = random.random(SIZE).round(1), random.random(SIZE) < 0.3
    cells = [(heatmap[y, x], mask[y, x]) for y in range(SIZE[0]) for x in range(SIZE[1])]
    assert energy(heatmap, mask) == pytest.approx(sum(v for v, m in cells if m) / sum(v for v, _ in cells))
    hits = []
    for seed in range(400):  # equal values in random order
        places = np.random.default_rng(seed).permutation(len(cells))
        order = sorted((cells[place] for place in places), key=lambda cell: -cell[0])
        hits.append(sum(m for _, m in order[: mask.sum()]) / mask.sum())
    assert rank_accuracy(heatmap, mask) == pytest.approx(np.mean(hits), abs=0.01)
    top = max(v for v, _ in cells)
    assert pointing_game(heatmap, mask) == pytest.approx(np.mean([m for v, m in cells if v == top]))


def test_negative_evidence_does_not_count() -> None:
    mask = box_mask([BOX], SIZE)
    heatmap = np.where(mask, -5.0, 1.0)
    assert energy(heatmap, mask) == 0
    assert math.isnan(energy(-np.ones(SIZE), mask))
    assert math.isnan(pointing_game(np.zeros(SIZE), mask))


def test_the_best_threshold_is_shared_by_all_images() -> None:
    overlaps = np.array([[0.6, 0.2], [0.2, 0.6]])
    assert max_box_accuracy(overlaps, [0.5]) == 0.5
    assert max_box_accuracy(np.array([[0.6, 0.2], [0.6, 0.2]]), [0.5]) == 1


def test_only_the_largest_region_counts() -> None:
    heatmap = np.zeros(SIZE)
    heatmap[2:12, 3:13] = 0.6
    heatmap[20:22, 25:28] = 1.0
    overlaps = box_overlaps(heatmap, [(3, 2, 13, 12)])
    assert overlaps[50] == 1 and overlaps[80] == 0


def test_iou() -> None:
    assert box_iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert box_iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0


@pytest.mark.parametrize(
    ("boxes", "text"),
    [([], "no boxes"), ([(40, 0, 50, 5)], "no pixel of the image"), ([(5, 5, 5, 9)], "no pixel of the image")],
)
def test_boxes_outside_the_image_are_errors(boxes: list[tuple[float, float, float, float]], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        box_mask(boxes, SIZE)


def test_masks_of_another_size_or_without_pixels_are_errors() -> None:
    with pytest.raises(UsageError, match="resize the mask"):
        energy(np.ones(SIZE), np.ones((3, 3), bool))
    with pytest.raises(UsageError, match="marks no pixel"):
        energy(np.ones(SIZE), np.zeros(SIZE, bool))


@pytest.mark.parametrize("box", [(1, 2, 3), (1, 2, math.nan, 5), (0, 0, math.inf, 5), 6.0, "box", None])
def test_boxes_that_are_not_four_numbers_are_errors(box: Any) -> None:
    with pytest.raises(UsageError, match="pass a list of boxes"):
        box_mask([box], SIZE)
    with pytest.raises(UsageError, match="pass a list of boxes"):
        box_overlaps(np.ones(SIZE), [box])


def test_one_box_that_is_not_in_a_list_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"box 6.0: pass a list of boxes"):
        box_mask(cast("Any", BOX), SIZE)


def test_overlaps_with_boxes_outside_the_image_are_errors() -> None:
    with pytest.raises(UsageError, match="no boxes"):
        box_overlaps(np.ones(SIZE), [])
    with pytest.raises(UsageError, match=r"box \(18, 4, 6, 14\): no pixel .* The order is left, top, right, bottom"):
        box_overlaps(np.ones(SIZE), [(18, 4, 6, 14)])


def test_boxes_are_clipped_to_the_image() -> None:
    heatmap = box_mask([(20, 10, 30, 24)], SIZE).astype(float)
    assert box_overlaps(heatmap, [(20, 10, 90, 90)])[50] == 1
    assert box_mask([(20, 10, 90, 90)], SIZE).sum() == 10 * 14


@pytest.mark.parametrize("measure", [pointing_game, energy, rank_accuracy])
def test_masks_that_are_not_boolean_are_errors(measure: Callable[..., float]) -> None:
    """The pixels of a mask file would be used as positions."""
    mask = box_mask([BOX], SIZE)
    for values in (mask.astype(np.uint8), mask * 255, mask.astype(float)):
        with pytest.raises(UsageError, match=f"type {values.dtype}: pass True and False"):
            measure(np.ones(SIZE), values)


@pytest.mark.parametrize("measure", [pointing_game, energy, rank_accuracy])
def test_maps_of_a_batch_are_errors(measure: Callable[..., float]) -> None:
    with pytest.raises(UsageError, match=r"one map \(height, width\); this one has shape \(1, 24, 30\)"):
        measure(np.ones((1, *SIZE)), np.ones((1, *SIZE), bool))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_maps_with_values_that_are_not_finite_have_no_localization(value: float) -> None:
    mask = box_mask([BOX], SIZE)
    for place in ((5, 8), (0, 0)):
        heatmap = np.random.default_rng(0).random(SIZE)
        heatmap[place] = value
        assert all(math.isnan(measure(heatmap, mask)) for measure in (pointing_game, energy, rank_accuracy))
        assert np.isnan(box_overlaps(heatmap, [BOX])).all()


def test_a_blank_map_has_no_box_and_does_not_count() -> None:
    blank = box_overlaps(np.zeros(SIZE), [BOX], 2)
    assert np.isnan(blank).all()
    assert max_box_accuracy(np.array([[0.6, 0.2], blank, [0.6, 0.2]]), [0.5]) == 1
    assert math.isnan(max_box_accuracy(blank[None]))


def test_large_values_do_not_overflow() -> None:
    mask = box_mask([BOX], SIZE)
    assert energy(np.full(SIZE, 1e308), mask) == pytest.approx(mask.mean())


def test_tensors_are_maps_too() -> None:
    mask = box_mask([BOX], SIZE)
    heatmap = torch.from_numpy(np.random.default_rng(2).random(SIZE))
    assert energy(heatmap, torch.from_numpy(mask)) == energy(heatmap.numpy(), mask)


def test_thresholds_of_the_other_half() -> None:
    even, odd = [0.9, 0.1, 0.1], [0.1, 0.6, 0.1]
    values = crossfit_box_accuracy([even, odd, even, odd], [0.5])
    assert values.tolist() == [0, 0, 0, 0]
    assert max_box_accuracy([even, odd, even, odd], [0.5]) == 0.5
    same = crossfit_box_accuracy([even, even, even, odd], [0.5, 0.95])
    # The best threshold of the odd half is a tie of two at 0.5, and no threshold reaches 0.95.
    assert same.tolist() == [0.25, 0.5, 0.25, 0]


def test_images_without_a_box_do_not_move_the_halves() -> None:
    nan = [math.nan] * 2
    values = crossfit_box_accuracy([[0.6, 0.1], [0.6, 0.1], nan, [0.1, 0.6]], [0.5])
    assert math.isnan(values[2])
    assert np.delete(values, 2).tolist() == [0.5, 1, 0]
    assert np.isnan(crossfit_box_accuracy([[0.6, 0.1], nan], [0.5])).all()


@pytest.mark.parametrize("measure", [max_box_accuracy, crossfit_box_accuracy])
def test_overlaps_of_one_image_need_a_row(measure: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"shape \(3,\): pass one row"):
        measure([0.1, 0.2, 0.3])
    with pytest.raises(UsageError, match=r"shape \(0, 100\)"):
        measure(np.zeros((0, 100)))
