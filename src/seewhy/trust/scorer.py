"""`ImageScorer`: the score of one image and one target, as a function of changed inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from seewhy.engine.rescoring import Rescoring
from seewhy.fast.prepared import PreparedModel, as_prepared
from seewhy.models.loaded_model import LoadedModel
from seewhy.signals.evaluator import Rows
from seewhy.signals.scoring import LogOdds, Scoring, TargetScore
from seewhy.targets import ResolvedTarget


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


Result = TypeVar("Result", covariant=True)


class Measurement(Protocol[Result]):
    """Runs a model on changed images. `is_last` is False if it can be repeated with the unprepared model."""

    def __call__(self, loaded: LoadedModel, *, is_last: bool) -> Result: ...


def on_prepared(loaded: LoadedModel, run: Measurement[Result]) -> Result:
    """Return what `run` returns for a prepared model, or for the model itself if that fails.

    Covered images may take another path through the model than the images that it was prepared with.
    """
    if isinstance(loaded, PreparedModel):
        try:
            return run(loaded, is_last=False)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            loaded = as_prepared(loaded, "off")
    return run(loaded, is_last=True)
