"""The contract of targets: resolved against one output, a target has a score per image and can be rescored on others."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import TargetError, one_line
from seewhy.images.types import ImageSource
from seewhy.images.view import View
from seewhy.targets.names import Labels

# Scores (N,) of another output, whose row n is a variant of image `images[n]` of the batch.
Rescore = Callable[[object, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class ResolvedTarget:
    """A target with its scores for one output, and the function that scores other outputs.

    What the first output decided (the class on top, the box, the region) is fixed: `rescore` uses the same.

    Attributes:
        key: Short, unique text for files and tables: "654", "top2".
        name: Name for people: "minibus".
        scores: `(B,)`, with their graph.
        rescore: Computes the scores of other outputs.
        classes: `(B,)`, if the scores are the logits of these classes; else None.
        has_location: True if the score belongs to a location (a region or a box). Methods that give each channel a single
            weight cannot separate it from other locations.
        target: The target that was resolved.
        notes: What was inferred.
        boxes: `(B, 4)`, the boxes of detections: left, top, right, bottom in input pixels, or as fractions of the input if none
            is above 1.
        region: `(B, *grid)` bool, if the score is a class over some cells of a dense output.
        multilabel: True if each class has an independent probability.
        normalized: True if the class scores are probabilities already.
        requested: The targets as the user passed them, before they were bound; duplicates included.
    """

    key: str
    name: str
    scores: Tensor
    rescore: Rescore
    classes: Tensor | None = None
    has_location: bool = False
    target: object = None
    notes: tuple[str, ...] = ()
    region: Tensor | None = None
    boxes: Tensor | None = None
    multilabel: bool = False
    normalized: bool = False
    requested: tuple[Target, ...] = ()

    def for_image(self, output: object, image: int, rows: int) -> ResolvedTarget:
        """Rescore an output whose `rows` are all variants of one image.

        Args:
            output: The model's output.
            image: Index of the image in the batch.
            rows: Number of rows of the output.

        Returns:
            The same target with scores `(rows,)`.

        Raises:
            TargetError: A function target does not return one score per row.
        """
        return self._for_output(output, torch.full((rows,), image))

    def for_variants(self, output: object) -> ResolvedTarget:
        """Rescore an output with one variant of each image.

        Args:
            output: The model's output for variants of all images of the batch, in order.

        Returns:
            The same target with scores `(B,)`.

        Raises:
            TargetError: A function target does not return one score per row.
        """
        return self._for_output(output, torch.arange(len(self.scores)))

    def without_graph(self) -> ResolvedTarget:
        """Return the same target with detached scores, so that it keeps no graph alive."""
        return dataclasses.replace(self, scores=self.scores.detach())

    def is_same_target(self, other: ResolvedTarget) -> bool:
        """Return True if both have the same score for every image.

        Args:
            other: A target that was resolved against the same output.
        """
        if self.classes is not None and other.classes is not None:
            return torch.equal(self.classes, other.classes)
        return self.classes is other.classes and is_equal(self.target, other.target)

    def _for_output(self, output: object, images: Tensor) -> ResolvedTarget:
        images = images.to(self.scores.device)
        scores = self.rescore(output, images)
        classes = None if self.classes is None else self.classes[images]
        return dataclasses.replace(self, scores=scores, classes=classes)


@dataclass(frozen=True)
class TargetContext:
    """The context in which a target is resolved, in addition to the model's output.

    Attributes:
        size: Size of the model's input without batch and channel axes.
        views: For each image, the part of the photo that the model received; None for tensors.
        embed_text: Text encoder of the model, texts to `(N, D)`; None if it has none.
        multilabel: True if each class has an independent probability.
        normalized: True if the class scores are probabilities already.
        output_for: Runs the model on another image; None if the model has no preprocessing.
    """

    size: tuple[int, ...] = ()
    views: Sequence[View] | None = None
    embed_text: Callable[[Sequence[str]], Tensor] | None = None
    multilabel: bool = False
    normalized: bool = False
    output_for: Callable[[ImageSource | Tensor], object] | None = None


EMPTY_CONTEXT = TargetContext()


class Target(ABC):
    """A scalar function of the model's output, which is explained.

    Targets are immutable values without model or output. `+`, `-` and `*` with numbers combine them.

    To write your own target, implement `resolve`; for a plain function of the output use `FunctionScore`.
    """

    @abstractmethod
    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        """Compute the score of each image.

        Args:
            output: The model's output: a tensor, or any nesting of tensors.
            labels: Class names, or None.

        Returns:
            The scores `(B,)`, and how to score other outputs.

        Raises:
            TargetError: The output does not contain what the target needs.
            UnknownName: A class name is not in `labels`.
        """

    def bind(self, context: TargetContext) -> Target:
        """Return this target with photo coordinates, texts and other images translated to the model's terms.

        Args:
            context: The size of the input, the views of the images, and the encoders of the model.

        Returns:
            A target that `resolve` can use. Most targets do not need the context and return themselves.

        Raises:
            TargetError: The model lacks what the target needs, such as a text encoder for a text.
        """
        return self

    def __add__(self, other: Target) -> Target:
        return Combined((*weighted_parts(self), *weighted_parts(other)))

    def __sub__(self, other: Target) -> Target:
        return self + -1 * other

    def __mul__(self, factor: float) -> Target:
        return Combined(tuple((factor * weight, target) for weight, target in weighted_parts(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Target:
        return -1 * self


@final
@dataclass(frozen=True)
class Combined(Target):
    """A weighted sum of targets, the result of `ClassScore(1) + 0.5 * ClassScore(2)`.

    Args:
        parts: Pairs (weight, target).

    Example:
        >>> from seewhy.targets import ClassScore
        >>> resolved = (ClassScore(1) - 0.5 * ClassScore(0)).resolve(torch.tensor([[4.0, 3.0]]), ["cat", "dog"])
        >>> resolved.key, resolved.name, resolved.scores
        ('1-0.5*0', 'dog − 0.5 cat', tensor([1.]))
    """

    parts: tuple[tuple[float, Target], ...]

    def bind(self, context: TargetContext) -> Target:
        return Combined(tuple((weight, target.bind(context)) for weight, target in self.parts))

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        return combine([(weight, target.resolve(output, labels)) for weight, target in self.parts], self)


def combine(parts: Sequence[tuple[float, ResolvedTarget]], target: Target) -> ResolvedTarget:
    """Return the weighted sum of resolved targets."""

    def rescore(other: object, images: Tensor) -> Tensor:
        return sum_scores([weight * part.rescore(other, images) for weight, part in parts])

    key = "".join(format_weight(weight, "*") + part.key for weight, part in parts)
    name = "".join(
        format_weight(weight, " ").replace("-", " − ").replace("+", " + ") + part.name for weight, part in parts
    )
    return ResolvedTarget(
        key=key.removeprefix("+"),
        name=name.removeprefix(" + ").strip(),
        scores=sum_scores([weight * part.scores for weight, part in parts]),
        rescore=rescore,
        has_location=any(part.has_location for _, part in parts),
        target=target,
        notes=tuple(dict.fromkeys(note for _, part in parts for note in part.notes)),
    )


def is_equal(one: Any, other: Any) -> bool:
    """Return True for equal values, tensors and arrays included; the context of targets is ignored.

    >>> from seewhy.targets import RegionScore
    >>> is_equal(RegionScore(1, torch.ones(2, 2)), RegionScore(1, torch.ones(2, 2)))
    True
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Target):
        names = [name for name in getattr(one, "__dataclass_fields__", ()) if name != "context"]
        return all(is_equal(getattr(one, name), getattr(other, name)) for name in names) if names else one == other
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_equal, one, other))
    return bool(one == other)


