"""The score that a method differentiates or compares: the target's own, a probability, or a score minus its rivals'."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from seewhy.errors import MethodError, TargetError
from seewhy.targets import ResolvedTarget
from seewhy.targets.class_scores import log_probabilities, logits, probabilities


@dataclass(frozen=True)
class Scoring(ABC):
    """A function from a resolved target and its output to one score per row. Instances are values."""

    @abstractmethod
    def __call__(self, target: ResolvedTarget, output: Any) -> Tensor:
        """Return the score `(N,)` of each row of the model's `output`. Raises MethodError if it needs a class target."""


@final
@dataclass(frozen=True)
class TargetScore(Scoring):
    """The target's own score: for a class its logit."""

    def __call__(self, target: ResolvedTarget, output: Any) -> Tensor:
        return target.scores


@final
@dataclass(frozen=True)
class Probability(Scoring):
    """The probability of the class, in [0, 1]: softmax, or sigmoid for multilabel models and models with one class."""

    def __call__(self, target: ResolvedTarget, output: Any) -> Tensor:
        if target.classes is None:
            raise MethodError(
                "", "it uses a probability, so it needs a class as its target. scorecam(variant=paper) does not."
            )
        return of_classes(target, probabilities(logits(output), target.multilabel, normalized=target.normalized))


@final
@dataclass(frozen=True)
class LogOdds(Scoring):
    """log p / (1 - p) of the class. Unlike p, it still changes where p is near 1."""

    def __call__(self, target: ResolvedTarget, output: Any) -> Tensor:
        check_class(target)
        scores = logits(output)
        if target.normalized:
            return torch.logit(of_classes(target, scores), eps=torch.finfo(scores.dtype).eps)
        own = of_classes(target, scores)
        if target.multilabel or scores.shape[1] == 1:
            return own
        assert target.classes is not None
        return own - scores.scatter(1, target.classes[:, None], -torch.inf).logsumexp(1)


@final
@dataclass(frozen=True)
class LogitPlusLogProbability(Scoring):
    """z_c + log p_c: the "residual softmax" target of ShapleyCAM (Cai, 2025); it has curvature where a logit has none."""

    def __call__(self, target: ResolvedTarget, output: Any) -> Tensor:
        check_class(target)
        scores = logits(output)
        return of_classes(target, scores) + of_classes(
            target, log_probabilities(scores, target.multilabel, normalized=target.normalized)
        )


@final
@dataclass(frozen=True)
class AgainstNearest(Scoring):
    """y_c - gamma * mean of y_d over the `references` classes d whose logits are closest to that of c.

    The classes are selected by value; no gradient flows through the selection.
    """

    references: int = 3
    gamma: float = 0.6

    def __call__(self, target: ResolvedTarget, output: Any) -> Tensor:
        check_class(target)
        scores = logits(output)
        if scores.shape[1] < 2:
            raise MethodError("", "it compares classes, and the model has one.")
        own = of_classes(target, scores)
        distance = (scores - own[:, None]).abs().detach()
        assert target.classes is not None
        distance.scatter_(1, target.classes[:, None], torch.inf)
        nearest = distance.topk(min(self.references, scores.shape[1] - 1), dim=1, largest=False).indices
        return own - self.gamma * scores.gather(1, nearest).mean(1)


def of_classes(target: ResolvedTarget, table: Tensor) -> Tensor:
    """Return the entry `(N,)` of each row's class in a table `(N, K)`."""
    assert target.classes is not None
    if len(table) != len(target.classes):  # gather would read the scores of other rows
        raise TargetError(
            target.name, f"the model returns {len(table)} rows of scores for {len(target.classes)} inputs."
        )
    return table.gather(1, target.classes[:, None])[:, 0]


def check_class(target: ResolvedTarget) -> None:
    if target.classes is None:
        raise MethodError("", "it compares classes, so it needs a class as its target.")
