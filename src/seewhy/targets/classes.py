"""Questions about class scores: a class, the top classes, their probability, one class rather than another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from seewhy.errors import TargetError
from seewhy.nested import named_tensor, tensors_in
from seewhy.targets.base import EMPTY_CONTEXT, ResolvedTarget, Target, TargetContext, combined
from seewhy.targets.boxes import best_box, is_detections
from seewhy.targets.dense import RegionScore, dense_logits, is_dense, over_region, top_classes, top_region
from seewhy.targets.names import Labels, class_name, common_key, common_name, find_classes

Read = Callable[[Tensor], Tensor]  # class scores (N, K) -> what is asked of them (N, K)
NAMED = ("logits", "logits_per_image")  # where models that give several tensors keep the class scores


@final
@dataclass(frozen=True, eq=False)
class ClassScore(Target):
    """The logit (before softmax) of a class, as in the Grad-CAM paper, section 3.

    `classes` is an index from 0, a name from the model's labels, or a tensor (B,) of indices: one class for each picture.
    Of a dense output it is the class over the region where it wins (`RegionScore`), of detections the best box of the
    class (`BoxScore`).

    >>> asked = ClassScore("cat").resolve(torch.tensor([[1.0, 3.0]]), ["dog", "cat"])
    >>> asked.key, asked.name, asked.scores
    ('1', 'cat', tensor([3.]))
    """

    classes: int | str | Tensor
    bound: TargetContext = field(default=EMPTY_CONTEXT, repr=False, compare=False)

    def bind(self, around: TargetContext) -> Target:
        return replace(self, bound=around)

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        if is_detections(output) and not isinstance(self.classes, Tensor):
            return best_box(output, self.classes, 1, labels, self)
        if is_dense(output, len(self.bound.size)):
            return RegionScore(self.classes).resolve(output, labels)
        scores = logits(output, self.classes)
        return answer(output, find_classes(self.classes, labels, scores), labels, "classes", self)


@final
@dataclass(frozen=True)
class TopScore(Target):
    """The logit of each picture's own class at `rank`: 1 is the predicted class, 2 the next likely.

    Of a dense output: the class that wins in the most cells, background aside. Of detections: the best box.

    >>> TopScore(2).resolve(torch.tensor([[1.0, 3.0], [5.0, 0.0]]), None).classes
    tensor([0, 1])
    """

    rank: int = 1
    bound: TargetContext = field(default=EMPTY_CONTEXT, repr=False, compare=False)

    def bind(self, around: TargetContext) -> Target:
        return replace(self, bound=around)

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        if is_detections(output):
            return best_box(output, None, self.rank, labels, self)
        if is_dense(output, len(self.bound.size)):
            return top_region(output, self.rank, labels, self)
        scores = logits(output, f"top{self.rank}")
        if not 1 <= self.rank <= scores.shape[1]:
            raise TargetError(f"top{self.rank}", f"the model has {scores.shape[1]} classes.")
        classes = scores.detach().topk(self.rank, dim=1).indices[:, -1]
        return answer(output, classes, labels, f"top{self.rank}", self)


@final
@dataclass(frozen=True, eq=False)
class ClassProbability(Target):
    """The probability of a class, in [0, 1]: softmax over the classes, or for `multilabel` its own sigmoid.

    Its gradient vanishes where the model is sure (p near 0 or 1); the logit's and the logarithm's do not.

    >>> ClassProbability(0).resolve(torch.tensor([[0.0, 0.0]]), None).scores
    tensor([0.5000])
    """

    classes: int | str | Tensor
    multilabel: bool = False

    def bind(self, around: TargetContext) -> Target:
        return replace(self, multilabel=self.multilabel or around.multilabel)

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        return read_as(partial(probabilities, multilabel=self.multilabel), "probability", self, output, labels)


@final
@dataclass(frozen=True, eq=False)
class ClassLogProbability(Target):
    """The logarithm of a class's probability (at most 0): its map says what speaks for the class against all others.

    >>> ClassLogProbability(0).resolve(torch.tensor([[0.0, 0.0]]), None).scores
    tensor([-0.6931])
    """

    classes: int | str | Tensor
    multilabel: bool = False

    def bind(self, around: TargetContext) -> Target:
        return replace(self, multilabel=self.multilabel or around.multilabel)

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        function = partial(log_probabilities, multilabel=self.multilabel)
        return read_as(function, "log probability", self, output, labels)


@final
@dataclass(frozen=True, eq=False)
class OutputScore(Target):
    """One number of the output, as it is: what a regression predicts, or the one logit of a binary classifier.

    `index` counts the outputs; a model that gives one number a picture, (B,) or (B, 1), has only 0. `negative` asks what
    speaks against: the number times -1.

    >>> OutputScore().resolve(torch.tensor([0.5, -2.0]), None).scores
    tensor([ 0.5000, -2.0000])
    """

    index: int = 0
    negative: bool = False

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        scores = logits(output, f"output {self.index}")
        if not 0 <= self.index < scores.shape[1]:
            raise TargetError(f"output {self.index}", f"the model gives {scores.shape[1]} numbers, counted from 0.")
        name = f"output {self.index}" if labels is None else class_name(self.index, labels)
        sign = "not " if self.negative else ""

        def rescore(other: Any, pictures: Tensor) -> Tensor:
            value = logits(other)[:, self.index]
            return -value if self.negative else value

        scored = rescore(output, torch.arange(len(scores)))
        return ResolvedTarget(f"{sign}output {self.index}".replace(" ", "_"), sign + name, scored, rescore, origin=self)


@final
@dataclass(frozen=True, eq=False)
class Contrast(Target):
    """Why this and not that: the score of one target minus the mean score of others.

    `target` and `against` are classes by index or name, or targets. Where the methods are linear in the score (CAM,
    Grad-CAM, HiResCAM, XGrad-CAM, elementwise) the signed map is the difference of the two maps: what is positive speaks
    for the one, what is negative for the other. Of a dense output both are asked over the cells of the first.

    >>> asked = Contrast("minibus", against=["streetcar"]).resolve(torch.tensor([[4.0, 3.0]]), ["minibus", "streetcar"])
    >>> asked.key, asked.name, asked.scores
    ('0-1', 'minibus rather than streetcar', tensor([1.]))
    """

    target: int | str | Target
    against: Sequence[int | str | Target] | int | str | Target

    @property
    def parts(self) -> tuple[Target, list[Target]]:
        """The target, and those that it is compared with."""
        several = isinstance(self.against, Sequence) and not isinstance(self.against, str)
        rivals: Any = self.against if several else [self.against]
        if not rivals:
            raise TargetError(self.target, "a contrast needs something to compare with: against=[829].")
        return as_target(self.target), [as_target(rival) for rival in rivals]

    def bind(self, around: TargetContext) -> Target:
        target, rivals = self.parts
        return Contrast(target.bind(around), [rival.bind(around) for rival in rivals])

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        target, rivals = self.parts
        own = target.resolve(output, labels)
        others = [rival_of(own, rival, output, labels) for rival in rivals]
        if any(one_and_the_same(own, other) for other in others):
            raise TargetError(own.name, "compared with itself: choose another class after 'against' (--versus).")
        asked = combined([(1.0, own), *((-1 / len(others), other) for other in others)], self)
        asked.key = "-".join([own.key, *(other.key for other in others)])
        asked.name = f"{own.name} rather than {' or '.join(other.name for other in others)}"
        return asked


def rival_of(own: ResolvedTarget, rival: Target, output: Any, labels: Labels) -> ResolvedTarget:
    """What is compared with `own`: a class of a dense output over the same cells, all else as it is."""
    if own.region is None or not isinstance(rival, (ClassScore, TopScore)):
        return rival.resolve(output, labels)
    if isinstance(rival, TopScore):
        classes = top_classes(output, rival.rank, labels)
    else:
        classes = find_classes(rival.classes, labels, dense_logits(output, rival.classes))
    asked = over_region(output, classes, own.region, labels, rival, key="classes")
    return replace(asked, notes=(f"'{asked.name}' is asked over the same cells",))


def one_and_the_same(own: ResolvedTarget, other: ResolvedTarget) -> bool:
    """Whether a contrast of the two would be nothing, in any picture."""
    if own.classes is not None and other.classes is not None:
        return bool((own.classes == other.classes).any())
    if own.region is not None and other.region is not None:
        return own.key == other.key
    return own.is_same_target(other)


def as_target(given: int | str | Target) -> Target:
    return given if isinstance(given, Target) else ClassScore(given)


def logits(output: Any, target: object = None) -> Tensor:
    """The class scores (B, K) in a model's output: the tensor itself, its `logits`, or the first tensor in it.

    A model with one number a picture, (B,), has one class; (B, K, 1, 1) are class scores too.
    """
    scores = named_tensor(output, NAMED)
    if isinstance(output, Mapping) and "embedding" in output and not set(NAMED) & set(output):
        raise TargetError(
            target, "the model gives an embedding, and no classes; name texts as its labels, or ask for a TextScore."
        )
    if isinstance(scores, Tensor) and scores.is_floating_point():
        if scores.dim() == 1:
            scores = scores[:, None]
        elif scores.dim() > 2 and scores.shape[2:].numel() == 1:  # of a fully convolutional network
            scores = scores.flatten(1)
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


def log_probabilities(scores: Tensor, multilabel: bool = False) -> Tensor:
    """The logarithms of `probabilities`, exact where those round to 0 or 1."""
    return nn.functional.logsigmoid(scores) if multilabel or scores.shape[1] == 1 else scores.log_softmax(1)


def answer(output: Any, classes: Tensor, labels: Labels, key: str, origin: object) -> ResolvedTarget:
    """The logits of `classes` (B,)."""

    def rescore(output: Any, pictures: Tensor) -> Tensor:
        return logits(output).gather(1, classes[pictures.to(classes.device)][:, None])[:, 0]

    scores = rescore(output, torch.arange(len(classes)))
    name, key = common_name(classes, labels, key), common_key(classes, key)
    return ResolvedTarget(key, name, scores, rescore, classes, origin=origin, notes=where_from(output))


def where_from(output: Any) -> tuple[str, ...]:
    """What to say where the class scores are one of several tensors that could be them."""
    found = [tensor for tensor in tensors_in(output) if tensor.dim() == 2 and tensor.is_floating_point()]
    named = isinstance(output, Mapping) and set(NAMED) & set(output)
    if len(found) < 2 or named:
        return ()
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in found)
    return (
        f"the model gives tensors of {shapes}: the first was taken to be the class scores; for another give a function of "
        "the output as the target",
    )


def read_as(function: Read, what: str, target: Any, output: Any, labels: Labels) -> ResolvedTarget:
    """Another number than the logit, from the whole row of class scores."""
    asked = ClassScore(target.classes).resolve(output, labels)
    if asked.classes is None:
        raise TargetError(target.classes, f"its {what} needs class scores (B, K) as the model's output.")
    classes = asked.classes

    def rescore(other: Any, pictures: Tensor) -> Tensor:
        return function(logits(other)).gather(1, classes[pictures.to(classes.device)][:, None])[:, 0]

    scores = rescore(output, torch.arange(len(classes)))
    short = what.replace(" ", "_")
    return ResolvedTarget(f"{short}_{asked.key}", f"{what} of {asked.name}", scores, rescore, origin=target)
