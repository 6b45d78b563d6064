"""Localization against oracles and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from seewhy.errors import UsageError
from seewhy.trust.localization import (
    box_iou,
    box_mask,
    box_overlaps,
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
