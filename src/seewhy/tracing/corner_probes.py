"""Forward passes with changed corners of the input, which show whether the axes of a layer are swapped or reversed."""

from __future__ import annotations

from itertools import permutations, product

from torch import Tensor

from seewhy.tracing.token_cache import CallKey, Placement
from seewhy.tracing.token_probes import CLEAR, TINY, Probes

Ends = tuple[int, ...]  # a corner: for each axis, 0 for its first cell and 1 for its last


class CornerProbes(Probes):
    """Forward passes with one changed corner each, for layers with channels last, or permuted from that.

    Their cells keep their places in almost all networks. Axes of the same length can be swapped, as in axial attention, and
    each axis can be reversed. The corners that are changed, one more than there are axes, belong to one such order only.
    """

    def start(self) -> None:
        axes = len(self.shape)
        self.corners = {ends: cell_at(ends, self.shape) for ends in product((0, 1), repeat=axes)}
        self.changed = [(0,) * (axes - last) + (1,) * last for last in range(axes + 1)]
        self.first = self.run(self.corners[ends] for ends in self.changed)

    def place(self, key: CallKey) -> Placement:
        """Return the placement of one layer: without a grid if another order fits clearly better."""
        grid = self.grids[key]
        if not self.has_changes(key):  # text, or positions
            return Placement(None, is_known=True)
        fits = self.fits(key)
        axes, lengths = tuple(range(len(grid.shape))), grid.shape
        scores = dict[tuple[Ends, Ends], float]()
        for order in permutations(axes):
            if all(lengths[own] == lengths[axis] for own, axis in enumerate(order)):
                for flips in product(*((0, 1) if length > 1 else (0,) for length in lengths)):
                    moved = [
                        tuple(ends[axis] ^ flip for axis, flip in zip(order, flips, strict=True))
                        for ends in self.changed
                    ]
                    scores[order, flips] = sum(
                        float(fits[ends][self.corners[corner]])
                        for ends, corner in zip(self.changed, moved, strict=True)
                        if ends in fits
                    )
        own = scores.pop((axes, (0,) * len(axes)))
        best = max(scores.values(), default=0.0)
        return Placement(None if best > CLEAR * own else grid, is_known=own >= best or best > CLEAR * own)

    def fits(self, key: CallKey) -> dict[Ends, Tensor]:
        """Return how much each cell changes with each changed corner and not with the others, as a fraction of all corners."""
        fits = {}
        for ends in self.changed:
            probe = self.corners[ends], 0
            if probe not in self.changes or key not in self.changes[probe]:
                continue
            change = self.changes[probe][key].square()
            others = [self.changes[other][key].square() for other in self.first if other != probe]
            fit = change / (sum(others, start=change * 0) + TINY * change.max().clamp(min=TINY))
            fits[ends] = fit / fit[[*self.corners.values()]].sum().clamp(min=TINY)
        return fits


def cell_at(ends: Ends, shape: tuple[int, ...]) -> int:
    """Return the cell at a corner of a grid.

    >>> cell_at((0, 1), (3, 4)), cell_at((1, 1), (3, 4))
    (3, 11)
    """
    cell = 0
    for end, length in zip(ends, shape, strict=True):
        cell = cell * length + end * (length - 1)
    return cell
