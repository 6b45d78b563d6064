"""The rows of a convolution's input, followed with gradients to the parts of the model's input that they are.

Rows that are copies of a box of the input, or are resized from one, have an exact place: that of their corners. Rows that were
computed from the input in another way are placed if they see one position of an axis only, such as a frame, or all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from seewhy.places.parts import Part, Parts, swap
from seewhy.tracing.followed_tensor import FollowedTensor

MAX_FOLLOWED = 256  # rows that are followed one by one
MAX_SIAMESE = 32  # rows of which some may belong to another input
ENTIRE = 0.9  # a row that sees this fraction of an axis sees all of it
APART = 0.05  # distance between what its first and its last half see, as a fraction of the axis
BORDER = 0.05  # fraction of an axis that its first position may be off


class SeenRows:
    """The rows `shape` (B * count, C, *size) that a convolution sees of a model's input `leaf` (B, channels, *input size)."""

    def __init__(
        self, edge: GradientEdge, shape: Sequence[int], leaf: Tensor, numbers: Sequence[int] | None = None
    ) -> None:
        self.edge, self.shape, self.leaf = edge, tuple(shape), leaf
        self.size, self.input_size = self.shape[2:], tuple(leaf.shape[2:])
        self.generator = torch.Generator().manual_seed(0)
        self.numbers = numbers  # the rows, if they are not all that the convolution sees
        self.all_rows = self.shape[0]

    def only(self, numbers: Sequence[int]) -> SeenRows:
        """Return some of the rows."""
        rows = SeenRows(self.edge, (len(numbers), *self.shape[1:]), self.leaf, numbers)
        rows.all_rows = self.all_rows
        return rows

    def follow(self, count: int) -> Parts | None:
        """Return the parts that the rows are; None if they have no place in the input."""
        return self.follow_rows(count) or self.follow_some(count)

    def follow_some(self, count: int) -> Parts | None:
        """Return the parts that some of the rows are copies of, if the others show another input, as in a siamese network."""
        if self.shape[0] > MAX_SIAMESE or self.numbers is not None:
            return None
        own = [row for row in range(self.shape[0]) if self.influence_of(row).any()]
        batch = len(self.leaf)
        if not own or len(own) % batch:
            return None
        rows_of_input = self.only(own)
        if rows_of_input.from_corners() is None:  # a row of features can be without a gradient by chance
            return None
        parts = rows_of_input.follow_rows(len(own) // batch)
        if parts is None:
            return None
        for is_image_major in (True, False):
            numbers = sorted({row % count if is_image_major else row // batch for row in own})
            rows = [
                image * count + number if is_image_major else number * batch + image
                for image in range(batch)
                for number in numbers
            ]
            if sorted(rows) == own and (len(numbers) == 1 or is_image_major == parts.is_image_major):
                others = count - len(numbers)
                return replace(parts, is_image_major=is_image_major, numbers=tuple(numbers), others=others)
        return None

    def follow_rows(self, count: int) -> Parts | None:
        """Return the parts that the rows are; None if one of them has no place in the input."""
        found = self.from_corners() or self.from_blocks()
        if found is None:
            return None
        images, rows, axes = found
        order, batch = torch.arange(self.shape[0]), len(self.leaf)
        is_image_major = torch.equal(images, order // count)
        if not is_image_major and not torch.equal(images, order % batch):
            return None
        if not is_image_major:
            rows = [rows[number] for number in swap(order, count, batch)]
        places = rows[:count]
        if any(rows[start : start + count] != places for start in range(0, len(rows), count)):
            return None  # other places for other images, such as random crops
        lengths = (tuple(stop - start for start, stop in part.box) for part in places)
        expected = tuple(self.size[axes.index(axis)] if axis in axes else 1 for axis in range(len(self.input_size)))
        # A mask over one of several rows with the same place, such as channels of the input, would cover the others as well.
        is_exact = self.are_copies and all(own == expected for own in lengths) and len(set(places)) == len(places)
        return Parts(tuple(places), axes, self.size, is_image_major, is_exact)

    def contradicts(self, parts: Parts, count: int) -> bool:
        """Return True if these rows are copies of other parts, or belong to other images."""
        if parts.others:
            own = parts.own_rows(torch.arange(self.shape[0]))
            return self.only(sorted(own.tolist())).contradicts(replace(parts, numbers=(), others=0), len(parts))
        if len(self.leaf) > 1 and count > 1:
            images = self.influence_of(1).flatten(1).any(1).nonzero().flatten().tolist()
            if images not in ([], [0 if parts.is_image_major else 1]):
                return True
        if self.shape[2:] != parts.size or self.from_corners() is None:
            return False
        other = self.follow(count)
        return other is not None and (other.places, other.axes) != (parts.places, parts.axes)

    # Rows that are copies of a box, or resized from one

    def from_corners(self) -> tuple[Tensor, list[Part], tuple[int, ...]] | None:
        """Return image, place and axes of each row from its corners; None if a value is not one of the input, or a mean."""
        corner, opposite = [0] * len(self.size), [length - 1 for length in self.size]
        first, last = self.sources(corner), self.sources(opposite)
        if first is None or last is None or min(self.size) < 2:
            return None
        axes = []
        for axis, length in enumerate(self.size):
            moved = self.sources([(length - 1) * (own == axis) for own in range(len(self.size))])
            changed = None if moved is None else moved[:, 1:] != first[:, 1:]
            if changed is None or (changed != changed[0]).any() or changed[0].sum() != 1:
                return None
            axes.append(int(changed[0].nonzero()))
        if axes != sorted(set(axes)) or not self.is_linear(first, last, axes):
            return None
        pairs = zip(first[:, 1:].tolist(), last[:, 1:].tolist(), strict=True)
        return first[:, 0], [place_between(*pair) for pair in pairs], tuple(axes)

    def is_linear(self, first: Tensor, last: Tensor, axes: Sequence[int]) -> bool:
        """Return True if positions between the corners come from between them, and all channels from the same position.

        Reflected borders are no corners. A network can also put the frames of a clip into the channels.
        """
        quarter = [length // 4 for length in self.size]
        between, other = self.sources(quarter), self.sources([0] * len(self.size), channel=-1)
        if between is None or other is None or not torch.equal(other[:, 1:], first[:, 1:]):
            return False
        share = torch.zeros(first.shape[1] - 1)
        for own, axis in enumerate(axes):
            share[axis] = quarter[own] / (self.size[own] - 1)
        spans = (last - first)[:, 1:]
        steps = torch.tensor(
            [max(self.size[axes.index(axis)] - 1 if axis in axes else 1, 1) for axis in range(len(share))]
        )
        limit = torch.maximum(spans.abs() / steps, torch.tensor(1.0)) + 0.5
        has_same_frame = bool((spans[:, [axis for axis in range(len(share)) if axis not in axes]] == 0).all())
        return has_same_frame and bool(((between - first)[:, 1:] - spans * share).abs().le(limit).all())

    def sources(self, place: Sequence[int], channel: int = 0) -> Tensor | None:
        """Return for each row which image and position (rows, 1 + axes) a channel at `place` comes from."""
        rows = self.shape[0]
        at: tuple[slice | int, ...] = (slice(None), channel, *place)
        one = self.gradient(at, torch.ones(rows))
        found = one.nonzero()
        self.are_copies = len(found) == rows
        if self.are_copies:  # two passes follow all rows
            numbered = self.gradient(at, torch.arange(1.0, rows + 1))
            where = tuple(found.T)
            numbers = (numbered[where] / one[where]).round().long().cpu() - 1
            if torch.equal(numbers.sort().values, torch.arange(rows)):
                return found.cpu()[numbers.argsort()][:, [0, *range(2, self.leaf.dim())]]
        if rows > MAX_FOLLOWED:
            return None
        places = []
        for row in range(rows):
            influence = self.gradient(at, torch.eye(rows)[row])
            channels = influence.abs().amax([axis for axis in range(influence.dim()) if axis != 1]).nonzero()
            if len(channels) != 1 or (influence.amin() < 0 < influence.amax()):
                return None  # neither a copy nor a mean of neighbors
            used = influence.abs().amax(1).nonzero()[:, 1:]
            lengths = zip((used.amax(0) - used.amin(0) + 1).tolist(), self.input_size, strict=True)
            if any(extent == length > 1 for extent, length in lengths):
                return None  # a mean over all frames, for example
            self.are_copies &= int(influence.count_nonzero()) == 1
            peak = influence[:, int(channels[0])].abs()
            places.append(torch.stack(torch.unravel_index(peak.argmax(), peak.shape)))
        return torch.stack(places).cpu()

    # Rows that were computed from the input

    def from_blocks(self) -> tuple[Tensor, list[Part], tuple[int, ...]] | None:
        """Return image, place and axes of each row from what its first and last half see; None without a clear place."""
        self.are_copies = False
        if self.shape[0] > MAX_FOLLOWED or len(self.size) > len(self.input_size):
            return None
        images, places, axes = list[int](), list[Part](), set[tuple[int, ...]]()
        for row in range(self.shape[0]):
            first, last = (self.influence_of_half(row, is_last=is_last) for is_last in (False, True))
            seen = [int(image) for image in (first + last).flatten(1).any(1).nonzero()]
            if len(seen) != 1 or not first.any() or not last.any():
                return None
            images.append(seen[0])
            box = [self.span(first[seen[0]], last[seen[0]], axis) for axis in range(len(self.input_size))]
            spans = [span for span in box if span is not None]
            if len(spans) < len(box):
                return None
            places.append(Part(tuple(spans)))
            axes.add(tuple(axis for axis, (start, stop) in enumerate(spans) if stop - start > 1))
        if len(axes) != 1 or len(own := axes.pop()) != len(self.size):
            return None
        is_entire = all(self.shows_entire_axes(row, own) for row in {0, self.shape[0] - 1})
        return (torch.tensor(images), places, own) if is_entire else None

    def shows_entire_axes(self, row: int, axes: Sequence[int]) -> bool:
        """Return True if the axes of a row are `axes` of the input from their first to their last position, not padded."""
        number = row if self.numbers is None else self.numbers[row]
        followed = FollowedTensor(self.edge, (self.all_rows, *self.shape[1:]), self.leaf, number)
        for own, axis in enumerate(axes):
            span, length = followed.span(own), self.input_size[axis]
            if span is None or span[0] != axis:
                return False
            margin = BORDER * length + abs(span[2] - span[1]) / self.size[own]
            if abs(span[1]) > margin or abs(span[2] - length) > margin:
                return False
        return True

    def influence_of_half(self, row: int, *, is_last: bool) -> Tensor:
        """Return how much the first or last half of a row, along all axes, depends on each position (B, *input size)."""
        halves = [max(1, length // 2) for length in self.size]
        ends = (slice(-own, None) if is_last else slice(own) for own in halves)
        direction = self.leaf.new_zeros(self.shape)
        block = direction[(row, slice(None), *ends)]
        block.copy_(torch.randn(block.shape, generator=self.generator))
        return self.pull_back(direction).square().sum(1)

    def span(self, first: Tensor, last: Tensor, axis: int) -> tuple[int, int] | None:
        """Return the part of an axis that a row sees: one position, or all of them in their order; None otherwise."""
        length = self.input_size[axis]
        others = [own for own in range(first.dim()) if own != axis]
        early, late = (one.sum(others) if others else one for one in (first, last))
        used = (early + late).nonzero().flatten()
        if len(used) == 1:
            return int(used[0]), int(used[0]) + 1
        positions = (torch.arange(length) + 0.5).to(early) / length
        centers = [float((one * positions).sum() / one.sum()) for one in (early, late)]
        extent = int(used[-1]) + 1 - int(used[0])
        return (0, length) if extent >= ENTIRE * length and centers[1] - centers[0] > APART else None

    # Gradients

    def gradient(self, at: tuple[slice | int, ...], weights: Tensor) -> Tensor:
        """Return the gradient of the values at an index of all rows, times `weights`, with respect to the input."""
        direction = self.leaf.new_zeros(self.shape)
        direction[at] = weights.to(self.leaf)
        return self.pull_back(direction)

    def influence_of(self, row: int) -> Tensor:
        """Return how much a row depends on each position of the input (B, C, *input size)."""
        direction = self.leaf.new_zeros(self.shape)
        direction[row] = torch.randn(self.shape[1:], generator=self.generator).to(direction)
        return self.pull_back(direction)

    def pull_back(self, direction: Tensor) -> Tensor:
        if self.numbers is not None:
            direction = direction.new_zeros(self.all_rows, *self.shape[1:]).index_copy(
                0, torch.tensor(self.numbers, device=direction.device), direction
            )
        (gradient,) = torch.autograd.grad([self.edge], [self.leaf], [direction], retain_graph=True, allow_unused=True)
        return torch.zeros_like(self.leaf) if gradient is None else gradient


def place_between(first: list[int], last: list[int]) -> Part:
    """Return the part between two corners.

    >>> place_between([0, 7], [3, 4])
    Part(box=((0, 4), (4, 8)), mirrored=(1,))
    """
    box = tuple((min(pair), max(pair) + 1) for pair in zip(first, last, strict=True))
    return Part(box, tuple(axis for axis, (a, b) in enumerate(zip(first, last, strict=True)) if a > b))
