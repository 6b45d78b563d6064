"""From a mask to a box: connected parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def largest_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom), right and bottom exclusive, of the largest part of a mask (H, W); None if it is empty.

    Pixels that touch at an edge or a corner are connected; of equal parts the topmost counts.

    >>> largest_box(np.array([[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool))
    (2, 1, 4, 3)
    """
    rows, starts, ends = runs(mask)
    if not len(rows):
        return None
    part = connect(rows, starts, ends)
    sizes = np.bincount(part, weights=ends - starts)
    chosen = part == int(sizes.argmax())
    return (
        int(starts[chosen].min()),
        int(rows[chosen].min()),
        int(ends[chosen].max()),
        int(rows[chosen].max()) + 1,
    )


def runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Row, start and end (exclusive) of every horizontal run of true pixels, in reading order."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    return rows, starts, ends


def connect(rows: NDArray[np.intp], starts: NDArray[np.intp], ends: NDArray[np.intp]) -> NDArray[np.intp]:
    """For every run the first run of its connected part: union-find over runs that touch in neighbouring rows."""
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above = 0
    for run in range(len(rows)):
        while above < run and (
            rows[above] < rows[run] - 1 or (rows[above] == rows[run] - 1 and ends[above] < starts[run])
        ):
            above += 1
        other = above
        while other < run and rows[other] == rows[run] - 1 and starts[other] <= ends[run]:
            one, two = root(run), root(other)
            parent[max(one, two)] = min(one, two)
            other += 1
    return np.array([root(run) for run in range(len(rows))])
