"""The grids that an earlier pass through a prepared model showed.

With the same layers and inputs of the same shape, they need no inference, and no hooks on the other convolutions. If a layer
returns another shape than in that pass, its grid is not known, and the pass is repeated with a `GridTracker`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from seewhy.places.parts import PartsOfModel
from seewhy.places.region import FieldOfView
from seewhy.tracing.grid import Grid, GridHint
from seewhy.tracing.grid_tracker import GridTracker, OutputKey
from seewhy.tracing.model_properties import executed_model, input_key
from seewhy.tracing.token_cache import CallKey
from seewhy.tracing.trace import RecordingRequest
from seewhy.tracing.twin_reuse import is_prepared

KNOWN_GRIDS = "_known_grids"  # the entry in the `__dict__` of a prepared model
MAX_KEPT = 16  # recordings with other layers or shapes


@dataclass(eq=False)
class KnownGrids:
    """The grids of an earlier pass, for one pass.

    Attributes:
        found: The grids of the outputs of that pass.
        sources: The convolutions and poolings in it, by their grid.
        parts: What was known of the parts of the inputs.
        view: What the model sees of the inputs.
        is_incomplete: Whether a layer returned another shape, so that this pass cannot be used.
    """

    found: Mapping[OutputKey, Grid | None]
    sources: Mapping[tuple[int, ...], Sequence[CallKey]]
    parts: PartsOfModel | None
    view: FieldOfView
    is_incomplete: bool = False
    needs_sources: bool = False
    has_unknown_parts: bool = False

    def record(self, name: str, module: nn.Module, output: Any) -> None:
        """Do nothing: these grids are known."""

    def grid_of(self, name: str, output: Tensor, is_channels_first: bool, number: int = 0) -> Grid | None:
        key = name, number, output.shape
        self.is_incomplete |= key not in self.found
        return self.found.get(key)


Grids = GridTracker | KnownGrids


class GridCache:
    """The known grids of a prepared model, for one request and inputs like `inputs`; for other models, none are kept."""

    def __init__(self, model: nn.Module, inputs: Tensor, request: RecordingRequest, user_hint: GridHint | None) -> None:
        # Attention is recorded with the grids of layers that were not requested.
        self.is_used = is_prepared(model) and request.names is not None and not request.attention
        self.table: dict[Any, KnownGrids] = (
            executed_model(model).__dict__.setdefault(KNOWN_GRIDS, {}) if self.is_used else {}
        )
        self.key = (request.names, len(inputs), input_key(model, inputs), user_hint)

    def get(self, parts: PartsOfModel | None, view: FieldOfView) -> KnownGrids | None:
        """Return what an earlier pass showed, if the parts and the view are still the same."""
        known = self.table.get(self.key)
        return replace(known) if known is not None and known.parts is parts and known.view is view else None

    def store(self, tracker: GridTracker, parts: PartsOfModel | None, view: FieldOfView) -> None:
        """Keep what a pass showed."""
        if not self.is_used or tracker.has_unknown_parts:
            return
        while len(self.table) >= MAX_KEPT:
            self.table.pop(next(iter(self.table)), None)
        self.table[self.key] = KnownGrids(tracker.found, tracker.sources, parts, view)

    def discard(self) -> None:
        """Drop what an earlier pass showed."""
        self.table.pop(self.key, None)
