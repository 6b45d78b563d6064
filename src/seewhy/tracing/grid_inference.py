"""Infer the grid of a layer's output from its shape, the input's shape and the grids seen earlier in the forward pass.

Convolutions and poolings return channels first by definition, so their grids are certain and are called *known* here. Any other
output is compared with them: one with the input's rank takes the axis order that gives a known grid, and tokens take the
known grid that leaves the fewest tokens over. Networks halve their grid without a convolution when they merge patches, so
halves of known grids count as known. Hints from the user and the model come before all of that. Without any known grid,
tokens are read as the grids that fit the aspect ratio of the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from math import prod

from torch import Tensor

from seewhy.tracing.grid import MAX_OTHER, MAX_PREFIX, Grid, GridHint, Layout

AS_LONG = "as long as the input"


def find_grid(
    output: Tensor,
    input_shape: Sequence[int],
    known: Iterable[tuple[int, ...]],
    hints: Sequence[GridHint] = (),
    channels: int = 0,
) -> Grid | None:
    """Return the grid of a layer's output, or None if it has none.

    Args:
        output: The output of the layer.
        input_shape: The shape (B, C, *size) of the model's input.
        known: The grids of the convolutions and poolings that ran before the layer, latest first.
        hints: Grids stated by the user or the model.
        channels: The number of channels of the last of them.
    """
    if output.dim() < 3:
        return None
    batch = input_shape[0]
    is_batch_first = output.shape[0] == batch
    is_batch_second = output.dim() == 3 and output.shape[1] == batch
    if not (is_batch_first or is_batch_second):
        return None
    known = [shape for shape in dict.fromkeys(known) if max(shape, default=0) >= 2]
    if is_batch_first and output.dim() == len(input_shape):
        return spatial_grid(output, input_shape, known, hints, channels)
    return token_grid(output, input_shape, known, hints) if output.dim() == 3 else None


def spatial_grid(
    output: Tensor,
    input_shape: Sequence[int],
    known: Sequence[tuple[int, ...]],
    hints: Sequence[GridHint],
    channels: int = 0,
) -> Grid | None:
    """Return the grid of an output with the input's rank, whose channels are first or last."""
    size = tuple(input_shape[2:])
    first, last = tuple(output.shape[2:]), tuple(output.shape[1:-1])
    for hint in hints:
        if hint.shape == first:
            return Grid(first, source=hint.source)
        if hint.shape == last:
            return Grid(last, "channels_last", source=hint.source)
    ranked = list(dict.fromkeys((*known, *with_halves(known))))  # those of convolutions first, the latest of them first
    channels_last: Layout = "channels_last" if len(size) > 1 else "tokens"  # (B, N, K), whose order is observed
    readings = [Grid(first), Grid(last, channels_last)]
    readings = sorted((grid for grid in readings if grid.shape in ranked), key=lambda grid: ranked.index(grid.shape))
    is_resized = output.shape[1] == channels and max(first) >= 2  # such as by adaptive pooling
    if readings == [Grid(last, channels_last)] and is_resized:
        readings.append(Grid(first))
    has_own_channels = [grid.channels_first(output).shape[1] == channels for grid in readings]
    if len(readings) == 1 or has_own_channels == [True, False]:
        return readings[0]
    if not readings:
        is_first, is_last = is_resized or is_reduced(first, known), is_reduced(last, known)
        if is_last and not is_first:
            return Grid(last, channels_last)
        readings = [Grid(first)] * is_first + [Grid(last, channels_last)] * is_last
    if readings:
        best, *others = (replace(grid, is_confirmed=False) for grid in readings)
        return replace(best, other_reading=others[0] if others else None)
    if len(size) == 1 and not known:
        return sequence_grid(output, size[0])
    if len(size) == 1:  # (B, N, K) has the rank of a signal (B, C, length)
        tokens = token_grid(output, input_shape, known, hints)
        if tokens is not None:
            return tokens
    return Grid(first, is_confirmed=False) if has_input_aspect(first, size) else None