def weighted_parts(target: object) -> tuple[tuple[float, Target], ...]:
    """Return the (weight, target) pairs of a sum; one pair for any other target."""
    if not isinstance(target, Target):  # a number, for example
        raise TargetError(target, "only targets can be added, as in ClassScore(654) - ClassScore(829).")
    return target.parts if isinstance(target, Combined) else ((1.0, target),)


def sum_scores(scores: Sequence[Tensor]) -> Tensor:
    return torch.stack([score.to(scores[0].device) for score in scores]).sum(0)


def format_weight(weight: float, separator: str) -> str:
    """
    >>> format_weight(1, "*"), format_weight(-0.5, "*")
    ('+', '-0.5*')
    """
    size = "" if abs(weight) == 1 else f"{abs(weight):.4g}{separator}"
    return ("-" if weight < 0 else "+") + size


@final
@dataclass(frozen=True)
class FunctionScore(Target):
    """Any function of the model's output with one score per row.

    Args:
        function: Takes the output, returns a tensor `(B,)`. Some methods call it with other numbers of rows.

    Raises:
        TargetError: From `resolve`, if the function does not return one score per row.

    Example:
        >>> FunctionScore(lambda output: output[:, 0] - output[:, 1]).resolve(torch.tensor([[4.0, 3.0]]), None).scores
        tensor([1.])
    """

    function: Callable[..., Tensor]

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__).strip("<>")

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        scores = check_scores(self.function(output), self.name)
        return ResolvedTarget(self.name, self.name, scores, self.rescore, target=self)

    def rescore(self, output: object, images: Tensor) -> Tensor:
        rows = len(images)
        rule = f"it is also called with {rows} variants of an image, and must return one score per row for any number of rows"
        try:
            scores = check_scores(self.function(output), self.name)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise TargetError(self.name, f"the function failed ({one_line(error)}); {rule}.") from error
        if len(scores) != rows:
            raise TargetError(self.name, f"the function returned {len(scores)} scores; {rule}.")
        return scores


def check_scores(scores: object, name: str) -> Tensor:
    """Return what a target function returned, if it is one score per row."""
    if not isinstance(scores, Tensor) or scores.dim() != 1:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise TargetError(name, f"the function returned {shape}; it must return one score per image, shape (B,).")
    return scores
