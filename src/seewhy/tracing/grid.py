"""The grid of a layer: how its output maps to positions in the input.

A map needs activations as (B, K, *grid): channels first, then one axis per spatial axis of the input. Convolutions return that
layout; transformers return tokens (B, N, K), often with a class token before the patches; some networks put channels last or
the batch second. A `Grid` describes one such layout and converts in both directions. A `GridHint` is a grid stated by the
user or by the model, and `parse_grid` reads it from text. `grid_inference` determines the grid of an output without a hint.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import torch
from torch import Tensor

from seewhy.errors import OptionError
from seewhy.places.parts import Parts, place_maps
from seewhy.places.region import Region

Layout = Literal["channels_first", "channels_last", "tokens", "tokens_last", "batch_second"]
TOKEN_LAYOUTS = ("tokens", "tokens_last", "batch_second")
MAX_OTHER = 2048  # tokens of text, detections and others; their places are observed
MAX_PREFIX = 16  # class, distillation and register tokens before those of the patches


@dataclass(frozen=True)
class Grid:
    """The layout of a layer's output.

    Attributes:
        shape: The length of each spatial axis, for example (7, 7).
        layout: "channels_first" (B, K, *shape), "channels_last" (B, *shape, K), "tokens" (B, N, K), "tokens_last" (B, K, N)
            or "batch_second" (N, B, K), with N = prefix + cells tokens.
        prefix: The number of tokens before the first cell. They have no position.
        parts: The parts of each input that the rows are, if there are several rows per input. `shape` is then the grid of one.
        region: The region of the input that the grid covers; None: all of it.
        cells: The token of each cell, if other tokens come between or after them. None: those after the prefix, in order.
        unit_axes: Axes of the output of length 1 that the input does not have, as after (n, 1) convolutions of a signal.
        is_confirmed: False if nothing in the network distinguishes channels from cells, so channels first was assumed.
        other_reading: Another grid with other axes, if the shape of the output fits both.
        source: How the grid was determined, in words.
        alternatives: Other grids that fit the output equally well.

    >>> import torch
    >>> Grid((2, 3), "tokens", prefix=1).channels_first(torch.zeros(5, 7, 8)).shape
    torch.Size([5, 8, 2, 3])
    """

    shape: tuple[int, ...]
    layout: Layout = "channels_first"
    prefix: int = 0
    parts: Parts | None = None
    region: Region | None = None
    cells: tuple[int, ...] | None = None
    unit_axes: tuple[int, ...] = ()
    is_confirmed: bool = True
    other_reading: Grid | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)
    alternatives: tuple[Grid, ...] = field(default=(), compare=False)

    def channels_first(self, output: Tensor) -> Tensor:
        """Return the layer's output, or its gradient, as (B, K, *shape): a view wherever possible.

        With parts, the first axis is (B * parts), the parts of an input next to each other.
        """
        if self.parts is not None:
            output = self.parts.own_rows(output)
        match self.layout:
            case "channels_first":
                return output.squeeze(self.unit_axes) if self.unit_axes else output
            case "channels_last":
                return output.movedim(-1, 1)
        tokens = self._tokens_last(output)
        return self.take_cells(tokens).reshape(*tokens.shape[:2], *self.shape)

    def restore(self, values: Tensor, original: Tensor) -> Tensor:
        """Return `values` (R, K, *shape) in the layer's own layout, with the other tokens of `original`, an output with B = 1.

        >>> import torch
        >>> grid, output = Grid((2, 3), "tokens", prefix=1), torch.rand(1, 7, 8)
        >>> torch.equal(grid.restore(grid.channels_first(output), output), output)
        True
        """
        match self.layout:
            case "channels_first":
                for axis in self.unit_axes:
                    values = values.unsqueeze(axis)
                return values
            case "channels_last":
                return values.movedim(1, -1)
        tokens = self._tokens_last(original).to(values.dtype).repeat(len(values), 1, 1)
        tokens[:, :, list(self.token_indices())] = values.flatten(2)
        match self.layout:
            case "tokens":
                return tokens.transpose(1, 2)
            case "batch_second":
                return tokens.permute(2, 0, 1)
        return tokens

    def restore_part(self, values: Tensor, original: Tensor, number: int) -> Tensor:
        """Return `values` (R, K, *shape) of one part, next to the other rows of `original`, as rows (R * rows, ...)."""
        assert self.parts is not None
        rows = self.parts.image_major(original)
        result = rows.to(values.dtype).repeat(len(values), *[1] * (rows.dim() - 1))
        row = self.parts.row_of(number)
        result[row :: self.parts.rows] = self.restore(values, rows[row : row + 1])
        return self.parts.model_order(result)

    def token_indices(self) -> Sequence[int]:
        """Return the token of each cell."""
        return range(self.prefix, self.prefix + self.cell_count) if self.cells is None else self.cells

    def take_cells(self, tokens: Tensor) -> Tensor:
        """Return the tokens of the cells from tokens (..., N)."""
        if self.cells is None:
            return tokens[..., self.prefix : self.prefix + self.cell_count]
        return tokens[..., torch.tensor(self.cells, device=tokens.device)]

    def all_tokens(self, output: Tensor) -> Tensor:
        """Return an output as (rows, K, N) tokens, the parts of an input next to each other; cells count as tokens."""
        if self.layout not in TOKEN_LAYOUTS:
            return self.channels_first(output).flatten(2)
        return self._tokens_last(output if self.parts is None else self.parts.own_rows(output))

    def _tokens_last(self, output: Tensor) -> Tensor:
        """Return an output in one of the token layouts as (B, K, N)."""
        match self.layout:
            case "tokens":
                return output.transpose(1, 2)
            case "batch_second":
                return output.permute(1, 2, 0)
        return output

    @property
    def cell_count(self) -> int:
        return prod(self.shape)

    def __str__(self) -> str:
        return format_grid(self.shape)

    @property
    def part_count(self) -> int:
        return 1 if self.parts is None else len(self.parts)

    def place(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Return maps (B, *shape), or (B, parts, *shape), as maps (B, *cells) of an input of `size`."""
        return place_maps(maps, size, self.parts.places if self.parts and self.has_part_axis else (), self.region)

    def split_parts(self, maps: Tensor) -> Tensor:
        """Return maps (B * parts, ...) as (B, parts, ...); without an axis for parts unchanged."""
        return maps.reshape(-1, self.part_count, *maps.shape[1:]) if self.has_part_axis else maps

    @property
    def has_part_axis(self) -> bool:
        """True if maps are `(B, parts, *shape)`."""
        return self.parts is not None and not self.parts.is_sole_row


