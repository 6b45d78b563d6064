"""`ImageScorer`: the score of one image and one target, as a function of changed inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from seewhy.engine.rescoring import Rescoring
from seewhy.fast.prepared import PreparedModel, as_prepared
from seewhy.models.loaded_model import LoadedModel
from seewhy.signals.evaluator import Rows
from seewhy.signals.scoring import LogOdds, Scoring, TargetScore
from seewhy.targets import ResolvedTarget
from seewhy.tracing.model_errors import is_caused_by_memory, is_device_error

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class ImageScorer:
    """Scores changed versions of one image for one target.

    Attributes:
        rescoring: The model and the targets.
        image: The position of the image in the batch.
        target: The key of the target.
        scoring: The measured score: log-odds, or the score of the target.
    """

    rescoring: Rescoring
    image: int
    target: str
    scoring: Scoring

    @property
    def input(self) -> Tensor:
        """The input `(C, *size)`."""
        return self.rescoring.inputs[self.image]

    @property
    def size(self) -> tuple[int, ...]:
        """The size of the input without channels."""
        return tuple(self.input.shape[1:])

    @property
    def own(self) -> float:
        """The score of the image itself."""
        return float(self.rescoring.scores(self.target, self.scoring)[self.image])

    def __call__(self, count: int, build: Callable[[slice], Tensor], shared: Hashable = None) -> Tensor:
        """Return the scores `(count,)` of changed inputs, which `build` returns one slice at a time.

        `shared` is a key that is equal only for equal inputs: several targets share their forward passes.
        """
        rows = Rows(self.image, count, build, self.scoring, shared=shared)
        return self.rescoring.evaluator.scores(self.rescoring.targets[self.target], rows)


def log_odds_of(target: ResolvedTarget) -> Scoring:
    """Return the log-odds for a class, and the score of the target otherwise."""
    return TargetScore() if target.classes is None else LogOdds()


def variants_of(loaded: LoadedModel) -> list[LoadedModel]:
    """Return a prepared model and the model itself: covered images may take another path than those it was prepared with."""
    return [loaded, as_prepared(loaded, "off")] if isinstance(loaded, PreparedModel) else [loaded]


def on_prepared(loaded: LoadedModel, run: Callable[[LoadedModel], Result]) -> Result:
    """Return what `run` returns for a prepared model, or for the model itself if that fails."""
    *prepared, model = variants_of(loaded)
    for variant in prepared:
        try:
            return run(variant)
        except Exception as error:  # model code may raise anything
            if is_caused_by_memory(error) or is_device_error(error):
                raise
    return run(model)
