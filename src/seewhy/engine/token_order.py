"""Check that the tokens of a layer lie where their grid places them.

The first layer with the same tokens usually sees a small part of the input with each token, its patch. Its position is then
known exactly, whatever the weights are. Where every token sees most of the input, the place with the most influence is
compared, which a token's neighbor may have.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.errors import LayerError
from seewhy.tracing.grid import Grid
from seewhy.tracing.layer_selection import LIST_LAYERS
from seewhy.tracing.trace import LayerCall, Trace

CHECKED_CELLS = 12  # random cells whose exact location is checked, in addition to the first and the last one
CHECKED_LATER = 4  # of these, cells whose rough location is checked in the layer itself
TRIED_LAYERS = 4  # the first layers with the tokens: one of them must see patches
VAGUE = 1.5  # a cell whose strongest location is below this multiple of the mean has no location
LOCAL = 0.6  # a token that sees less than this fraction of each axis has an exact location
MAX_SHIFT = 0.75  # distance of that location from the cell's center, in cells

UNCHECKED = (
    "each of its tokens depends on the entire image alike, so their order could not be checked; row order is assumed"
)


def check_token_order(call: LayerCall, trace: Trace, generator: torch.Generator) -> str:
    """Check the first layer with the tokens of `call`, then `call` itself.

    Returns a note if the order could not be checked; otherwise "".

    Raises:
        LayerError: A cell depends mostly on another location.
    """
    grid = call.grid
    assert grid is not None
    size = tuple(trace.inputs.shape[2:])
    cells = torch.randperm(grid.cell_count, generator=generator)[:CHECKED_CELLS].tolist()
    is_known = False
    local = local_tokens(grid, trace, generator)
    for cell in (0, grid.cell_count - 1, *cells) if local is not None else ():
        influence = influence_of(local, grid, cell, trace, generator)
        place = exact_place(influence, size, grid.shape)
        if not influence.any():  # a class token where a patch should be
            check_distance(float("inf"), MAX_SHIFT, call)
        if place is not None:
            is_known = True
            distances = (abs(own - index - 0.5) for own, index in zip(place, unravel(cell, grid.shape), strict=True))
            check_distance(max(distances), MAX_SHIFT, call)
    for cell in cells[:CHECKED_LATER]:
        peak = rough_place(influence_of(call.output, grid, cell, trace, generator), grid.shape)
        if peak is not None:
            is_known = True
            distances = (abs(own - index) for own, index in zip(peak, unravel(cell, grid.shape), strict=True))
            check_distance(max(distances), 1, call)
    return "" if is_known else UNCHECKED


def check_distance(distance: float, allowed: float, call: LayerCall) -> None:
    """Raise LayerError if a token lies too many cells away from its cell."""
    if distance > allowed:
        raise LayerError(
            call.name,
            f"its tokens were read as a {call.grid} grid, but they are not in that order. Select a layer before they are "
            f"shuffled, or give the grid: grid='{call.grid}'. {LIST_LAYERS}",
        )


def local_tokens(grid: Grid, trace: Trace, generator: torch.Generator) -> Tensor | None:
    """Return the first tokens with this grid of which each sees a part of the input only; None without any."""
    size = tuple(trace.inputs.shape[2:])
    alike = [call for call in trace.calls if call.grid == grid][:TRIED_LAYERS]
    for call in alike:
        for tokens in (call.input, call.output):
            is_usable = tokens is not None and tokens.shape == call.output.shape and tokens.requires_grad
            if tokens is None or not is_usable:
                continue
            ends = (influence_of(tokens, grid, cell, trace, generator) for cell in (grid.cell_count - 1, 0))
            if any(exact_place(influence, size, grid.shape) is not None for influence in ends):
                return tokens
    return None


def influence_of(output: Tensor | None, grid: Grid, cell: int, trace: Trace, generator: torch.Generator) -> Tensor:
    """Return how much each position of the input (*size) changes a token, for a random direction of its channels."""
    assert output is not None
    tokens = grid.channels_first(output).flatten(2)
    direction = torch.randn(tokens.shape[:2], generator=generator).to(tokens)
    score = (tokens[:, :, cell] * direction).sum()
    (gradient,) = torch.autograd.grad(score, trace.inputs, retain_graph=True, allow_unused=True)
    return torch.zeros_like(trace.inputs[0, 0]) if gradient is None else gradient[0].abs().sum(0)


def exact_place(influence: Tensor, size: tuple[int, ...], grid: tuple[int, ...]) -> tuple[float, ...] | None:
    """Return the center of the part of the input that a token sees, in cells; None if that is most of the input, or nothing.

    >>> influence = torch.zeros(8, 8)
    >>> influence[2:4, 6:8] = 1
    >>> exact_place(influence, (8, 8), (4, 4))
    (1.5, 3.5)
    """
    place = []
    for axis, (length, cells) in enumerate(zip(size, grid, strict=True)):
        others = [other for other in range(len(size)) if other != axis]
        used = (influence.sum(others) if others else influence).nonzero().flatten()
        if not len(used):
            return None
        start, stop = int(used[0]), int(used[-1]) + 1
        if stop - start > max(LOCAL * length, 1) and cells > 1:
            return None
        place.append((start + stop) / 2 * cells / length)
    return tuple(place)


def rough_place(influence: Tensor, grid: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the cell with the most influence; None if all cells have a similar one."""
    pool: Any = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(grid)]
    pooled = pool(influence[None, None], grid).flatten()
    peak = int(pooled.argmax())
    return None if pooled[peak] < VAGUE * pooled.mean() or not pooled[peak] else unravel(peak, grid)


def unravel(cell: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Return the indices of a cell that is counted row by row."""
    return tuple(cell // prod(grid[axis + 1 :]) % grid[axis] for axis in range(len(grid)))
