"""Targets for class scores: a class, the top classes, their probabilities, a contrast of two classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import final

import torch
from torch import Tensor

from seewhy.errors import TargetError
from seewhy.targets.base import EMPTY_CONTEXT, ResolvedTarget, Target, TargetContext, combine
from seewhy.targets.boxes import best_box, is_detections
from seewhy.targets.class_scores import (
    candidate_notes,
    find_scores,
    log_probabilities,
    logits,
    order_notes,
    other_tensors,
    probabilities,
)
from seewhy.targets.dense import RegionScore, region_score, top_region
from seewhy.targets.dense_output import class_axis, dense_logits, is_dense, top_classes
from seewhy.targets.names import (
    ClassSpec,
    Labels,
    common_key,
    common_name,
    find_classes,
    normalize_classes,
)
from seewhy.targets.values import ValueScore, has_values_only

Transform = Callable[[Tensor], Tensor]  # class scores (N, K) -> another table (N, K)


@final
@dataclass(frozen=True, eq=False)
class ClassScore(Target):
    """The logit of a class before softmax, as in the Grad-CAM paper, section 3.

    For a dense output, it is the sum over the region where the class wins (`RegionScore`); for detections, the score of
    the best box of the class (`BoxScore`).

    Args:
        classes: One class for all images: an index from 0, or a name from the model's labels. Or one class per image: a
            list, range, array or tensor of shape `(B,)`. `ClassScore([3, 9])` is class 3 for the first image and class 9
            for the second; two targets per image are `targets=[3, 9]`.

    Raises:
        TargetError: From `resolve`: the model has no class scores or no such class, or `classes` is not as long as the batch.
        UnknownName: From `resolve`: no class has this name.

    Example:
        >>> resolved = ClassScore("cat").resolve(torch.tensor([[1.0, 3.0]]), ["dog", "cat"])
        >>> resolved.key, resolved.name, resolved.scores
        ('1', 'cat', tensor([3.]))
        >>> ClassScore([1, 0]).resolve(torch.tensor([[1.0, 3.0], [5.0, 2.0]]), None).scores
        tensor([3., 5.])

    References:
        Selvaraju et al., "Grad-CAM", ICCV 2017, https://doi.org/10.1109/ICCV.2017.74
    """

    classes: ClassSpec
    context: TargetContext = field(default=EMPTY_CONTEXT, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", normalize_classes(self.classes))

    def bind(self, context: TargetContext) -> Target:
        return replace(self, context=context)

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        if is_detections(output) and not isinstance(self.classes, (Tensor, tuple)):
            return best_box(output, self.classes, 1, labels, self)
        if is_dense(output, len(self.context.size)):
            return RegionScore(self.classes, context=self.context).resolve(output, labels)
        scores = logits(output, self.classes)
        classes = find_classes(self.classes, labels, scores, other_tensors(output, find_scores(output)))
        return class_logits(output, classes, labels, "classes", self)


@final
@dataclass(frozen=True)
class TopScore(Target):
    """The logit of the class that has this rank in the prediction of each image.

    For a dense output, it is the class that wins in the most cells, background excluded; for detections, the best box; for an
    output without a class axis, such as depth, its mean (`ValueScore`).

    Args:
        rank: 1 is the predicted class, 2 the second most likely, and so on.

    Raises:
        TargetError: From `resolve`: the model has fewer classes.

    Example:
        >>> TopScore(2).resolve(torch.tensor([[1.0, 3.0], [5.0, 0.0]]), None).classes
        tensor([0, 1])
    """

    rank: int = 1
    context: TargetContext = field(default=EMPTY_CONTEXT, repr=False, compare=False)

    def bind(self, context: TargetContext) -> Target:
        return replace(self, context=context)

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        if is_detections(output):
            return best_box(output, None, self.rank, labels, self)
        if is_dense(output, len(self.context.size)):
            return top_region(output, self.rank, labels, self, self.context.size)
        if self.rank == 1 and has_values_only(output, self.context.size):
            return replace(ValueScore(context=self.context).resolve(output, labels), target=self)
        scores = logits(output, f"top{self.rank}")
        if not 1 <= self.rank <= scores.shape[1]:
            count = scores.shape[1]
            raise TargetError(f"top{self.rank}", f"the model has {count} classes; use top{count} or fewer.")
        classes = scores.detach().topk(self.rank, dim=1).indices[:, -1]
        return class_logits(output, classes, labels, f"top{self.rank}", self)


@final
@dataclass(frozen=True, eq=False)
class ClassProbability(Target):
    """The probability of a class, in [0, 1].

    Its gradient vanishes where the model is certain (p near 0 or 1); the gradients of the logit and of the log probability
    do not.

    Args:
        classes: As for `ClassScore`.
        multilabel: False: softmax over the classes; True: the sigmoid of the class. For a single
            logit, it is always the sigmoid.
        normalized: True: the class scores are probabilities already. `explain` observes that.

    Raises:
        TargetError: From `resolve`: the model has no class scores.

    Example:
        >>> ClassProbability(0).resolve(torch.tensor([[0.0, 0.0]]), None).scores
        tensor([0.5000])
    """

    classes: ClassSpec
    multilabel: bool = False
    normalized: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", normalize_classes(self.classes))

    def bind(self, context: TargetContext) -> Target:
        return replace(
            self,
            multilabel=self.multilabel or context.multilabel,
            normalized=self.normalized or context.normalized,
        )

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        transform = partial(probabilities, multilabel=self.multilabel, normalized=self.normalized)
        return transformed_score(transform, "probability", self, output, labels)


@final
@dataclass(frozen=True, eq=False)
class ClassLogProbability(Target):
    """The logarithm of a class's probability, at most 0. Its map shows evidence for the class against all others.

    Args:
        classes: As for `ClassScore`.
        multilabel, normalized: As for `ClassProbability`.

    Raises:
        TargetError: From `resolve`: the model has no class scores.

    Example:
        >>> ClassLogProbability(0).resolve(torch.tensor([[0.0, 0.0]]), None).scores
        tensor([-0.6931])
    """

    classes: ClassSpec
    multilabel: bool = False
    normalized: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", normalize_classes(self.classes))

    def bind(self, context: TargetContext) -> Target:
        return replace(
            self,
            multilabel=self.multilabel or context.multilabel,
            normalized=self.normalized or context.normalized,
        )

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        transform = partial(log_probabilities, multilabel=self.multilabel, normalized=self.normalized)
        return transformed_score(transform, "log probability", self, output, labels)


@final
@dataclass(frozen=True, eq=False)
class Contrast(Target):
    """The score of one target minus the mean score of others: why A and not B.

    For methods that are linear in the score (CAM, Grad-CAM, HiResCAM, XGrad-CAM, elementwise Grad-CAM), the signed map is
    the difference of the two maps: positive values are evidence for the first target, negative values for the others. For
    a dense output, all are computed over the cells of the first.

    Args:
        target: A class (as for `ClassScore`) or a `Target`.
        against: One class or target, or a list of several, whose scores are averaged. One class per image here is
            `against=ClassScore([3, 9])`.

    Raises:
        TargetError: From `resolve`: `against` is empty, or contains the target itself.

    Example:
        >>> scores, names = torch.tensor([[4.0, 3.0]]), ["minibus", "streetcar"]
        >>> resolved = Contrast("minibus", against=["streetcar"]).resolve(scores, names)
        >>> resolved.key, resolved.name, resolved.scores
        ('0-1', 'minibus rather than streetcar', tensor([1.]))
    """

    target: ClassSpec | Target
    against: Sequence[int | str | Target] | int | str | Target

    @property
    def parts(self) -> tuple[Target, list[Target]]:
        """The target, and the targets that it is compared with."""
        rivals: list[int | str | Target]
        if isinstance(self.against, Sequence) and not isinstance(self.against, str):
            rivals = list(self.against)
        else:
            rivals = [self.against]
        if not rivals:
            raise TargetError(self.target, "nothing to compare with; pass at least one class: against=[829].")
        return as_target(self.target), [as_target(rival) for rival in rivals]

    def bind(self, context: TargetContext) -> Target:
        target, rivals = self.parts
        return Contrast(target.bind(context), [rival.bind(context) for rival in rivals])

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        target, rivals = self.parts
        own = target.resolve(output, labels)
        others = [resolve_rival(own, rival, output, labels) for rival in rivals]
        if any(is_zero_contrast(own, other) for other in others):
            raise TargetError(own.name, "it is compared with itself; compare with another class.")
        difference = combine([(1.0, own), *((-1 / len(others), other) for other in others)], self)
        return replace(
            difference,
            key="-".join([own.key, *(other.key for other in others)]),
            name=f"{own.name} rather than {' or '.join(other.name for other in others)}",
        )


def resolve_rival(own: ResolvedTarget, rival: Target, output: object, labels: Labels) -> ResolvedTarget:
    """Resolve a target that `own` is compared with. A class of a dense output is summed over the cells of `own`."""
    if own.region is None or not isinstance(rival, (ClassScore, TopScore)):
        return rival.resolve(output, labels)
    axis = class_axis(output, rival.context.size)
    if isinstance(rival, TopScore):
        classes = top_classes(output, rival.rank, labels, axis)
    else:
        classes = find_classes(rival.classes, labels, dense_logits(output, rival.classes, axis))
    resolved = region_score(output, classes, own.region, labels, rival, key="classes", axis=axis)
    return replace(resolved, notes=(f"'{resolved.name}' is summed over the same cells",))


def is_zero_contrast(own: ResolvedTarget, other: ResolvedTarget) -> bool:
    """Return True if the contrast would be zero for any image."""
    if own.classes is not None and other.classes is not None:
        return bool((own.classes == other.classes).any())
    if own.region is not None and other.region is not None:
        return own.key == other.key
    return own.is_same_target(other)


def as_target(spec: ClassSpec | Target) -> Target:
    return spec if isinstance(spec, Target) else ClassScore(spec)


def class_logits(output: object, classes: Tensor, labels: Labels, key: str, target: Target) -> ResolvedTarget:
    """Return the logits of `classes` (B,)."""

    def rescore(other: object, images: Tensor) -> Tensor:
        return logits(other).gather(1, classes[images.to(classes.device)][:, None])[:, 0]

    scores = rescore(output, torch.arange(len(classes)))
    name, key = common_name(classes, labels, key), common_key(classes, key)
    notes = (*candidate_notes(output, find_scores(output)), *order_notes(output))
    return ResolvedTarget(key, name, scores, rescore, classes, target=target, notes=notes)


def transformed_score(
    transform: Transform, name: str, target: ClassProbability | ClassLogProbability, output: object, labels: Labels
) -> ResolvedTarget:
    """Return the score of one class after `transform`, which is applied to all class scores."""
    resolved = ClassScore(target.classes).resolve(output, labels)
    if resolved.classes is None:
        raise TargetError(target.classes, f"its {name} needs class scores (B, K) as the model's output.")
    classes = resolved.classes

    def rescore(other: object, images: Tensor) -> Tensor:
        return transform(logits(other)).gather(1, classes[images.to(classes.device)][:, None])[:, 0]

    scores = rescore(output, torch.arange(len(classes)))
    key = f"{name.replace(' ', '_')}_{resolved.key}"
    return ResolvedTarget(key, f"{name} of {resolved.name}", scores, rescore, target=target, notes=resolved.notes)
