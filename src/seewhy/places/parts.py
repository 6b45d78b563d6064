"""Parts of an input: the frames, patches or crops that a network processes one by one.

Many networks put the parts of each input into the batch axis: all frames of a clip, the patches of a slide, several crops of a
photo. Inside, a layer then has several rows per input. `Parts` states which row belongs to which part, and where in the input
each part lies. `place_parts` draws the maps of all parts on one grid over the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import EllipsisType

import torch
from torch import Tensor

from seewhy.places.region import Region
from seewhy.tensors import map_functions


@dataclass(frozen=True)
class Part:
    """A part of the input.

    Attributes:
        box: For each axis of the input, the first position and the one after the last.
        mirrored: The axes along which the network sees the part in reverse order.
    """

    box: tuple[tuple[int, int], ...]
    mirrored: tuple[int, ...] = ()

    @property
    def index(self) -> tuple[EllipsisType | slice, ...]:
        """The index of the part in a tensor whose last axes are those of the input."""
        return (..., *(slice(start, stop) for start, stop in self.box))


@dataclass(frozen=True)
class Parts:
    """The parts of each input in the batch axis of a layer.

    Attributes:
        places: The parts in the order of their rows.
        axes: The axes of the input along which a part extends; for a frame of a clip (T, H, W): (1, 2).
        size: The lengths of these axes as the network sees them, which differ from those of the box if it resizes.
        is_image_major: True if the rows of an input are next to each other, (B * rows, ...); False for (rows * B, ...).
        is_exact: True if each part is a copy of its box, not resized, and no other part has the same box.
        numbers: Which rows of an input are the parts; () for all. The others show another input, as in a siamese network.
        others: The number of other rows per input.

    >>> frames = Parts((Part(((0, 1), (0, 4), (0, 4))), Part(((1, 2), (0, 4), (0, 4)))), (1, 2), (4, 4))
    >>> clips = torch.arange(32.0).reshape(1, 1, 2, 4, 4)
    >>> torch.equal(frames.crop(clips)[1], clips[0, :, 1])
    True
    """

    places: tuple[Part, ...]
    axes: tuple[int, ...]
    size: tuple[int, ...]
    is_image_major: bool = True
    is_exact: bool = True
    numbers: tuple[int, ...] = ()
    others: int = 0

    def __len__(self) -> int:
        return len(self.places)

    @property
    def rows(self) -> int:
        """The number of rows per input."""
        return len(self) + self.others

    @property
    def is_sole_row(self) -> bool:
        """True if one row shows the input and the other rows show something else: maps have no axis for parts then."""
        return len(self) == 1 and self.others > 0

    def own_rows(self, rows: Tensor) -> Tensor:
        """Return the rows that are parts, from rows in the order of the model, as (B * parts, ...), image by image."""
        rows = self.image_major(rows)
        if not self.others:
            return rows
        by_image = rows.reshape(-1, self.rows, *rows.shape[1:])
        return by_image[:, list(self.numbers)].flatten(0, 1)

    def row_of(self, number: int) -> int:
        """Return which row of an input a part is."""
        return self.numbers[number] if self.others else number

    def image_major(self, rows: Tensor) -> Tensor:
        """Return rows in the order of the model as (B * rows, ...), the rows of an input next to each other."""
        return rows if self.is_image_major else swap(rows, self.rows, len(rows) // self.rows)

    def model_order(self, rows: Tensor) -> Tensor:
        """Return rows (B * rows, ...) in the order of the model."""
        return rows if self.is_image_major else swap(rows, len(rows) // self.rows, self.rows)

    def crop(self, inputs: Tensor) -> Tensor:
        """Return the parts (B * parts, C, *size) of inputs (B, C, *input size). Needs `is_exact`."""
        return torch.stack([self._crop(inputs, part) for part in self.places], 1).flatten(0, 1)

    def _crop(self, inputs: Tensor, part: Part) -> Tensor:
        values = inputs[part.index]
        values = values.flip([axis + 2 for axis in part.mirrored]) if part.mirrored else values
        return values.reshape(*values.shape[:2], *self.size)

    def paste(self, inputs: Tensor, number: int, values: Tensor) -> Tensor:
        """Return inputs (N, C, *input size): one input with part `number` replaced by each of `values` (N, C, *size).

        Needs `is_exact`.
        """
        part = self.places[number]
        result = inputs.repeat(len(values), *[1] * (inputs.dim() - 1))
        values = values.reshape(*values.shape[:2], *(stop - start for start, stop in part.box))
        values = values.flip([axis + 2 for axis in part.mirrored]) if part.mirrored else values
        result[part.index] = values
        return result


@dataclass(frozen=True)
class PartsOfModel:
    """The parts that a network makes of each input.

    Attributes:
        by_count: Those in one batch, by their number per input.
        by_call: Those that its layers process in a loop.
        calls: Which of `by_call` a call of a module processes, by the name of the module and the number of the call.
        note: Why maps may be drawn in another place than the one that a layer sees, or "".
        depends_on_values: True if the network selects its parts by indices, which can depend on the values of the input.
    """

    by_count: Mapping[int, Parts] = field(default_factory=dict)
    by_call: tuple[Parts, ...] = ()
    calls: Mapping[tuple[str, int], int] = field(default_factory=dict)
    note: str = ""
    depends_on_values: bool = False

    def __bool__(self) -> bool:
        return bool(self.by_count or self.by_call)


def swap(rows: Tensor, outer: int, inner: int) -> Tensor:
    """Return rows (outer * inner, ...) as (inner * outer, ...)."""
    return rows.reshape(outer, inner, *rows.shape[1:]).transpose(0, 1).flatten(0, 1)


def describe_parts(parts: Parts) -> str:
    """Return what the parts are, in words.

    >>> describe_parts(Parts((Part(((0, 1), (0, 4))), Part(((1, 2), (0, 4)))), (1,), (4,)))
    'position on axis 1 of 2 (a frame, slice or patch)'
    >>> describe_parts(Parts((Part(((0, 4),)), Part(((0, 4),))), (0,), (4,), is_exact=False))
    'row, which sees the entire input (a copy, some of its channels, or an attention head)'
    """
    if len(parts) > 1 and len(set(parts.places)) == 1:
        return "row, which sees the entire input (a copy, some of its channels, or an attention head)"
    rank = len(parts.places[0].box)
    others = [axis for axis in range(rank) if axis not in parts.axes]
    if others:
        return f"position on axis {' and '.join(str(axis + 1) for axis in others)} of {rank} (a frame, slice or patch)"
    return "tile, crop or copy of the input"


def place_maps(maps: Tensor, size: Sequence[int], places: Sequence[Part] = (), region: Region | None = None) -> Tensor:
    """Return maps of a layer (B, *grid), or (B, parts, *grid), as maps (B, *cells) with the axes of the input.

    Args:
        maps: Signed maps.
        size: The size of the input.
        places: The parts that the layer has one map for.
        region: The region of the input that the maps cover; None: all of it.
    """
    if places:
        return place_parts(maps, places, tuple(size))
    return maps if region is None else region.place(maps, size)


def place_parts(maps: Tensor, places: Sequence[Part], size: tuple[int, ...]) -> Tensor:
    """Return maps (B, parts, *grid) of parts as maps (B, *cells) over an input of `size`.

    Parts that fill the input without gaps, such as frames or tiles, are put next to each other, cell by cell. Otherwise the
    maps are resized to the boxes of their parts, and averaged where these overlap; the cells are the positions of the input.

    >>> tiles = [Part(((0, 4), (0, 4))), Part(((0, 4), (4, 8)))]
    >>> place_parts(torch.tensor([[[[1.0]], [[2.0]]]]), tiles, (4, 8)).tolist()
    [[[1.0, 2.0]]]
    """
    longest = [max(part.box[axis][1] - part.box[axis][0] for part in places) for axis in range(len(size))]
    # An axis along which no part extends, such as that of frames, has one cell for each part.
    lengths = iter(maps.shape[2:])
    missing = len(size) - (maps.dim() - 2)
    shape = []
    for axis in range(len(size)):
        is_point = longest[axis] == 1 and missing > 0
        missing -= is_point
        shape.append(1 if is_point else next(lengths))
    cells = [one.reshape(len(maps), *shape) for one in maps.unbind(1)]
    cells = [
        one.flip([axis + 1 for axis in part.mirrored]) if part.mirrored else one
        for one, part in zip(cells, places, strict=True)
    ]
    lattice = lattice_of(places, size)
    return paint(cells, places, size) if lattice is None else put_together(cells, places, lattice)


def lattice_of(places: Sequence[Part], size: tuple[int, ...]) -> list[list[int]] | None:
    """Return the starts of the parts along each axis if they are tiles of one size that fill the input; else None."""
    starts = [sorted({part.box[axis][0] for part in places}) for axis in range(len(size))]
    lengths = {tuple(stop - start for start, stop in part.box) for part in places}
    corners = {tuple(start for start, _ in part.box) for part in places}
    if len(lengths) > 1 or len(corners) < len(places) or prod(map(len, starts)) != len(places):
        return None
    (length,) = lengths
    is_filled = all(
        own == [step * number for number in range(len(own))] and len(own) * step == full
        for own, step, full in zip(starts, length, size, strict=True)
    )
    return starts if is_filled else None


def put_together(cells: Sequence[Tensor], places: Sequence[Part], lattice: Sequence[Sequence[int]]) -> Tensor:
    """Return the maps of tiles (B, *shape) next to each other."""
    shape = cells[0].shape[1:]
    counts = [len(starts) for starts in lattice]
    result = cells[0].new_zeros(len(cells[0]), *(count * length for count, length in zip(counts, shape, strict=True)))
    for one, part in zip(cells, places, strict=True):
        numbers = [starts.index(start) for starts, (start, _) in zip(lattice, part.box, strict=True)]
        spans = (slice(n * length, (n + 1) * length) for n, length in zip(numbers, shape, strict=True))
        result[(slice(None), *spans)] = one
    return result


def paint(cells: Sequence[Tensor], places: Sequence[Part], size: tuple[int, ...]) -> Tensor:
    """Return the mean of the maps of parts (B, *shape), each resized to its box; 0 where no part is."""
    total = cells[0].new_zeros(len(cells[0]), *size)
    count = cells[0].new_zeros(size)
    for one, part in zip(cells, places, strict=True):
        box = tuple(stop - start for start, stop in part.box)
        total[part.index] += map_functions.resize(one, box)
        count[part.index] += 1
    return total / count.clamp(min=1)
