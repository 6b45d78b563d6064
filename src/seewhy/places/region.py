"""The region of its input that a network sees, if it crops, pads, resizes, mirrors or transposes it before anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.tensors import map_functions


@dataclass(frozen=True)
class Region:
    """A box of the input, as a network sees it.

    Attributes:
        box: For each axis of the input, the first position and the one after the last. Positions outside of the input are
            those that the network pads.
        order: The axes of the input in the order in which the network has them.
        mirrored: The axes along which the network sees the box in reverse order.

    >>> center = Region(((1, 3), (1, 3)), (0, 1))
    >>> center.cut(torch.arange(16.0).reshape(1, 1, 4, 4))[0, 0].tolist()
    [[5.0, 6.0], [9.0, 10.0]]
    """

    box: tuple[tuple[int, int], ...]
    order: tuple[int, ...]
    mirrored: tuple[int, ...] = ()

    @classmethod
    def entire(cls, size: Sequence[int]) -> Self:
        """Return the region that is an entire input of `size`."""
        return cls(tuple((0, length) for length in size), tuple(range(len(size))))

    def cut(self, inputs: Tensor) -> Tensor:
        """Return the region (B, C, *lengths) of inputs (B, C, *size), zero where the network pads."""
        values = self.cut_box(inputs)
        return values.flip([axis + 2 for axis in self.mirrored]).permute(0, 1, *(axis + 2 for axis in self.order))

    def cut_box(self, values: Tensor) -> Tensor:
        """Return the box of values (..., *size), with the axes of the input; zero outside of the input."""
        margins = self.margins(values.shape[-len(self.box) :])
        return F.pad(values, pads([(-before, -after) for before, after in margins]))

    def paste(self, inputs: Tensor, values: Tensor) -> Tensor:
        """Return inputs (N, C, *size): one input (1, C, *size), its region replaced by each of `values` (N, C, *lengths)."""
        around = pads(self.margins(inputs.shape[2:]))
        upright = self.upright(values.flatten(0, 1))
        values = upright.reshape(*values.shape[:2], *upright.shape[1:])
        inside = F.pad(torch.ones_like(values[:1]), around) != 0
        return torch.where(inside, F.pad(values, around), inputs)

    def place(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Return maps (B, *grid) of the region as maps (B, *cells) of an input of `size`, zero outside of the region.

        The cells of a region that is not the entire input are the positions of the input.

        >>> Region(((2, 4),), (0,)).place(torch.tensor([[1.0, 2.0]]), (5,)).tolist()
        [[0.0, 0.0, 1.0, 2.0, 0.0]]
        """
        maps = self.upright(maps)
        if self.is_entire(size):
            return maps
        return F.pad(map_functions.resize(maps, [stop - start for start, stop in self.box]), pads(self.margins(size)))

    def upright(self, maps: Tensor) -> Tensor:
        """Return maps (B, *grid) of the network with the axes of the input, in their direction."""
        maps = maps.permute(0, *(1 + self.order.index(axis) for axis in range(len(self.order))))
        return maps.flip([axis + 1 for axis in self.mirrored]) if self.mirrored else maps

    def fractions(self, box: Tensor, size: Sequence[int]) -> Tensor:
        """Return a box in fractions of an image of `size` (left, top, right, bottom) in fractions of the region."""
        starts, stops = box.reshape(2, 2).flip(1) * torch.tensor(size)  # (2, axes), rows first
        low, high = torch.tensor(self.box, dtype=box.dtype).T
        edges = torch.stack([(starts - low) / (high - low), (stops - low) / (high - low)])
        for axis in self.mirrored:
            edges[:, axis] = 1 - edges[:, axis].flip(0)
        return edges[:, list(self.order)].flip(1).flatten()

    def margins(self, size: Sequence[int]) -> list[tuple[int, int]]:
        """Return how much of the input lies before and after the region along each axis; negative where it is padded."""
        return [(start, length - stop) for (start, stop), length in zip(self.box, size, strict=True)]

    def is_entire(self, size: Sequence[int]) -> bool:
        return not any(side for sides in self.margins(size) for side in sides)

    def describe(self, size: Sequence[int]) -> str:
        """Return what the network sees of an input of `size`, in words.

        >>> Region(((16, 240), (-2, 226)), (1, 0), (0,)).describe((256, 224))
        'the network sees rows 16 to 239, mirrored; columns padded by 2 and 2; rows and columns exchanged'
        """
        names = ("rows", "columns") if len(size) == 2 else [f"axis {axis + 1}" for axis in range(len(size))]
        changes = []
        for axis, (name, (start, stop), length) in enumerate(zip(names, self.box, size, strict=True)):
            text = name
            if start > 0 or stop < length:
                text += f"{'' if len(size) == 2 else ' from'} {max(start, 0)} to {min(stop, length) - 1}"
            if start < 0 or stop > length:
                text += f" padded by {max(-start, 0)} and {max(stop - length, 0)}"
            if axis in self.mirrored:
                text += ", mirrored"
            changes += [text] if text != name else []
        if self.order != tuple(range(len(size))):
            order = ", ".join(str(axis + 1) for axis in self.order)
            changes.append("rows and columns exchanged" if len(size) == 2 else f"the axes in the order {order}")
        return f"the network sees {'; '.join(changes)}"


@dataclass(frozen=True)
class FieldOfView:
    """What a network sees of its input.

    Attributes:
        region: The region that its convolutions see; None if it is the entire input, or if it could not be observed.
        size: The lengths of the axes as the network sees them, in its own order.
        note: What was observed, or "".
        stem: The name of the first convolution that sees it.
        can_compare: True if what it sees resembles the region, so that this can be checked for each image.
        before: What each layer before the first convolution sees, by its name.
    """

    region: Region | None = None
    size: tuple[int, ...] = ()
    note: str = ""
    stem: str = ""
    can_compare: bool = False
    before: Mapping[str, FieldOfView] = field(default_factory=dict)

    def of(self, layer: str) -> FieldOfView:
        """Return what a layer sees."""
        return self.before.get(layer, self)


def pads(sides: Sequence[tuple[int, int]]) -> list[int]:
    """Return what to add before and after each axis in the order of `F.pad`, which starts with the last axis."""
    return [side for pair in reversed(sides) for side in pair]