@dataclass(frozen=True)
class GridHint:
    """A grid stated by the user or the model: its shape, and the number of tokens before it (None: any number)."""

    shape: tuple[int, ...]
    prefix: int | None = None
    source: str = field(default="as given", compare=False)

    def fits(self, tokens: int, most: int = MAX_PREFIX) -> bool:
        """Return True if this many tokens can be the grid with its prefix, or with at most `most` other tokens."""
        prefix = tokens - prod(self.shape)
        if self.prefix is None:
            return 0 <= prefix <= most
        return prefix in (0, self.prefix)  # 0: layers before the class token is added

    def __str__(self) -> str:
        return format_grid(self.shape, self.prefix or 0)


GridSpec = str | Sequence[int] | Grid | GridHint | None  # what `grid=` accepts


def format_grid(shape: Sequence[int], prefix: int = 0) -> str:
    """Return a grid as text that `parse_grid` reads: "7x7", or "14x14+1" with a prefix of one token."""
    text = "x".join(map(str, shape))
    return f"{text}+{prefix}" if prefix else text


def parse_grid(value: GridSpec) -> GridHint:
    """Parse a user's grid: a `Grid`, the lengths of its axes, "14x14", or "14x14+1" for one token before the first cell.

    >>> parse_grid("14x14+5").prefix, parse_grid((7, 9)).shape
    (5, (7, 9))

    Raises UsageError for anything else.
    """
    match value:
        case GridHint():
            return value
        case Grid():
            return GridHint(value.shape, value.prefix)
        case str() if match := re.fullmatch(r"\s*(\d+(?:\s*[x×]\s*\d+)*)\s*(?:\+\s*(\d+)\s*)?", value):
            shape = tuple(int(length) for length in re.findall(r"\d+", match[1]))
            hint = GridHint(shape, int(match[2]) if match[2] else None)
        case [*lengths] if lengths and all(isinstance(item, int) and not isinstance(item, bool) for item in lengths):
            hint = GridHint(tuple(lengths))
        case _:
            hint = GridHint(())
    if not hint.shape or min(hint.shape) < 1:
        raise OptionError(
            "grid", value, "pass rows and columns, such as '14x14', or '14x14+1' if one token comes before the grid."
        )
    return hint
