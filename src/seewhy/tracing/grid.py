"""Any layer's output as (B, K, *grid): where its cells are, and which axis holds the channels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from seewhy.errors import UsageError

Layout = Literal["channels_first", "channels_last", "tokens", "tokens_last", "batch_second"]
TOKENS = ("tokens", "tokens_last", "batch_second")
MAX_PREFIX = 16  # class, distillation and register tokens before the picture's own


@dataclass(frozen=True)
class Grid:
    """How a layer's output lies on the picture.

    `shape` is the grid, for example (7, 7); `layout` where channels and cells are: "channels_first" (B, K, *grid),
    "channels_last" (B, *grid, K), "tokens" (B, prefix + cells, K), "tokens_last" (B, K, prefix + cells), "batch_second"
    (prefix + cells, B, K); `prefix` counts the tokens before the first cell, which belong to no place. `confirmed` is
    False where nothing seen in the network tells channels from cells and the usual order was assumed. `source` says in
    words how it is known; `others` are readings that fit as well.

    >>> import torch
    >>> Grid((2, 3), "tokens", prefix=1).channels_first(torch.zeros(5, 7, 8)).shape
    torch.Size([5, 8, 2, 3])
    """

    shape: tuple[int, ...]
    layout: Layout = "channels_first"
    prefix: int = 0
    is_confirmed: bool = True
    source: str = field(default="", compare=False)
    alternatives: tuple[Grid, ...] = field(default=(), compare=False)

    def channels_first(self, output: Tensor) -> Tensor:
        """The layer's output, or its gradient, as (B, K, *grid): a view wherever possible."""
        match self.layout:
            case "channels_first":
                return output
            case "channels_last":
                return output.movedim(-1, 1)
            case "tokens":
                output = output.transpose(1, 2)
            case "batch_second":
                output = output.permute(1, 2, 0)
        return output[:, :, self.prefix :].reshape(*output.shape[:2], *self.shape)

    def restore(self, values: Tensor, original: Tensor) -> Tensor:
        """(N, K, *grid) back in the layer's own order; tokens that stand for no place come from `original` (1, ...).

        >>> import torch
        >>> grid, output = Grid((2, 3), "tokens", prefix=1), torch.rand(1, 7, 8)
        >>> torch.equal(grid.restore(grid.channels_first(output), output), output)
        True
        """
        if self.layout == "channels_first":
            return values
        if self.layout == "channels_last":
            return values.movedim(1, -1)
        match self.layout:
            case "tokens":
                original = original.transpose(1, 2)
            case "batch_second":
                original = original.permute(1, 2, 0)
        prefix = original[:, :, : self.prefix].to(values.dtype).expand(len(values), -1, -1)
        tokens = torch.cat([prefix, values.flatten(2)], 2)
        match self.layout:
            case "tokens":
                return tokens.transpose(1, 2)
            case "batch_second":
                return tokens.permute(2, 0, 1)
        return tokens

    @property
    def cell_count(self) -> int:
        return prod(self.shape)

    def __str__(self) -> str:
        return format_grid(self.shape)


def format_grid_with_prefix(shape: Sequence[int], prefix: int) -> str:
    """A grid as it can be given: "14x14+1"."""
    return f"{format_grid(shape)}+{prefix}" if prefix else format_grid(shape)


def format_grid(shape: Sequence[int]) -> str:
    """A grid for people: "7x7"."""
    return "x".join(map(str, shape))


@dataclass(frozen=True)
class GridHint:
    """A grid that somebody says, the user or the model: its shape, the tokens before it (None: any number), and who."""

    shape: tuple[int, ...]
    prefix: int | None = None
    source: str = field(default="as was given", compare=False)

    def reads(self, tokens: int) -> bool:
        before = tokens - prod(self.shape)  # before the class token is added there is none
        return before in (0, self.prefix) if self.prefix is not None else 0 <= before <= MAX_PREFIX

    def __str__(self) -> str:
        return format_grid_with_prefix(self.shape, self.prefix or 0)


GridSpec = str | Sequence[int] | Grid | GridHint | None  # what `grid=` accepts


def parse_grid(value: Any) -> GridHint:
    """A grid as a user may write it: a Grid, rows and columns, "14x14", or "14x14+1" for one token before the first cell.

    >>> parse_grid("14x14+5").prefix, parse_grid((7, 9)).shape
    (5, (7, 9))

    Raises UsageError for anything else.
    """
    match value:
        case GridHint():
            return value
        case Grid():
            return GridHint(value.shape, value.prefix)
        case str() if found := re.fullmatch(r"\s*(\d+(?:\s*[x×]\s*\d+)*)\s*(?:\+\s*(\d+)\s*)?", value):
            shape = tuple(int(length) for length in re.findall(r"\d+", found[1]))
            hint = GridHint(shape, int(found[2]) if found[2] else None)
        case [*lengths] if lengths and all(isinstance(item, int) and not isinstance(item, bool) for item in lengths):
            hint = GridHint(tuple(lengths))
        case _:
            hint = GridHint(())
    if not hint.shape or min(hint.shape) < 1:
        raise UsageError(
            f"grid={value!r}: give rows and columns, as (14, 14) or '14x14', and '14x14+1' where one token stands before them."
        )
    return hint