def sequence_grid(output: Tensor, length: int) -> Grid:
    """Return the grid of an output (B, N, K) or (B, K, N) of a network without convolutions, for an input of a length.

    An axis as long as the input is that of positions. Otherwise both readings are checked.
    """
    tokens, channels_first = output.shape[1:]
    prefix = tokens - length if 0 <= tokens - length <= MAX_PREFIX else 0
    as_tokens = Grid(
        (tokens - prefix,), "tokens", prefix, is_confirmed=False, source=AS_LONG if tokens >= length else ""
    )
    as_signal = Grid((channels_first,), is_confirmed=False)
    is_signal = channels_first == length
    if as_tokens.shape == (length,) and not is_signal:
        return as_tokens
    if is_signal and as_tokens.shape != (length,):
        return as_signal
    return replace(as_tokens, other_reading=as_signal)


def token_grid(
    output: Tensor, input_shape: Sequence[int], known: Sequence[tuple[int, ...]], hints: Sequence[GridHint]
) -> Grid | None:
    """Return the grid of an output of rank 3 as tokens: from a hint, else from the known grids with the smallest prefix."""
    size = tuple(input_shape[2:])
    layouts: list[tuple[Layout, int]] = [("tokens", output.shape[1]), ("tokens_last", output.shape[2])]
    if output.shape[0] != input_shape[0]:
        layouts = [("batch_second", output.shape[0])]
    if not known and not hints and size == (output.shape[0],) and layouts[0][0] == "batch_second":
        return Grid(size, "batch_second", source=AS_LONG)
    for hint in hints:
        for layout, tokens in layouts:
            # Hidden units on the last axis are as many as a grid by chance, so that other tokens there must be stated.
            most = 0 if layout == "tokens_last" else MAX_OTHER
            if len(hint.shape) == len(size) and hint.fits(tokens, most):
                return Grid(hint.shape, layout, tokens - prod(hint.shape), source=hint.source)
    known = [shape for shape in known if len(shape) == len(size)]
    source, usual = "like the convolutions or poolings before it", with_halves(known)
    shapes = dict.fromkeys([*usual, *reductions(known)])
    for layout, tokens in layouts:
        grids = [Grid(shape, layout, tokens - prod(shape), source=source) for shape in shapes]
        most = 0 if layout == "tokens_last" else MAX_PREFIX
        grids = [grid for grid in grids if 0 <= grid.prefix <= most and grid.cell_count > tokens // 2]
        if grids:
            grids.sort(key=lambda grid: (grid.prefix, grid.shape not in usual))
            best, *others = grids
            if best.shape not in usual and layout == "tokens" and output.shape[2] in map(prod, usual):
                transposed = next(shape for shape in usual if prod(shape) == output.shape[2])
                return Grid(transposed, "tokens_last", source=source, other_reading=best)
            if best.shape not in usual:
                return replace(best, other_reading=others[0] if others else None)
            fitting = [grid for grid in grids if grid.prefix == best.prefix and grid.shape in usual]
            if len([grid for grid in fitting if grid.shape in known]) == 1:  # the others are halves of a larger grid
                fitting.sort(key=lambda grid: grid.shape not in known)
                return replace(fitting[0], other_reading=fitting[1] if fitting[1:] else None)
            return first_with_alternatives(fitting, source)
    if not known and len(size) == 2 and layouts[0][0] == "tokens":
        grids = possible_token_grids(output.shape[1], size)
        return first_with_alternatives(grids, "from the number of tokens and the aspect ratio of the input")
    return None


def possible_token_grids(tokens: int, size: Sequence[int]) -> list[Grid]:
    """Return the grids that fit this number of tokens best, for an input of `size` (height, width) without known grids.

    Ranks, best first: square patches of an integer number of pixels; the exact aspect ratio of the input; the aspect ratio
    up to one cell. Within the best rank, grids with at most one prefix token (a class token) are preferred.

    >>> [(str(grid), grid.prefix) for grid in possible_token_grids(197, (224, 224))]
    [('14x14', 1)]
    """
    height, width = size
    ranked: dict[int, list[Grid]] = {}
    for prefix in range(MAX_PREFIX + 1):
        cells = tokens - prefix
        for rows in range(2, cells // 2 + 1) if cells > tokens // 2 else ():
            columns = cells // rows
            if rows * columns == cells and has_input_aspect((rows, columns), (height, width)):
                is_divisible = height % rows == 0 and width % columns == 0
                has_square_patches = is_divisible and height // rows == width // columns
                rank = 0 if has_square_patches else 1 if rows * width == columns * height else 2
                if rank == 2 and min(rows, columns) < 4:
                    continue  # almost any small number of tokens has some factors of roughly that ratio
                ranked.setdefault(rank, []).append(Grid((rows, columns), "tokens", prefix))
    best = ranked[min(ranked)] if ranked else []
    usual = [grid for grid in best if grid.prefix <= 1]
    return usual or best


def first_with_alternatives(grids: Sequence[Grid], source: str) -> Grid | None:
    """Return the first grid, with the others as its alternatives."""
    if not grids:
        return None
    return replace(grids[0], source=source, alternatives=tuple(grids[1:]))


def with_halves(shapes: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return each shape followed by its halves (rounded up) down to a length of 2, without repetitions."""
    result: list[tuple[int, ...]] = []
    for shape in shapes:
        if max(shape, default=0) >= 2 and shape not in result:
            result.append(shape)
        while min(shape, default=0) >= 3:
            shape = tuple(-(-length // 2) for length in shape)
            if shape in result:
                break
            result.append(shape)
    return result


def is_reduced(shape: tuple[int, ...], known: Iterable[tuple[int, ...]]) -> bool:
    """Return True for a known grid with some axes halved, or reduced to one cell.

    >>> is_reduced((4, 8, 12), [(4, 16, 24)]), is_reduced((16, 1), [(16, 8)]), is_reduced((16, 3), [(16, 8)])
    (True, True, False)
    """
    return max(shape, default=0) >= 2 and any(
        len(shape) == len(other)
        and all(own == 1 or own in halves_of(length) for own, length in zip(shape, other, strict=True))
        for other in known
    )


def reductions(known: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the known grids with some axes halved, as where patches of a row are merged."""
    return list(dict.fromkeys(shape for other in known for shape in product(*map(halves_of, other))))


def halves_of(length: int) -> list[int]:
    """Return a length and its halves, rounded up.

    >>> halves_of(14)
    [14, 7, 4, 2]
    """
    return [length, *(halves_of(-(-length // 2)) if length >= 3 else [])]


def has_input_aspect(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Return True if a grid has the input's aspect ratio up to one cell. Upsampled grids have more cells than the input."""
    if len(shape) != len(size) or min(shape) < 2:
        return False
    margin = 0 if all(length > full for length, full in zip(shape, size, strict=True)) else 1
    return all(abs(length - shape[-1] * full / size[-1]) <= margin for length, full in zip(shape, size, strict=True))


def without_unit_axes(output: Tensor, rank: int) -> tuple[Tensor, tuple[int, ...]]:
    """Return an output without its last axes of length 1, if it has more than `rank` axes and can have `rank` without them.

    Networks for signals (B, C, length) can have convolutions with two axes, of which one has length 1.
    """
    extra = output.dim() - rank
    units = [axis for axis in range(2, output.dim()) if output.shape[axis] == 1]
    if extra <= 0 or len(units) < extra:
        return output, ()
    axes = tuple(units[-extra:])
    return output.squeeze(axes), axes


def is_ambiguous(tensor: object) -> bool:
    """Return True for a tensor (B, C, *square) whose memory shows that its channels were last, as in a layer before it."""
    return has_channels_inside(tensor) and isinstance(tensor, Tensor) and len(set(tensor.shape[2:])) < tensor.dim() - 2


def has_channels_inside(tensor: object) -> bool:
    """Return True for a tensor (B, C, *grid) whose memory shows that its channels were last."""
    if not isinstance(tensor, Tensor) or tensor.dim() < 4:
        return False
    return max(tensor.shape[2:]) > 1 and tensor.stride(1) < min(tensor.stride()[2:])
