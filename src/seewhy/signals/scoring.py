"""Which number of an answer a method works on: the score as asked, its probability, or the score less its rivals'."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.targets import ResolvedTarget, log_probabilities, logits, probabilities


@dataclass(frozen=True)
class Scoring(ABC):
    """From what a target found to one number for each row (N,). Instances are values."""

    @abstractmethod
    def __call__(self, asked: ResolvedTarget, output: Any) -> Tensor:
        """The number (N,) of each row of the model's `output`. Raises MethodError where the target is no class."""


@final
@dataclass(frozen=True)
class TargetScore(Scoring):
    """The target's own score: for a class its logit."""

    def __call__(self, asked: ResolvedTarget, output: Any) -> Tensor:
        return asked.scores


@final
@dataclass(frozen=True)
class Probability(Scoring):
    """The probability of the class, in [0, 1]: softmax, or sigmoid where classes do not exclude each other, or there is one."""

    def __call__(self, asked: ResolvedTarget, output: Any) -> Tensor:
        if asked.classes is None:
            raise MethodError(
                "", "it needs a class as target, as it follows a probability; scorecam(variant=paper) does not."
            )
        return of_classes(asked, probabilities(logits(output), asked.multilabel))


@final
@dataclass(frozen=True)
class LogitPlusLogProbability(Scoring):
    """z_c + log p_c: the "residual softmax" target of ShapleyCAM (Cai, 2025); it has curvature where a logit has none."""

    def __call__(self, asked: ResolvedTarget, output: Any) -> Tensor:
        check_class(asked)
        scores = logits(output)
        return of_classes(asked, scores) + of_classes(asked, log_probabilities(scores, asked.multilabel))


@final
@dataclass(frozen=True)
class AgainstNearest(Scoring):
    """y_c - gamma * mean of y_d over the `references` classes d whose logits are closest to the class's own.

    Which classes those are is settled by the values; no gradient flows through the choice.
    """

    references: int = 3
    gamma: float = 0.6

    def __call__(self, asked: ResolvedTarget, output: Any) -> Tensor:
        check_class(asked)
        scores = logits(output)
        if scores.shape[1] < 2:
            raise MethodError("", "it compares classes, and the model has one.")
        own = of_classes(asked, scores)
        distance = (scores - own[:, None]).abs().detach()
        assert asked.classes is not None
        distance.scatter_(1, asked.classes[:, None], torch.inf)
        nearest = distance.topk(min(self.references, scores.shape[1] - 1), dim=1, largest=False).indices
        return own - self.gamma * scores.gather(1, nearest).mean(1)


def of_classes(asked: ResolvedTarget, table: Tensor) -> Tensor:
    """The entry (N,) of each row's class in a table (N, K)."""
    assert asked.classes is not None
    return table.gather(1, asked.classes[:, None])[:, 0]


def check_class(asked: ResolvedTarget) -> None:
    if asked.classes is None:
        raise MethodError("", "it needs a class as target, because it compares classes.")