def find_grid(
    output: Tensor, inputs: Sequence[int], known: Iterable[tuple[int, ...]], hints: Sequence[GridHint] = ()
) -> Grid | None:
    """The grid of a layer that is no convolution, or None where it has none.

    `output` is the layer's output, `inputs` the shape (B, C, *size) of the network's input, `known` the grids of the
    convolutions and poolings seen so far in this forward, latest first. Their halves count as known too, as networks
    merge patches without a convolution. `hints` come before what is known. A 4-D output takes the order of axes that
    gives a known grid; a 3-D output is read as tokens with the smallest prefix.
    """
    size = tuple(inputs[2:])
    batch_second = output.dim() == 3 and output.shape[1] == inputs[0]
    if output.dim() < 3 or (output.shape[0] != inputs[0] and not batch_second):
        return None
    known = with_halves(known)
    if output.shape[0] == inputs[0] and output.dim() == len(size) + 2:
        first, last = tuple(output.shape[2:]), tuple(output.shape[1:-1])
        for hint in hints:
            if hint.shape in (first, last):
                return Grid(
                    hint.shape, "channels_first" if hint.shape == first else "channels_last", source=hint.source
                )
        if first in known:
            return Grid(first)
        if last in known:
            return Grid(last, "channels_last")
        if len(size) == 1 and (found := token_grid(output, inputs, known, hints)) is not None:
            return found  # tokens of a signal have as many axes as its channels
        return Grid(first, is_confirmed=False) if fits(first, size) else None
    return token_grid(output, inputs, known, hints) if output.dim() == 3 else None


def token_grid(
    output: Tensor, inputs: Sequence[int], known: Sequence[tuple[int, ...]], hints: Sequence[GridHint]
) -> Grid | None:
    size = tuple(inputs[2:])
    layouts: list[tuple[Layout, int]] = [("tokens", output.shape[1]), ("tokens_last", output.shape[2])]
    if output.shape[0] != inputs[0]:
        layouts = [("batch_second", output.shape[0])]
    for hint in hints:
        for layout, tokens in layouts:
            if len(hint.shape) == len(size) and hint.reads(tokens):
                return Grid(hint.shape, layout, tokens - prod(hint.shape), source=hint.source)
    for layout, tokens in layouts:
        grids = [Grid(shape, layout, tokens - prod(shape)) for shape in known if len(shape) == len(size)]
        grids = [grid for grid in grids if 0 <= grid.prefix <= MAX_PREFIX and grid.cell_count > tokens // 2]
        if grids:
            least = min(grid.prefix for grid in grids)
            return chosen(
                [grid for grid in grids if grid.prefix == least], "like the convolutions or poolings before it"
            )
    if not known and len(size) == 2 and layouts[0][0] == "tokens":
        return chosen(readings(output.shape[1], size), "by their number and the picture's aspect")
    return None


def readings(tokens: int, size: Sequence[int]) -> list[Grid]:
    """The grids as which so many tokens may be read where no convolution came before; several where they fit equally.

    Square patches of whole pixels come first, then the picture's exact aspect, then any within a cell of it; of equals
    the only one with at most a class token before the cells.

    >>> [(str(grid), grid.prefix) for grid in readings(197, (224, 224))]
    [('14x14', 1)]
    """
    height, width = size
    ranked: dict[int, list[Grid]] = {}
    for prefix in range(MAX_PREFIX + 1):
        cells = tokens - prefix
        for rows in range(2, cells // 2 + 1) if cells > tokens // 2 else ():
            columns = cells // rows
            if rows * columns == cells and fits((rows, columns), (height, width)):
                whole = height % rows == 0 and width % columns == 0 and height // rows == width // columns
                rank = 0 if whole else 1 if rows * width == columns * height else 2
                if rank == 2 and min(rows, columns) < 4:
                    continue  # almost any number is some cells of about that aspect
                ranked.setdefault(rank, []).append(Grid((rows, columns), "tokens", prefix))
    best = ranked[min(ranked)] if ranked else []
    usual = [grid for grid in best if grid.prefix <= 1]
    return usual or best


def chosen(grids: Sequence[Grid], source: str) -> Grid | None:
    if not grids:
        return None
    return replace(grids[0], source=source, alternatives=tuple(grids[1:]))


def with_halves(grids: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for grid in grids:
        while min(grid) >= 2:
            if grid not in found:
                found.append(grid)
            grid = tuple(-(-length // 2) for length in grid)
            if grid in found:
                break
    return found


def fits(grid: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether a grid has the input's aspect, up to one cell, and is no finer than the input."""
    if len(grid) != len(size) or min(grid) < 2:
        return False
    return all(
        length <= full and abs(length - grid[-1] * full / size[-1]) <= 1
        for length, full in zip(grid, size, strict=True)
    )
