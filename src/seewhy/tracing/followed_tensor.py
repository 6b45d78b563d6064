"""A tensor that a network computes from its input, followed back with gradients to the region of the input that it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from seewhy.places.region import Region

FRACTIONS = tuple(number / 16 for number in (1, 2, 4, 6, 8, 10, 12, 14, 15))  # of an axis, where gradients are computed
SMALL = 0.05  # of the largest gradient: smaller ones come from statistics of the image
ENOUGH = 4  # positions whose gradients can be compared
OTHERS = 2  # places that may depend on the same position because they are close
OUTLIERS = 3  # one of so many may have its place elsewhere, because of statistics of the image
SPREAD = 3  # positions of the input per step, of which a resized value is a mean
LOCAL = 0.5  # of an axis: a value that depends on more of it has no place
EXACT = 0.1  # positions of the input
JITTER = 0.75  # positions that the nearest neighbor may be off
SAME = 0.75  # positions that the length of a copy may differ from that of its region
ROUNDING = 0.55  # steps of a resized axis that its ends may be off, depending on the kind of interpolation

Span = tuple[int, float, float]  # an axis of the input, and where the first and the last edge of an own axis lie on it


@dataclass(frozen=True, eq=False)
class FollowedTensor:
    """One `row` of a tensor `shape` (rows, C, *size), with the graph from the model's input `leaf`."""

    edge: GradientEdge
    shape: Sequence[int]
    leaf: Tensor
    row: int = 0

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.shape[2:])

    def is_entire(self) -> bool:
        return self.region() == Region.entire(self.leaf.shape[2:])

    def is_connected(self) -> bool:
        """Return True if any gradient reaches the input."""
        gradient = self.pull_back(torch.ones(tuple(self.shape)))
        return bool(gradient.isfinite().all()) and bool(gradient.any())

    def region(self) -> Region | None:
        """Return the region of the input; None if positions are not a linear function of those in the input."""
        size, rank = self.leaf.shape[2:], self.leaf.dim() - 2
        spans: dict[int, tuple[int, float, float]] = {}  # by axis of the input: own axis, first and last edge
        for axis, length in enumerate(self.size):
            found = self.span(axis) if length > 1 else None
            if length > 1 and (found is None or found[0] in spans):
                return None
            if found is not None:
                spans[found[0]] = axis, *found[1:]
        single = iter(axis for axis, length in enumerate(self.size) if length < 2)
        for axis in range(rank):  # an axis of length 1 is a slice of the axis that is left, or its mean
            if axis not in spans:
                own = next(single)
                used = self.profiles(own, 0)[axis].nonzero().flatten().tolist() or [0, size[axis] - 1]
                spans[axis] = own, float(used[0]), float(used[-1] + 1)
        order = tuple(sorted(range(rank), key=lambda axis: spans[axis][0]))
        mirrored = tuple(axis for axis in range(rank) if spans[axis][1] > spans[axis][2])
        box = []
        for axis in range(rank):
            own, *ends = spans[axis]
            box.append(rounded(min(ends), max(ends), self.size[own], size[axis]))
        return Region(tuple(box), order, mirrored)

    def span(self, axis: int) -> Span | None:
        """Return which axis of the input an own axis is, and the positions of its first and last edge there."""
        length, found = self.size[axis], dict[int, list[Tensor]]()
        for at in sorted({int(fraction * length) for fraction in FRACTIONS}):
            profiles = self.profiles(axis, at)
            if all(profile.any() for profile in profiles):  # not only padding
                found[at] = profiles
        if len(found) < 2:
            return None
        spans = []
        for other, limit in enumerate(self.leaf.shape[2:]):
            own = without_background(torch.stack([profiles[other] for profiles in found.values()]))
            start, step = fit_line([at + 0.5 for at in found], [center(profile) for profile in own])
            if 1 / length <= abs(step) < limit and is_line(own, list(found), start, step, length):
                spans.append((abs(step) / limit, other, start, start + step * length))
        return max(spans)[1:] if spans else None

    def profiles(self, axis: int, at: int) -> list[Tensor]:
        """Return along each axis of the input how much one position of an own axis depends on it."""
        direction = torch.zeros(tuple(self.shape))
        weights = 0.5 + torch.rand(self.shape[1], generator=torch.Generator().manual_seed(0))
        direction[self.row].select(axis + 1, at).copy_(weights.reshape(-1, *[1] * (len(self.size) - 1)))
        gradient = self.pull_back(direction).double().abs()
        sums = [gradient.transpose(0, 2 + other).flatten(1).sum(1) for other in range(self.leaf.dim() - 2)]
        return [torch.where(profile > SMALL * profile.max(), profile, 0.0) for profile in sums]

    def pull_back(self, direction: Tensor) -> Tensor:
        """Return the gradient of a sum of values with respect to the input."""
        (gradient,) = torch.autograd.grad(
            [self.edge], [self.leaf], [direction.to(self.leaf)], retain_graph=True, allow_unused=True
        )
        return torch.zeros_like(self.leaf) if gradient is None else gradient


