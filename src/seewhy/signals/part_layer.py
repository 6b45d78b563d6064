"""The signals of a layer with several rows per input: every frame, patch or crop counts as an image.

Methods see a batch of parts `(B * parts, ...)` and need no code for them. What they change, an activation or a part of the
input, is put back next to the other parts of the same input, which keep their values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from seewhy.errors import MethodError
from seewhy.places.parts import Parts
from seewhy.signals.evaluator import Rows
from seewhy.signals.layer import Signals
from seewhy.signals.scoring import Scoring, TargetScore


@dataclass(frozen=True, eq=False)
class PartSignals(Signals):
    """The signals of one layer, with one row per part of each input. Scores are those of the entire input."""

    @property
    def parts(self) -> Parts:
        """The parts of each input."""
        assert self.site.grid.parts is not None
        return self.site.grid.parts

    @cached_property
    def inputs(self) -> Tensor:
        """The parts of the inputs `(B * parts, C, *size)`."""
        return self._exact_parts().crop(self.evaluator.inputs)

    @property
    def scores(self) -> Tensor:
        """The score of the input that each part belongs to `(B * parts,)`."""
        return super().scores.repeat_interleave(len(self.parts))

    @property
    def classes(self) -> Tensor:
        """The class of the input that each part belongs to `(B * parts,)`."""
        return super().classes.repeat_interleave(len(self.parts))

    @cached_property
    def head_table(self) -> tuple[Tensor, Tensor]:
        """Not available: the head sees all parts of an input."""
        raise MethodError(
            "", f"the {len(self.parts)} rows per input of '{self.layer}' are not read by a linear layer directly."
        )

    @property
    def guided_gradients(self) -> Tensor:
        """Guided backpropagation of the scores to the parts of the inputs `(B * parts, C, *size)`."""
        return self._exact_parts().crop(super().guided_gradients)

    def score_of(self, scoring: Scoring) -> Tensor:
        """Return another score of the input that each part belongs to `(B * parts,)`."""
        return super().score_of(scoring).repeat_interleave(len(self.parts))

    def differentiable_scores(self, image: int, inputs: Tensor, scoring: Scoring | None = None) -> Tensor:
        """Return the scores `(N,)` of inputs with versions `(N, C, *size)` of one part, differentiable with respect to them."""
        parts, (image, number) = self._exact_parts(), divmod(image, len(self.parts))
        changed = parts.paste(self.evaluator.inputs[image : image + 1], number, inputs)
        return self.evaluator.differentiable_scores(self.target, changed, image, scoring or TargetScore())

    def _in_model(self, rows: Rows) -> Rows:
        image, number = divmod(rows.image, len(self.parts))
        shared = None if rows.shared is None else (rows.shared, number)
        if rows.site is not None:
            return replace(rows, image=image, shared=shared, site=replace(rows.site, part=number))
        parts, unchanged, build = self._exact_parts(), self.evaluator.inputs[image : image + 1], rows.build
        return replace(rows, image=image, shared=shared, build=lambda at: parts.paste(unchanged, number, build(at)))

    def _exact_parts(self) -> Parts:
        if not self.parts.is_exact:
            raise MethodError(
                "",
                f"the {len(self.parts)} rows per input of '{self.layer}' are resized parts of it, or see the same place, so a "
                "changed one cannot be put back. Use a method that does not change the input, such as gradcam.",
            )
        return self.parts
