"""Removal tests: cover the units of an image in the order of a map, and record how the score changes.

One engine computes the curves of all of them; `removal_metrics` reads deletion, insertion, SRG, MAS and ROAD from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.explanation.curves import Array, RemovalCurve, RemovalCurves
from seewhy.trust.fillers import Fill
from seewhy.trust.metrics.units import cover_units

Build = Callable[[slice], Tensor]
Score = Callable[[int, Build], Tensor]  # number of changed inputs, how to build a slice of them -> scores (number,)

STEPS = 10


def block_ends(values: Array) -> NDArray[np.intp]:
    """Return how many units come before the end of each block of equal values, in descending order of the values.

    Equal units are covered together: an order between them would depend on their position only.

    >>> block_ends(np.array([3.0, 0.0, 1.0, 0.0])).tolist()
    [1, 2, 4]
    """
    ordered = np.sort(values)[::-1]
    return np.append(np.nonzero(np.diff(ordered))[0] + 1, len(values))


def removal_counts(values: Array, steps: int) -> NDArray[np.intp]:
    """Return the numbers of covered units at which the score is computed, for one order.

    These are `steps` equal fractions. One that lies inside a block of equal values is replaced by both ends of the block.

    >>> removal_counts(np.array([3.0, 0.0, 1.0, 0.0]), 4).tolist(), removal_counts(np.zeros(9), 3).tolist()
    ([0, 1, 2, 4], [0, 9])
    """
    total = len(values)
    ends = np.append(0, block_ends(values))
    equal = np.unique(np.round(np.arange(steps + 1) * total / steps).astype(int))
    after = np.searchsorted(ends, equal)  # the first end that is not before
    before = np.where(ends[after] == equal, after, after - 1)
    counts: NDArray[np.intp] = ends[np.unique(np.concatenate([before, after]))]
    return counts


def removal_curves(
    score: Score, fill: Fill, values: Array, *, grid: Sequence[int], size: Sequence[int], steps: int = STEPS,
    ends: tuple[float, float] | None = None,
) -> RemovalCurves:  # fmt: skip
    """Compute the curves of one map for one filler.

    Args:
        score: Scores changed inputs.
        fill: Covers parts of the input.
        values: The sums of the map in the units, `(units,)`.
        grid: The units along each axis of the input.
        size: The size of the input.
        steps: Number of equal fractions.
        ends: Scores of the image itself and of the fully covered image, if they are known.

    Returns:
        Both curves, from `2 * (steps - 1)` forward passes, and 2 more without `ends`.
    """
    orders = [values, -values]
    counts = [removal_counts(one, steps) for one in orders]
    masks: list[NDArray[np.bool_]] = []
    for one, numbers in zip(orders, counts, strict=True):
        ranks = np.argsort(np.argsort(-one, kind="stable"), kind="stable")
        masks += [ranks < number for number in numbers[1:-1]]
    if ends is None:
        masks = [np.zeros(len(values), bool), np.ones(len(values), bool), *masks]
    scores = score_masks(score, fill, np.array(masks).reshape(len(masks), len(values)), grid, size)
    first, last = ends or (scores[0], scores[1])
    inner = scores if ends is not None else scores[2:]
    middle = len(counts[0]) - 2
    parts = (inner[:middle], inner[middle:])
    curves = []
    for one, numbers, part in zip(orders, counts, parts, strict=True):
        order = np.argsort(-one, kind="stable")
        covered = np.append(0, np.cumsum(np.maximum(values[order], 0)))
        remaining = 1 - covered[numbers] / covered[-1] if covered[-1] > 0 else np.full(len(numbers), np.nan)
        curves.append(RemovalCurve(numbers / len(values), np.concatenate([[first], part, [last]]), remaining))
    return RemovalCurves(*curves)


def score_masks(
    score: Score, fill: Fill, covered: NDArray[np.bool_], grid: Sequence[int], size: Sequence[int]
) -> Array:
    """Return the score of each version of the image in which the units `(N, units)` are covered."""
    rows = torch.from_numpy(covered)
    values = score(len(rows), lambda at: fill(cover_units(rows[at], grid, size)))
    return values.detach().double().cpu().numpy()


def random_curve(
    score: Score, fill: Fill, *, grid: Sequence[int], size: Sequence[int], steps: int = STEPS, orders: int = 3, seed: int = 0,
    ends: tuple[float, float] | None = None,
) -> RemovalCurve:  # fmt: skip
    """Return the mean curve of random orders. If it falls at once, the filler itself changes the class.

    Args:
        orders: Number of random orders.
        seed: Seed of the orders.
        ends: Scores of the image itself and of the fully covered image, if they are known.
    """
    random = np.random.default_rng(seed)
    units = int(np.prod(grid))
    counts = np.round(np.arange(steps + 1) * units / steps).astype(int)
    ranks = np.stack([random.permutation(units) for _ in range(orders)])
    masks = [rank < number for number in counts[1:-1] for rank in ranks]
    if ends is None:
        masks = [np.zeros(units, bool), np.ones(units, bool), *masks]
    scores = score_masks(score, fill, np.array(masks), grid, size)
    first, last = ends or (scores[0], scores[1])
    inner = (scores if ends is not None else scores[2:]).reshape(-1, orders).mean(1)
    return RemovalCurve(counts / units, np.concatenate([[first], inner, [last]]), 1 - counts / units)
