"""largest_box against a flood fill written for the test."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from seewhy.images.regions import largest_box


def find_parts(mask: NDArray[np.bool_]) -> list[list[tuple[int, ...]]]:
    """Return the cells of each connected part, diagonals included, ordered by first cell in reading order."""
    steps = list(product((-1, 0, 1), repeat=mask.ndim))
    remaining, parts = {tuple(map(int, cell)) for cell in np.argwhere(mask)}, []
    for start in sorted(remaining):
        if start not in remaining:
            continue
        remaining.remove(start)
        part = [start]
        for cell in part:
            neighbors = {tuple(a + b for a, b in zip(cell, step, strict=True)) for step in steps} & remaining
            remaining -= neighbors
            part += neighbors
        parts.append(part)
    return parts


def expected_box(mask: NDArray[np.bool_]) -> tuple[int, ...] | None:
    parts = find_parts(mask)
    if not parts:
        return None
    cells = np.array(max(parts, key=len))  # the first of equally large parts
    return (*map(int, cells.min(0)[::-1]), *map(int, cells.max(0)[::-1] + 1))


@pytest.mark.parametrize("shape", [(40,), (1, 9), (9, 1), (12, 15), (4, 5, 6), (3, 3, 3, 3)])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.2, 0.4, 0.6, 1.0])
def test_box_of_random_masks(shape: tuple[int, ...], density: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random(shape) < density
        assert largest_box(mask) == expected_box(mask)


def test_first_of_equally_large_parts_wins() -> None:
    mask = np.zeros((6, 9), bool)
    mask[0, 7:9] = mask[1:3, 0] = mask[5, 4:6] = True
    assert largest_box(mask) == (7, 0, 9, 1)
    mask[0, 7] = False
    assert largest_box(mask) == (0, 1, 1, 3)
    # Two parts of 5 cells. The second starts further right but in an earlier row.
    mask = np.array([[0, 0, 0, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 0, 0, 1], [1, 0, 0, 0, 0]], bool)
    assert largest_box(mask) == (3, 0, 5, 4)


def test_cells_that_touch_at_a_corner_are_connected() -> None:
    assert largest_box(np.eye(4, dtype=bool)) == (0, 0, 4, 4)
    assert largest_box(np.eye(4, dtype=bool)[:, ::-1]) == (0, 0, 4, 4)


def test_row_ends_are_not_connected_to_the_next_row() -> None:
    assert largest_box(np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], bool)) == (1, 0, 3, 1)
    assert largest_box(np.array([[0, 0, 0, 1], [1, 0, 0, 0]], bool)) == (3, 0, 4, 1)