def without_background(profiles: Tensor) -> Tensor:
    """Return profiles (places, length) without what other places depend on as well: a network may use the mean of the image."""
    if len(profiles) < ENOUGH:
        return profiles
    own = profiles - profiles.topk(OTHERS + 1, dim=0).values[OTHERS]
    own = torch.where(own > SMALL * profiles.amax(1, keepdim=True), own, 0.0)
    return torch.where(own.any(1, keepdim=True), own, profiles)


def fit_line(positions: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return the value at 0 and the slope of the line through two points that is near most of the others.

    >>> fit_line([1, 2, 3, 4], [2, 4, 6, 80])
    (0.0, 2.0)
    """
    pairs = list(zip(positions, values, strict=True))
    start, slope = least_squares(pairs)
    if all(abs(start + slope * position - value) <= JITTER for position, value in pairs):
        return start, slope
    lines = list[tuple[int, int, float, float, float]]()
    for (a, low), (b, high) in combinations(pairs, 2):
        slope = (high - low) / (b - a)
        off = [abs(low + slope * (position - a) - value) for position, value in pairs]
        exact, near = (sum(one <= limit for one in off) for limit in (EXACT, 1.0))
        lines.append((exact, near, b - a, low - slope * a, slope))
    return max(lines)[3:]


def least_squares(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the value at 0 and the slope of the line with the least squares of distances."""
    position, value = (sum(one[axis] for one in pairs) / len(pairs) for axis in (0, 1))
    slope = sum((x - position) * (y - value) for x, y in pairs) / sum((x - position) ** 2 for x, _ in pairs)
    return value - slope * position, slope


def is_line(profiles: Tensor, places: Sequence[int], start: float, step: float, length: int) -> bool:
    """Return True if most of the profiles (places, length) are local and lie on a line.

    A place before or after the input is padding, if its values come from the part of the input that the line covers.
    """
    limit, low, high = profiles.shape[1], *sorted((start, start + step * length))
    right = 0
    for profile, at in zip(profiles, places, strict=True):
        expected, value = start + step * (at + 0.5), center(profile)
        is_local = extent(profile) <= max(SPREAD * max(1.0, abs(step)) + 1, LOCAL * limit)
        is_padding = not 0 < expected < limit and low <= value <= high
        right += is_local and (is_padding or abs(value - expected) <= max(1.0, abs(step)))
    return right >= len(places) - (len(places) - 1) // OUTLIERS if low >= 0 and high <= limit else right == len(places)


def extent(profile: Tensor) -> int:
    used = profile.nonzero()
    return int(used[-1] - used[0]) + 1


def center(profile: Tensor) -> float:
    """Return the mean position of a profile, in which position i covers [i, i + 1]."""
    positions = torch.arange(len(profile)).to(profile) + 0.5
    return float((profile * positions).sum() / profile.sum())


def rounded(start: float, stop: float, steps: int, length: int) -> tuple[int, int]:
    """Return the first position of a span and the one after the last; those of the entire axis if it is nearly all of it.

    >>> rounded(0.4, 31.6, 224, 32), rounded(3.9, 228.1, 224, 232), rounded(-0.5, 223.5, 112, 224)
    ((0, 32), (4, 228), (0, 224))
    """
    if abs(stop - start - steps) < SAME and steps != length:
        return round(start), round(start) + steps
    if abs(stop - start - steps) < SAME and abs(start) > 0.25:
        return round(start), round(start) + steps
    margin = 0.75 + ROUNDING * (stop - start) / steps
    return (0 if abs(start) <= margin else round(start)), (length if abs(stop - length) <= margin else round(stop))


def follows_convolution(node: Node | None) -> bool:
    """Return True if a convolution lies between the model's input and a node of the graph."""
    return any("Convolution" in before.name() for before in ancestors(node))


def ancestors(start: Node | None) -> Iterator[Node]:
    """Return the nodes of the graph that a tensor was computed with."""
    waiting, known = [start], set[Node]()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in known:
            known.add(node)
            yield node
            waiting += [before for before, _ in node.next_functions]
