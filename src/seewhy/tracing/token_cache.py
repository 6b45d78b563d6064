"""Where the tokens of a model's layers lie, as observed so far (`token_places`), cached as long as the model exists."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from seewhy.tracing.grid import Grid
from seewhy.tracing.model_properties import input_key, model_of

CallKey = tuple[str, int]  # module, and the number of its call


@dataclass(frozen=True)
class Placement:
    """Where the tokens of a layer lie.

    Attributes:
        grid: The grid with the token of each cell; None if the tokens are no cells of the input in row order.
        is_known: False if every token reacts to the entire input alike, so that the inferred grid was kept.
    """

    grid: Grid | None
    is_known: bool

    def like(self, inferred: Grid) -> Placement:
        """Return the same for an inferred grid: its parts are those of the current batch, whose rows have another order."""
        return self if self.grid is None else replace(self, grid=replace(self.grid, parts=inferred.parts))


_cache: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, dict[CallKey, Placement]]] = weakref.WeakKeyDictionary()


def placements_of(model: nn.Module, inputs: Tensor) -> dict[CallKey, Placement]:
    """Return the known placements for such inputs, which can be extended."""
    return _cache.setdefault(model_of(model), {}).setdefault(input_key(model, inputs), {})
