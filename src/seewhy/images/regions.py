"""From a mask to the box around its largest part, on any number of axes."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.intp]


def largest_box(mask: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """The box around the largest part of a mask (*size): its starts, then its ends (exclusive), the last axis first.

    So (left, top, right, bottom) in a picture, (start, end) in a signal, and (left, top, front, right, bottom, back) in a
    volume (depth, height, width). Cells that touch at a face, an edge or a corner are connected; of equal parts the first in
    reading order counts. None for an empty mask.

    >>> largest_box(np.array([[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool))
    (2, 1, 4, 3)
    >>> largest_box(np.array([0, 1, 0, 1, 1, 1], bool))
    (3, 6)
    """
    rows, starts, ends = runs(mask)
    if not len(rows):
        return None
    part = connect(len(rows), touching(rows, starts, ends, mask.shape))
    chosen = part == int(np.bincount(part, weights=ends - starts).argmax())
    places = np.unravel_index(rows[chosen], mask.shape[:-1]) if mask.ndim > 1 else ()
    first = (starts[chosen].min(), *(axis.min() for axis in reversed(places)))
    last = (ends[chosen].max(), *(axis.max() + 1 for axis in reversed(places)))
    return tuple(map(int, first + last))


def runs(mask: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """Row, start and end (exclusive) of every run of true cells along the last axis, in reading order; rows are counted
    through all the other axes."""
    lines = mask.reshape(-1, mask.shape[-1])
    edges = np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    return rows, starts, ends


def touching(rows: Ints, starts: Ints, ends: Ints, shape: tuple[int, ...]) -> Ints:
    """(N, 2) pairs of runs that touch: each run, and one in a row beside its own that comes earlier."""
    outer, width = shape[:-1], shape[-1] + 1  # one more, so that the end of a row does not meet the start of the next
    places = np.array(np.unravel_index(rows, outer)).T if outer else np.zeros((len(rows), 0), int)
    pairs = [np.zeros((0, 2), np.intp)]
    for step in product((-1, 0, 1), repeat=len(outer)):
        if step >= (0,) * len(outer):
            continue
        beside = places + step
        inside = np.flatnonzero(((beside >= 0) & (beside < outer)).all(1))
        row = np.ravel_multi_index(tuple(beside[inside].T), outer)
        low = np.searchsorted(rows * width + ends, row * width + starts[inside], "left")
        high = np.searchsorted(rows * width + starts, row * width + ends[inside], "right")
        counts = high - low
        others = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - low, counts)
        pairs.append(np.stack([np.repeat(inside, counts), others], 1))
    return np.concatenate(pairs)


def connect(count: int, pairs: Ints) -> Ints:
    """For each of `count` runs the first run of its connected part: union-find over the pairs that touch."""
    parent = list(range(count))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    for one, other in pairs.tolist():
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    return np.array([root(run) for run in range(count)])
