"""What a question is: asked of one output it gives a score for each picture, and can be asked again of others."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import TargetError, one_line
from seewhy.images.view import View
from seewhy.targets.names import Labels

# The same question asked of another output, whose rows are variants of `pictures` (N,) of the batch: scores (N,).
Rescore = Callable[[Any, Tensor], Tensor]


@dataclass(eq=False)
class ResolvedTarget:
    """A target asked of one output: `scores` (B,) with their graph, and how to ask the same of other outputs.

    What the first output decided (which class is on top, which box, which region) stays: `rescore` never decides anew.
    `classes` (B,) are the classes whose logits the scores are, where they are just that. `has_location`: the answer belongs to
    a place (a region, a box), which methods that weigh whole channels cannot tell from others. `notes` say what was
    inferred.
    """

    key: str  # short, unique, the same in files and tables: "654", "top2"
    name: str  # for people: "minibus"
    scores: Tensor
    rescore: Rescore
    classes: Tensor | None = None
    has_location: bool = False
    origin: object = None
    notes: tuple[str, ...] = ()
    region: Tensor | None = None  # (B, *grid), where the answer is a class over some cells of a dense output
    multilabel: bool = False  # each class has a probability of its own

    def for_image(self, output: Any, picture: int, rows: int) -> ResolvedTarget:
        """The same question about one picture, asked of another `output`, whose `rows` are all variants of that picture.

        Raises TargetError for a function that cannot answer that.
        """
        return self._for_output(output, torch.full((rows,), picture))

    def for_variants(self, output: Any) -> ResolvedTarget:
        """The same question about the same pictures, asked of an `output` for a variant of each."""
        return self._for_output(output, torch.arange(len(self.scores)))

    def without_graph(self) -> ResolvedTarget:
        """Return the same target with detached scores, so that it keeps no graph alive."""
        return dataclasses.replace(self, scores=self.scores.detach())

    def is_same_target(self, other: ResolvedTarget) -> bool:
        """Whether both ask the same of every picture."""
        if self.classes is not None and other.classes is not None:
            return torch.equal(self.classes, other.classes)
        return self.classes is other.classes and is_equal(self.origin, other.origin)

    def _for_output(self, output: Any, pictures: Tensor) -> ResolvedTarget:
        pictures = pictures.to(self.scores.device)
        scores = self.rescore(output, pictures)
        classes = None if self.classes is None else self.classes[pictures]
        return dataclasses.replace(self, scores=scores, classes=classes)


@dataclass(frozen=True)
class TargetContext:
    """What is known around a question before it is asked.

    `size` is that of the network's inputs; `views` say, for pictures, which part of each photo those show;
    `embed_text` (texts -> (N, D)) is that of a model of pictures and texts; `output_for` runs the model on another picture;
    `multilabel`: classes do not exclude each other.
    """

    size: tuple[int, ...] = ()
    views: Sequence[View] | None = None
    embed_text: Callable[[Sequence[str]], Tensor] | None = None
    multilabel: bool = False
    output_for: Callable[[Any], Any] | None = None


EMPTY_CONTEXT = TargetContext()


class Target(ABC):
    """A question. Instances are values that hold no model and no output; + - and * with numbers make new ones."""

    @abstractmethod
    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        """The score of each picture from the model's `output`.

        Raises TargetError where the output cannot answer, UnknownName for a class name that is not in `labels`.
        """

    def bind(self, around: TargetContext) -> Target:
        """This target with what it means in the photo, or in another picture, brought to the network's terms."""
        return self

    def __add__(self, other: Target) -> Target:
        return Combined((*parts_of(self), *parts_of(other)))

    def __sub__(self, other: Target) -> Target:
        return self + -1 * other

    def __mul__(self, factor: float) -> Target:
        return Combined(tuple((factor * weight, target) for weight, target in parts_of(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Target:
        return -1 * self


@final
@dataclass(frozen=True)
class Combined(Target):
    """A weighted sum of targets, as `ClassScore(1) + 0.5 * ClassScore(2)` makes it: `parts` are (weight, target).

    >>> from seewhy.targets import ClassScore
    >>> asked = (ClassScore(1) - 0.5 * ClassScore(0)).resolve(torch.tensor([[4.0, 3.0]]), ["cat", "dog"])
    >>> asked.key, asked.name, asked.scores
    ('1-0.5*0', 'dog − 0.5 cat', tensor([1.]))
    """

    parts: tuple[tuple[float, Target], ...]
    title: str = field(default="", compare=False)

    def bind(self, around: TargetContext) -> Target:
        return Combined(tuple((weight, target.bind(around)) for weight, target in self.parts), self.title)

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        return combined([(weight, target.resolve(output, labels)) for weight, target in self.parts], self)


def combined(parts: Sequence[tuple[float, ResolvedTarget]], origin: object) -> ResolvedTarget:
    """The weighted sum of what was asked."""

    def rescore(other: Any, pictures: Tensor) -> Tensor:
        return total([weight * item.rescore(other, pictures) for weight, item in parts])

    key = "".join(signed(weight, "*") + item.key for weight, item in parts)
    name = "".join(signed(weight, " ").replace("-", " − ").replace("+", " + ") + item.name for weight, item in parts)
    return ResolvedTarget(
        key=key.removeprefix("+"),
        name=name.removeprefix(" + ").strip(),
        scores=total([weight * item.scores for weight, item in parts]),
        rescore=rescore,
        has_location=any(item.has_location for _, item in parts),
        origin=origin,
        notes=tuple(dict.fromkeys(note for _, item in parts for note in item.notes)),
    )


def is_equal(one: Any, other: Any) -> bool:
    """Whether two questions are the same: of one class, with the same values, tensors included.

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
        fields = [item.name for item in dataclasses.fields(one) if item.name != "bound"]  # type: ignore[arg-type]
        return all(is_equal(getattr(one, name), getattr(other, name)) for name in fields)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_equal, one, other))
    return bool(one == other)


def parts_of(target: Target) -> tuple[tuple[float, Target], ...]:
    if not isinstance(target, Target):
        raise TargetError(target, "only targets can be added: ClassScore(654) - ClassScore(829).")
    return target.parts if isinstance(target, Combined) else ((1.0, target),)


def total(scores: Sequence[Tensor]) -> Tensor:
    return torch.stack([score.to(scores[0].device) for score in scores]).sum(0)


def signed(weight: float, sign: str) -> str:
    """
    >>> signed(1, "*"), signed(-0.5, "*")
    ('+', '-0.5*')
    """
    size = "" if abs(weight) == 1 else f"{abs(weight):.4g}{sign}"
    return ("-" if weight < 0 else "+") + size


@final
@dataclass(frozen=True)
class FunctionScore(Target):
    """Any function of the model's output that gives one score for each row of it: output -> (B,)."""

    function: Callable[[Any], Tensor]

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        name = getattr(self.function, "__name__", type(self.function).__name__).strip("<>")
        scores = checked(self.function(output), name)
        return ResolvedTarget(name, name, scores, self.rescore, origin=self.function)

    def rescore(self, output: Any, pictures: Tensor) -> Tensor:
        rows = len(pictures)
        name = getattr(self.function, "__name__", type(self.function).__name__).strip("<>")
        rule = f"it is asked of {rows} variants of a picture too, and must give one score for each row, whatever their number"
        try:
            scores = checked(self.function(output), name)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise TargetError(name, f"the function failed ({one_line(error)}); {rule}.") from error
        if len(scores) != rows:
            raise TargetError(name, f"the function gave {len(scores)} scores; {rule}.")
        return scores


def checked(scores: Any, name: str) -> Tensor:
    """What a target function gave, if it is one score for each row."""
    if not isinstance(scores, Tensor) or scores.dim() != 1:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise TargetError(name, f"the function gave {shape}; it must give one score for each picture, shape (B,).")
    return scores
