"""Any layer's output as (B, K, *grid): where its cells are, and which axis holds the channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

Layout = Literal["channels_first", "channels_last", "tokens", "tokens_last"]
MAX_PREFIX = 16  # class, distillation and register tokens before the picture's own


@dataclass(frozen=True)
class Grid:
    """How a layer's output lies on the picture.

    `shape` is the grid, for example (7, 7); `layout` where channels and cells are: "channels_first" (B, K, *grid),
    "channels_last" (B, *grid, K), "tokens" (B, prefix + cells, K), "tokens_last" (B, K, prefix + cells); `prefix` counts
    the tokens before the first cell, which belong to no place. `confirmed` is False where nothing seen in the network
    tells channels from cells and the usual order was assumed.

    >>> import torch
    >>> Grid((2, 3), "tokens", prefix=1).channels_first(torch.zeros(5, 7, 8)).shape
    torch.Size([5, 8, 2, 3])
    """

    shape: tuple[int, ...]
    layout: Layout = "channels_first"
    prefix: int = 0
    confirmed: bool = True

    def channels_first(self, output: Tensor) -> Tensor:
        """The layer's output, or its gradient, as (B, K, *grid): a view wherever possible."""
        match self.layout:
            case "channels_first":
                return output
            case "channels_last":
                return output.movedim(-1, 1)
            case "tokens":
                output = output.transpose(1, 2)
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
        first = original if self.layout == "tokens_last" else original.transpose(1, 2)
        prefix = first[:, :, : self.prefix].to(values.dtype).expand(len(values), -1, -1)
        tokens = torch.cat([prefix, values.flatten(2)], 2)
        return tokens if self.layout == "tokens_last" else tokens.transpose(1, 2)

    @property
    def cells(self) -> int:
        return prod(self.shape)

    def __str__(self) -> str:
        return grid_text(self.shape)


def grid_text(shape: Sequence[int]) -> str:
    """A grid for people: "7x7"."""
    return "x".join(map(str, shape))


def find_grid(output: Tensor, inputs: Sequence[int], known: Iterable[tuple[int, ...]]) -> Grid | None:
    """The grid of a layer that is no convolution, or None where it has none.

    `output` is the layer's output, `inputs` the shape (B, C, *size) of the network's input, `known` the grids of the
    convolutions and poolings seen so far in this forward, latest first. Their halves count as known too, as networks
    merge patches without a convolution. A 4-D output takes the order of axes that gives a known grid; a 3-D output is
    read as tokens with the smallest prefix.
    """
    size = tuple(inputs[2:])
    if output.dim() < 3 or output.shape[0] != inputs[0]:
        return None
    known = with_halves(known)
    if output.dim() == len(size) + 2:
        first, last = tuple(output.shape[2:]), tuple(output.shape[1:-1])
        if first in known:
            return Grid(first)
        if last in known:
            return Grid(last, "channels_last")
        if len(size) == 1 and (found := token_grid(output, size, known)) is not None:
            return found  # tokens of a signal have as many axes as its channels
        return Grid(first, confirmed=False) if fits(first, size) else None
    if output.dim() == 3:
        return token_grid(output, size, known)
    return None


def token_grid(output: Tensor, size: tuple[int, ...], known: Sequence[tuple[int, ...]]) -> Grid | None:
    if not known and len(size) == 2:  # no convolution so far: the smallest prefix whose rest has the picture's aspect
        height, width = size
        tokens = output.shape[1]
        known = [
            (rows, (tokens - prefix) // rows)
            for prefix in range(MAX_PREFIX + 1)
            for rows in range(2, tokens)
            if (tokens - prefix) % rows == 0 and rows * width == (tokens - prefix) // rows * height
        ][:1]
    layouts: list[tuple[Layout, int]] = [("tokens", output.shape[1]), ("tokens_last", output.shape[2])]
    for layout, tokens in layouts:
        grids = [Grid(shape, layout, tokens - prod(shape)) for shape in known if len(shape) == len(size)]
        grids = [grid for grid in grids if 0 <= grid.prefix <= MAX_PREFIX and grid.cells > tokens // 2]
        if grids:
            return min(grids, key=lambda grid: grid.prefix)
    return None


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
