"""The signals of a layer that sees a region of the input: methods get this region as the input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from seewhy.places.region import Region
from seewhy.signals.evaluator import Rows
from seewhy.signals.layer import Signals
from seewhy.signals.scoring import Scoring


@dataclass(frozen=True, eq=False)
class RegionSignals(Signals):
    """The signals of one layer, whose grid covers a region of the input."""

    @property
    def region(self) -> Region:
        """The region that the layer sees."""
        assert self.site.grid.region is not None
        return self.site.grid.region

    @cached_property
    def inputs(self) -> Tensor:
        """The region of the inputs `(B, C, *lengths)`, zero where the network pads."""
        return self.region.cut(self.evaluator.inputs)

    @property
    def guided_gradients(self) -> Tensor:
        """Guided backpropagation of the scores to the region `(B, C, *lengths)`."""
        return self.region.cut(super().guided_gradients)

    def differentiable_scores(self, image: int, inputs: Tensor, scoring: Scoring | None = None) -> Tensor:
        """Return the scores `(N,)` of inputs with versions `(N, C, *lengths)` of the region, differentiable."""
        return super().differentiable_scores(image, self._paste(image, inputs), scoring)

    def _in_model(self, rows: Rows) -> Rows:
        build = rows.build
        if rows.site is not None:
            return rows
        return replace(rows, build=lambda at: self._paste(rows.image, build(at)))

    def _paste(self, image: int, values: Tensor) -> Tensor:
        return self.region.paste(self.evaluator.inputs[image : image + 1], values)
