"""Questions about class scores: a class, the top classes, their probability, one class rather than another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from seewhy.errors import TargetError
from seewhy.outputs import named_tensor
from seewhy.targets.base import Around, Asked, Combined, Target
from seewhy.targets.boxes import best_box, is_detections
from seewhy.targets.dense import RegionScore, is_dense, top_region
from seewhy.targets.names import Labels, class_name, find_class

Read = Callable[[Tensor], Tensor]  # class scores (N, K) -> what is asked of them (N, K)
NAMED = ("logits", "logits_per_image")  # where models that give several tensors keep the class scores


@final
@dataclass(frozen=True, eq=False)
class ClassScore(Target):
    """The logit (before softmax) of a class, as in the Grad-CAM paper, section 3.

    `classes` is an index from 0, a name from the model's labels, or a tensor (B,) of indices: one class for each picture.
    Of a dense output it is the class over the region where it wins (`RegionScore`), of detections the best box of the
    class (`BoxScore`).

    >>> asked = ClassScore("cat").ask(torch.tensor([[1.0, 3.0]]), ["dog", "cat"])
    >>> asked.key, asked.name, asked.scores
    ('1', 'cat', tensor([3.]))
    """

    classes: int | str | Tensor

    def ask(self, output: Any, labels: Labels) -> Asked:
        if not isinstance(self.classes, Tensor):
            if is_detections(output):
                return best_box(output, self.classes, 1, labels, self)
            if is_dense(output):
                return RegionScore(self.classes).ask(output, labels)
        scores = logits(output, self.classes)
        return answer(scores, indices(self.classes, scores, labels), labels, "classes", self)


@final
@dataclass(frozen=True)
class TopScore(Target):
    """The logit of each picture's own class at `rank`: 1 is the predicted class, 2 the next likely.

    Of a dense output: the class that wins in the most cells, background aside. Of detections: the best box.

    >>> TopScore(2).ask(torch.tensor([[1.0, 3.0], [5.0, 0.0]]), None).classes
    tensor([0, 1])
    """

    rank: int = 1

    def ask(self, output: Any, labels: Labels) -> Asked:
        if is_detections(output):
            return best_box(output, None, self.rank, labels, self)
        if is_dense(output):
            return top_region(output, self.rank, labels, self)
        scores = logits(output, f"top{self.rank}")
        if not 1 <= self.rank <= scores.shape[1]:
            raise TargetError(f"top{self.rank}", f"the model has {scores.shape[1]} classes.")
        classes = scores.detach().topk(self.rank, dim=1).indices[:, -1]
        return answer(scores, classes, labels, f"top{self.rank}", self)


@final
@dataclass(frozen=True, eq=False)
class ClassProbability(Target):
    """The probability of a class, in [0, 1]: softmax over the classes, or for `multilabel` its own sigmoid.

    Its gradient vanishes where the model is sure (p near 0 or 1); the logit's and the logarithm's do not.

    >>> ClassProbability(0).ask(torch.tensor([[0.0, 0.0]]), None).scores
    tensor([0.5000])
    """

    classes: int | str | Tensor
    multilabel: bool = False

    def ask(self, output: Any, labels: Labels) -> Asked:
        return read_as(partial(probabilities, multilabel=self.multilabel), "probability", self, output, labels)


@final
@dataclass(frozen=True, eq=False)
class ClassLogProbability(Target):
    """The logarithm of a class's probability (at most 0): its map says what speaks for the class against all others.

    >>> ClassLogProbability(0).ask(torch.tensor([[0.0, 0.0]]), None).scores
    tensor([-0.6931])
    """

    classes: int | str | Tensor
    multilabel: bool = False

    def ask(self, output: Any, labels: Labels) -> Asked:
        function = nn.functional.logsigmoid if self.multilabel else log_softmax
        return read_as(function, "log probability", self, output, labels)


@final
@dataclass(frozen=True, eq=False)
class OutputScore(Target):
    """One number of the output, as it is: what a regression predicts, or the one logit of a binary classifier.

    `index` counts the outputs; a model that gives one number a picture, (B,) or (B, 1), has only 0. `negative` asks what
    speaks against: the number times -1.

    >>> OutputScore().ask(torch.tensor([0.5, -2.0]), None).scores
    tensor([ 0.5000, -2.0000])
    """

    index: int = 0
    negative: bool = False

    def ask(self, output: Any, labels: Labels) -> Asked:
        scores = logits(output, f"output {self.index}")
        if not 0 <= self.index < scores.shape[1]:
            raise TargetError(f"output {self.index}", f"the model gives {scores.shape[1]} numbers, counted from 0.")
        name = f"output {self.index}" if labels is None else class_name(self.index, labels)
        sign = "not " if self.negative else ""

        def follow(other: Any, pictures: Tensor) -> Tensor:
            value = logits(other)[:, self.index]
            return -value if self.negative else value

        scored = follow(output, torch.arange(len(scores)))
        return Asked(f"{sign}output {self.index}".replace(" ", "_"), sign + name, scored, follow, question=self)


@final
@dataclass(frozen=True, eq=False)
class Contrast(Target):
    """Why this and not that: the score of one target minus the mean score of others.

    `target` and `against` are classes by index or name, or targets. Where the methods are linear in the score (CAM,
    Grad-CAM, HiResCAM, XGrad-CAM, elementwise) the signed map is the difference of the two maps: what is positive speaks
    for the one, what is negative for the other.

    >>> asked = Contrast("minibus", against=["streetcar"]).ask(torch.tensor([[4.0, 3.0]]), ["minibus", "streetcar"])
    >>> asked.key, asked.name, asked.scores
    ('0-1', 'minibus rather than streetcar', tensor([1.]))
    """

    target: int | str | Target
    against: Sequence[int | str | Target] | int | str | Target

    @property
    def sum(self) -> Combined:
        several = isinstance(self.against, Sequence) and not isinstance(self.against, str)
        rivals: Any = self.against if several else [self.against]
        if not rivals:
            raise TargetError(self.target, "a contrast needs something to compare with: against=[829].")
        share = -1 / len(rivals)
        return Combined(((1.0, as_target(self.target)), *((share, as_target(rival)) for rival in rivals)))

    def bind(self, around: Around) -> Target:
        (_, target), *rivals = self.sum.parts
        return Contrast(target.bind(around), [rival.bind(around) for _, rival in rivals])

    def ask(self, output: Any, labels: Labels) -> Asked:
        (_, target), *rivals = self.sum.parts
        own, others = target.ask(output, labels), [rival.ask(output, labels) for _, rival in rivals]
        if any(own.key == other.key for other in others):
            raise TargetError(own.name, "compared with itself: choose another class after 'against' (--versus).")
        asked = self.sum.ask(output, labels)
        asked.key = "-".join([own.key, *(other.key for other in others)])
        asked.name = f"{own.name} rather than {' or '.join(other.name for other in others)}"
        asked.question = self
        return asked


def as_target(given: int | str | Target) -> Target:
    return given if isinstance(given, Target) else ClassScore(given)


def logits(output: Any, target: object = None) -> Tensor:
    """The class scores (B, K) in a model's output: the tensor itself, its `logits`, or the first tensor in it.

    A model with one number a picture, (B,), has one class.
    """
    scores = named_tensor(output, NAMED)
    if isinstance(output, Mapping) and "embedding" in output and not set(NAMED) & set(output):
        raise TargetError(
            target, "the model gives an embedding, and no classes; name texts as its labels, or ask for a TextScore."
        )
    if isinstance(scores, Tensor) and scores.dim() == 1 and scores.is_floating_point():
        scores = scores[:, None]
    if not isinstance(scores, Tensor) or scores.dim() != 2 or not scores.is_floating_point():
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(output).__name__
        raise TargetError(
            target,
            f"the model's output is {shape}, not class scores (B, K); give a RegionScore, a BoxScore or a function of "
            "the output as the target.",
        )
    return scores


def probabilities(scores: Tensor, multilabel: bool = False) -> Tensor:
    """What class scores (N, K) say about each class, in [0, 1]; a single logit is that of "yes" against "no"."""
    return scores.sigmoid() if multilabel or scores.shape[1] == 1 else scores.softmax(1)


def log_softmax(scores: Tensor) -> Tensor:
    return nn.functional.logsigmoid(scores) if scores.shape[1] == 1 else scores.log_softmax(1)


def indices(given: int | str | Tensor, scores: Tensor, labels: Labels) -> Tensor:
    """The class of each picture (B,)."""
    batch, count = scores.shape
    if not isinstance(given, Tensor):
        return torch.full((batch,), find_class(given, labels, count), device=scores.device)
    index = given.to(scores.device)
    if index.is_floating_point() or index.dtype == torch.bool:
        raise TargetError(given, f"class indices are whole numbers, not {index.dtype}.")
    if index.dim() == 1 and len(index) != batch:
        raise TargetError(given, f"{len(index)} classes for {batch} pictures; give one index, or one for each picture.")
    if index.dim() > 1:
        raise TargetError(given, f"class indices have shape {tuple(index.shape)}; give one, or one for each picture.")
    for wrong in index[(index < 0) | (index >= count)].flatten()[:1].tolist():
        find_class(wrong, labels, count)
    return index.long().expand(batch)


def answer(scores: Tensor, classes: Tensor, labels: Labels, key: str, question: object) -> Asked:
    """The logits of `classes` (B,)."""

    def follow(output: Any, pictures: Tensor) -> Tensor:
        return logits(output).gather(1, classes[pictures.to(classes.device)][:, None])[:, 0]

    picked = scores.gather(1, classes[:, None])[:, 0]
    distinct = list(dict.fromkeys(classes.tolist()))
    name = class_name(distinct[0], labels) if len(distinct) == 1 else key
    return Asked(str(distinct[0]) if len(distinct) == 1 else key, name, picked, follow, classes, question=question)


def read_as(function: Read, what: str, target: Any, output: Any, labels: Labels) -> Asked:
    """Another number than the logit, from the whole row of class scores."""
    asked = ClassScore(target.classes).ask(output, labels)
    if asked.classes is None:
        raise TargetError(target.classes, f"its {what} needs class scores (B, K) as the model's output.")
    classes = asked.classes

    def follow(other: Any, pictures: Tensor) -> Tensor:
        return function(logits(other)).gather(1, classes[pictures.to(classes.device)][:, None])[:, 0]

    scores = follow(output, torch.arange(len(classes)))
    short = what.replace(" ", "_")
    return Asked(f"{short}_{asked.key}", f"{what} of {asked.name}", scores, follow, question=target)
