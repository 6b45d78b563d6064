"""Forward passes with one changed cell each, which show the token of each cell (`token_places`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from types import EllipsisType

import torch
from torch import Tensor, nn

from seewhy.errors import ModelError
from seewhy.places.region import Region
from seewhy.tracing.cells import neighbors, resize_mean, sides, span, unravel
from seewhy.tracing.grid import MAX_PREFIX, TOKEN_LAYOUTS, Grid, GridHint
from seewhy.tracing.record import record_forward
from seewhy.tracing.token_cache import CallKey, Placement
from seewhy.tracing.trace import LayerCall, RecordingRequest

PROBES = 6  # random cells that are changed, in addition to the first and the last one
MORE_PROBES = 16  # where some changes contradict the order and most do not
OVERLAP = 0.5  # a patch that changes this much of the most that one does overlaps the changed cell
CLEAR = 1.2  # a token that fits this many times as well as any other is clear
TINY = 1e-6
VAGUE = 1.5  # a change without a token that changes this many times as much as the mean has no place
WIDE = 5  # cells per axis, from which a neighbor is near
ROW_ENDS = 3  # rows whose last cell is changed
PATCHES = 9  # cells that a change moves at most in a convolution that sees patches
LARGE = 4  # cells per axis of layers with spatial axes
FEW = 9  # cells, below which every change must be in its place
HALF = 0.5  # fraction of the changes that must be in their place if no change contradicts
MOST = 0.75  # fraction of the changes that must be in their place where no other order fits
CHANGE = 2.0  # standard deviations of the input

Found = tuple[tuple[int, ...], tuple[int, ...]]  # the cells and the tokens that a change moves
Probe = tuple[int, int]  # a cell, and 0 or the number of one of its corners


def key_of(call: LayerCall) -> CallKey:
    return call.module, call.number


class Probes:
    """Forward passes with one changed cell each, for layers `grids` of one grid shape.

    The cells of tokens are those of the grid. Layers with spatial axes have no other tokens among their cells, so a few large
    cells are enough: a small one can change its neighbors more than itself.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, grids: Mapping[CallKey, Grid], hint: GridHint | None) -> None:
        self.model, self.inputs, self.grids, self.hint = model, inputs, grids, hint
        first = next(iter(grids.values()))
        self.is_tokens, self.parts, self.region = first.layout in TOKEN_LAYOUTS, first.parts, first.region
        self.shape = first.shape if self.is_tokens else tuple(min(LARGE, length) for length in first.shape)
        self.references: list[CallKey] = []
        self.changes: dict[Probe, dict[CallKey, Tensor]] = {}
        self.original = self.tokens(inputs)
        if self.references:  # known only now
            self.original = self.tokens(inputs)
        self.reference: CallKey | None = None
        self.start()

    def start(self) -> None:
        """Run the probes that decide about most layers."""
        cells = torch.randperm(prod(self.shape), generator=torch.Generator().manual_seed(0)).tolist()
        # Which probes decide about a layer must not depend on the other layers.
        self.first = self.run([0, prod(self.shape) - 1, *cells[:PROBES]])
        self.reference = next((key for key in self.references if self.reacts(key)), None)
        self.references = [] if self.reference is None else [self.reference]
        if self.is_tokens and not self.sees_patches():
            ends = [cell - 1 for cell in range(self.shape[-1], prod(self.shape), self.shape[-1])]
            self.first = self.run([*self.first, *ends[:: max(1, len(ends) // ROW_ENDS)]])
        if prod(self.shape) < FEW:
            # A few tokens can be in their place by chance: each corner of their cells must move them as well.
            corners = range(1, 2 ** len(self.shape) + 1)
            self.first = self.run(
                [*self.first, *((cell, corner) for cell in range(prod(self.shape)) for corner in corners)]
            )
        self.others = cells[PROBES : PROBES + MORE_PROBES]

    def tokens(self, inputs: Tensor) -> dict[CallKey, Tensor]:
        """Return the tokens (rows, K, N) of each layer, and of the convolutions with the same grid."""
        names = {module for module, _ in (*self.grids, *self.references)}
        with record_forward(self.model, inputs, RecordingRequest(frozenset(names)), grid=self.hint) as trace:
            if self.is_tokens and not self.changes:
                self.references = list(trace.grid_sources.get(self.shape, ()))
            # Another thread may have refused a grid meanwhile, so those of the calls do not count.
            grids = {**dict.fromkeys(self.references, Grid(self.shape)), **self.grids}
            return {
                key_of(call): grids[key_of(call)].all_tokens(call.value).float()
                for call in trace.calls
                if key_of(call) in grids
            }

    def reacts(self, key: CallKey) -> bool:
        """Return True if a convolution depends on the changed cells, which those of another input do not."""
        return sum(bool(key in self.changes[probe] and self.changes[probe][key].any()) for probe in self.first) >= (
            MOST * len(self.first)
        )

    def run(self, probes: Iterable[int | Probe]) -> list[Probe]:
        """Run probes, unless they were run before. Return those whose cells can be changed, each once."""
        pairs = dict.fromkeys((probe, 0) if isinstance(probe, int) else probe for probe in probes)
        for probe in pairs:
            self.probe(*probe)
        return [probe for probe in pairs if probe in self.changes]

    def probe(self, cell: int, corner: int) -> None:
        """Change one cell of the input, or one corner of it, and store how much each token of each layer changes."""
        if (cell, corner) in self.changes:
            return
        row, box = self.box_of(cell)
        if corner:
            halves = [(start, (start + stop) // 2, stop) for start, stop in box]
            pairs = zip(halves, sides(corner - 1, len(box)), strict=True)
            box = [(edges[side], edges[side + 1]) for edges, side in pairs]
        if any(start == stop for start, stop in box):
            return
        changed = self.inputs.clone()
        at: tuple[EllipsisType | slice, ...] = (..., *(slice(start, stop) for start, stop in box))
        generator = torch.Generator().manual_seed(cell * 64 + corner)
        noise = torch.randn(changed[at].shape, generator=generator).to(changed)
        spread = changed.std() if changed.numel() > 1 and changed.std() > 0 else 1.0
        changed[at] += CHANGE * spread * noise
        try:
            after = self.tokens(changed)
            is_accepted = all(bool(tokens.isfinite().all()) for tokens in after.values())
        except ModelError:
            is_accepted = False
        if not is_accepted:  # such as a logarithm of negative values
            low, high = self.inputs.amin(), self.inputs.amax()
            changed[at] = low + (high - low) * torch.rand(noise.shape, generator=generator).to(changed)
            after = self.tokens(changed)
        self.changes[cell, corner] = {
            key: self.pooled((after[key][row] - before[row]).square().sum(0).sqrt(), key)
            for key, before in self.original.items()
            if key in after and after[key].shape == before.shape
        }

    def pooled(self, change: Tensor, key: CallKey) -> Tensor:
        """Return the change of each token (N,), or of each large cell."""
        if self.is_tokens or key not in self.grids:
            return change
        return resize_mean(change.reshape(self.grids[key].shape), self.shape).flatten()

    def box_of(self, cell: int) -> tuple[int, list[tuple[int, int]]]:
        """Return the row of the layer that sees a cell, and its box in the input."""
        size = tuple(self.inputs.shape[2:])
        indices = unravel(cell, self.shape)
        row, region = 0, self.region or Region.entire(size)
        box, axes, mirrored = list(region.box), region.order, region.mirrored
        if self.parts is not None:
            row = (5 * cell + 2) % len(self.parts)  # not the cell itself: a transposed table has the same diagonal
            box, axes, mirrored = list(self.parts.places[row].box), self.parts.axes, self.parts.places[row].mirrored
        for axis, index, cells in zip(axes, indices, self.shape, strict=True):
            start, stop = box[axis]
            ends = span(cells - 1 - index if axis in mirrored else index, cells, stop - start)
            low, high = (min(max(start + end, 0), size[axis]) for end in ends)  # a region can be padded
            box[axis] = low, high
        return row, box

    # Which token a change moves

    def place(self, key: CallKey) -> Placement:
        """Return the placement of one layer."""
        grid = self.grids[key]
        if any(key not in changes for changes in self.changes.values()):
            return unknown(grid)
        if self.is_tokens and self.original[key].shape[2] <= max(grid.token_indices()):  # another axis counts images
            return Placement(None, is_known=True)
        probes = self.first
        if not self.has_changes(key):  # perhaps a network that drops most patches
            probes = self.run([*self.first, *self.others])
            if not self.has_changes(key):  # text, or positions
                return Placement(None, is_known=True)
        found = self.found(key, probes)
        if self.parts is not None and len(found) < HALF * len(probes):  # rows that see other parts
            return Placement(None, is_known=True)
        if not found:
            return unknown(grid)
        clear = [(cells, tokens) for cells, tokens in found if len(tokens) == len(cells) == 1]
        enough = 1.0 if prod(self.shape) < FEW else HALF if self.is_tokens else MOST
        if self.count_right(clear, grid) == len(clear) and self.count_right(found, grid) >= enough * len(found):
            reacting = [probe for probe in probes if self.changes[probe][key].any()]
            is_chance = self.is_tokens and len(found) < HALF * len(reacting)
            return unknown(grid) if is_chance else Placement(grid, is_known=True)
        others = self.original[key].shape[2] - prod(self.shape)
        offsets_of = {cells[0]: tokens[0] - cells[0] for cells, tokens in clear}
        if self.is_tokens and is_in_order(offsets_of, others) and len(offsets_of) >= MOST * len(found):
            offsets = self.find_steps(offsets_of, key)
            if offsets is not None and not self.moves_others(key, offsets):
                return Placement(with_offsets(grid, offsets), is_known=True)
        is_far = self.is_tokens and self.count_right(found, grid) < MOST * len(found)
        if is_far or prod(self.shape) < FEW:
            return Placement(None, is_known=True)
        found = self.found(key, self.run([*self.first, *self.others]))
        is_close = self.count_right(found, grid) >= MOST * len(found)
        return Placement(grid if is_close else None, is_known=True)

    def count_right(self, found: Sequence[Found], grid: Grid) -> int:
        """Return how many changes move the token of their cell.

        Where no convolution makes the tokens from patches, a neighbor counts as well: the cells of strided convolutions can lie
        half a cell off. A token before the grid would still be noticed, because the last cell of a row has no neighbor in the
        next row.
        """
        own = grid.token_indices() if self.is_tokens else range(prod(self.shape))
        is_strict = not self.is_tokens or self.sees_patches() or min(self.shape) < WIDE
        right = 0
        for cells, tokens in found:
            near = set(cells) if is_strict else {other for cell in cells for other in neighbors(cell, self.shape)}
            right += bool({own[cell] for cell in near} & set(tokens))
        return right

    def sees_patches(self) -> bool:
        """Return True if each change moves few cells of a convolution with the same grid: tokens are patches of the input."""
        if self.reference is None or not self.can_compare():
            return False
        moved = [int(self.changes[probe][self.reference].count_nonzero()) for probe in self.first]
        return max(moved) <= min(PATCHES, prod(self.shape) // 2)

    def can_compare(self) -> bool:
        """Return True if every change was observed in a convolution with the same grid."""
        return self.reference is not None and all(self.reference in self.changes[probe] for probe in self.first)

    def has_changes(self, key: CallKey) -> bool:
        return any(bool(changes[key].any()) for changes in self.changes.values())

    def found(self, key: CallKey, probes: Sequence[Probe]) -> list[Found]:
        """Return the cells and the tokens that each change moves; without changes that have no place."""
        pairs = ((self.cells_of(probe, probes), self.token_of(probe, key, probes)) for probe in probes)
        return [(cells, tokens) for cells, tokens in pairs if tokens]

    def cells_of(self, probe: Probe, among: Sequence[Probe]) -> tuple[int, ...]:
        """Return the cells that a change moves in a convolution with the same grid, which may be half a cell off."""
        if self.reference is None or not self.can_compare():
            return (probe[0],)
        change = self.changes[probe][self.reference]
        if not change.any():
            return (probe[0],)
        if self.sees_patches():  # all patches that overlap the changed cell
            return tuple((change >= OVERLAP * change.max()).nonzero().flatten().tolist())
        return self.token_of(probe, self.reference, among) or (probe[0],)

    def token_of(self, probe: Probe, key: CallKey, among: Sequence[Probe]) -> tuple[int, ...]:
        """Return which tokens a change of a cell moves; empty if all react alike.

        It is the token that changes much, and more than with the other probes `among` which this one is: some tokens react to
        every change. If two tokens fit almost alike, both are returned.
        """
        change = self.changes[probe][key]
        if not change.any() or len(change) < 2:
            return ()
        others = torch.stack([self.changes[other][key] for other in among if other[0] != probe[0]]).mean(0)
        fit = change.square() / (others + TINY * change.max())
        best, second = fit.topk(2)[0].tolist()
        if fit.max() < VAGUE * fit.mean():
            return ()
        first, other = fit.topk(2)[1].tolist()
        return (first,) if best > CLEAR * second else (first, other)

    def moves_others(self, key: CallKey, offsets: Sequence[int]) -> bool:
        """Return True if a part of a cell moves a token between those of the grid: then it is a patch of another grid."""
        own = {cell + offset for cell, offset in enumerate(offsets)}
        if max(own) - min(own) < len(own):
            return False
        corners = range(1, 2 ** len(self.shape) + 1)
        probes = self.run([(cell, corner) for cell, _ in self.first for corner in corners])
        tokens = [self.token_of(probe, key, probes) for probe in probes]
        return any(len(moved) == 1 and min(own) < moved[0] < max(own) and moved[0] not in own for moved in tokens)

    def find_steps(self, clear: Mapping[int, int], key: CallKey) -> list[int] | None:
        """Return the offset of each cell's token, with more probes where the offset steps; None if a probe contradicts."""
        count = prod(self.shape)
        known = dict(clear)
        if not {0, count - 1} <= known.keys():
            return None
        while True:
            cells = sorted(known)
            steps = [(a, b) for a, b in pairwise(cells) if known[a] != known[b] and b - a > 1]
            if not steps:
                break
            middle = sum(steps[0]) // 2
            self.run([middle])
            probe = middle, 0
            tokens, low, high = self.token_of(probe, key, self.first), known[steps[0][0]], known[steps[0][1]]
            is_clear = len(tokens) == 1 and self.cells_of(probe, self.first) == (middle,)
            if not is_clear or not low <= tokens[0] - middle <= high:
                return None
            known[middle] = tokens[0] - middle
        cells = sorted(known)
        return [known[max(cell for cell in cells if cell <= index)] for index in range(count)]


def unknown(grid: Grid) -> Placement:
    """Return the placement of tokens whose order cannot be observed: the inferred one, if most tokens are cells.

    Tokens on the last axis can be channels of tokens on the first axis, so that they must be confirmed.
    """
    is_likely = grid.prefix <= MAX_PREFIX and grid.layout != "tokens_last"
    return Placement(grid if is_likely else None, is_known=not is_likely)


def is_in_order(offsets: Mapping[int, int], extra: int) -> bool:
    """Return True if the tokens of the cells are in order, with at most `extra` other tokens before and between them."""
    values = [offsets[cell] for cell in sorted(offsets)]
    return bool(values) and values == sorted(values) and values[0] >= 0 and values[-1] <= extra


def with_offsets(grid: Grid, offsets: list[int]) -> Grid:
    """Return a grid whose cell number c is token c + offsets[c]."""
    indices = tuple(cell + offset for cell, offset in enumerate(offsets))
    return replace(grid, prefix=indices[0], cells=indices, alternatives=())
