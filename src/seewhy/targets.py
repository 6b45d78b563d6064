"""Questions: what of the model's output is to be explained, as one score for each picture."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from seewhy.errors import TargetError, UnknownName
from seewhy.outputs import first_tensor

Labels = Sequence[str] | None


@dataclass(eq=False)
class Asked:
    """A target asked of one output: `scores` (B,) with their graph; for a class its index for each picture (B,)."""

    key: str  # short, unique, the same in files and tables: "654", "top2"
    name: str  # for people: "minibus"
    scores: Tensor
    classes: Tensor | None = None
    function: Callable[[Any], Tensor] | None = None

    def of(self, output: Any, picture: int, rows: int) -> Asked:
        """The same question about one picture, asked of another `output`, whose `rows` are all variants of that picture.

        Raises TargetError for a function that cannot answer that.
        """
        if self.classes is None:
            return Asked(self.key, self.name, self.of_function(output, rows), None, self.function)
        scores = logits(output)
        classes = self.classes[picture].expand(len(scores))
        return Asked(self.key, self.name, scores.gather(1, classes[:, None])[:, 0], classes)

    def of_function(self, output: Any, rows: int) -> Tensor:
        assert self.function is not None
        rule = f"it is asked of {rows} variants of a picture too, and must give one score for each row, whatever their number"
        try:
            scores = checked(self.function(output), self.name)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise TargetError(self.name, f"the function failed ({' '.join(str(error).split())}); {rule}.") from error
        if len(scores) != rows:
            raise TargetError(self.name, f"the function gave {len(scores)} scores; {rule}.")
        return scores

    def again(self, output: Any) -> Asked:
        """The same question about the same pictures, asked of an `output` for a variant of each."""
        if self.classes is None:
            return Asked(self.key, self.name, self.of_function(output, len(self.scores)), None, self.function)
        scores = logits(output).gather(1, self.classes[:, None])[:, 0]
        return Asked(self.key, self.name, scores, self.classes)


class Target(ABC):
    """A question. Instances are values that hold no model and no output."""

    @abstractmethod
    def ask(self, output: Any, labels: Labels) -> Asked:
        """The score of each picture from the model's `output`.

        Raises TargetError where the output cannot answer, UnknownName for a class name that is not in `labels`.
        """


@final
@dataclass(frozen=True, eq=False)
class ClassScore(Target):
    """The logit (before softmax) of a class, as in the Grad-CAM paper, section 3.

    `classes` is an index from 0, a name from the model's labels, or a tensor (B,) of indices: one class for each picture.

    >>> asked = ClassScore("cat").ask(torch.tensor([[1.0, 3.0]]), ["dog", "cat"])
    >>> asked.key, asked.name, asked.scores
    ('1', 'cat', tensor([3.]))
    """

    classes: int | str | Tensor

    def ask(self, output: Any, labels: Labels) -> Asked:
        scores = logits(output, self)
        classes = self.indices(scores, labels)
        return answer(scores, classes, labels, "classes")

    def indices(self, scores: Tensor, labels: Labels) -> Tensor:
        batch, count = scores.shape
        given = self.classes
        if isinstance(given, bool) or not isinstance(given, (int, str, Tensor)):
            raise TargetError(given, f"a class is an index or a name, not {type(given).__name__}.")
        if not isinstance(given, Tensor):
            return torch.full((batch,), find_class(given, labels, count), device=scores.device)
        index = given.to(scores.device)
        if index.is_floating_point() or index.dtype == torch.bool:
            raise TargetError(given, f"class indices are whole numbers, not {index.dtype}.")
        if index.dim() == 1 and len(index) != batch:
            raise TargetError(
                given, f"{len(index)} classes for {batch} pictures; give one index, or one for each picture."
            )
        if index.dim() > 1:
            raise TargetError(
                given, f"class indices have shape {tuple(index.shape)}; give one, or one for each picture."
            )
        for wrong in index[(index < 0) | (index >= count)].flatten()[:1].tolist():
            find_class(wrong, labels, count)
        return index.long().expand(batch)


@final
@dataclass(frozen=True)
class TopScore(Target):
    """The logit of each picture's own class at `rank`: 1 is the predicted class, 2 the next likely.

    >>> TopScore(2).ask(torch.tensor([[1.0, 3.0], [5.0, 0.0]]), None).classes
    tensor([0, 1])
    """

    rank: int = 1

    def ask(self, output: Any, labels: Labels) -> Asked:
        scores = logits(output, self)
        if not 1 <= self.rank <= scores.shape[1]:
            raise TargetError(f"top{self.rank}", f"the model has {scores.shape[1]} classes.")
        classes = scores.detach().topk(self.rank, dim=1).indices[:, -1]
        return answer(scores, classes, labels, f"top{self.rank}")


@final
@dataclass(frozen=True)
class FunctionScore(Target):
    """Any function of the model's output that gives one score for each picture: output -> (B,)."""

    function: Callable[[Any], Tensor]

    def ask(self, output: Any, labels: Labels) -> Asked:
        name = getattr(self.function, "__name__", type(self.function).__name__).strip("<>")
        return Asked(name, name, checked(self.function(output), name), None, self.function)


def checked(scores: Any, name: str) -> Tensor:
    """What a target function gave, if it is one score for each row."""
    if not isinstance(scores, Tensor) or scores.dim() != 1:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise TargetError(name, f"the function gave {shape}; it must give one score for each picture, shape (B,).")
    return scores


def as_targets(spec: Any) -> list[Target]:
    """Targets from what a user may write: None (the predicted class), index, name, "top5", tensor, callable, or a list.

    A list of targets is a list of questions, each asked of every picture. One class for each picture is *one* question:
    `ClassScore(tensor)`.

    >>> as_targets([654, "top2"])
    [ClassScore(classes=654), TopScore(rank=1), TopScore(rank=2)]
    """
    match spec:
        case None:
            return [TopScore(1)]
        case Target():
            return [spec]
        case str() if top := re.fullmatch(r"top-?(\d+)", spec.strip().lower()):
            if top[1].strip("0") == "":
                raise TargetError(spec, "ranks start at 1: top1, top5.")
            return [TopScore(rank) for rank in range(1, int(top[1]) + 1)]
        case str() | int():
            return [ClassScore(as_number(spec))]
        case Tensor():
            raise TargetError(
                spec, "for one class for each picture say ClassScore(tensor); for several questions, a list."
            )
        case Sequence():
            if not spec:
                raise TargetError(spec, "an empty list asks nothing; leave it out for the predicted class.")
            return [target for item in spec for target in as_targets(item)]
        case _ if callable(spec):
            return [FunctionScore(spec)]
    raise TargetError(spec, "a target is a class index, a class name, 'topK', a Target or a function of the output.")


def logits(output: Any, target: object = None) -> Tensor:
    """The class scores (B, K) in a model's output: the tensor itself, its `logits`, or the first tensor in it."""
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        scores = output["logits"]
    else:
        scores = first_tensor(output)
    if not isinstance(scores, Tensor) or scores.dim() != 2 or not scores.is_floating_point():
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(output).__name__
        raise TargetError(
            target,
            f"the model's output is {shape}, not class scores (B, K); give a function of the output as the target.",
        )
    return scores


def answer(scores: Tensor, classes: Tensor, labels: Labels, key: str) -> Asked:
    picked = scores.gather(1, classes[:, None])[:, 0]
    distinct = list(dict.fromkeys(classes.tolist()))
    if len(distinct) == 1:
        return Asked(str(distinct[0]), class_name(distinct[0], labels), picked, classes)
    return Asked(key, key, picked, classes)


def class_name(index: int, labels: Labels) -> str:
    """The short name of a class: its label up to the first comma, or "class 7" without labels."""
    if labels is None or index >= len(labels):
        return f"class {index}"
    return labels[index].split(",")[0].strip()


def as_number(given: int | str) -> int | str:
    """An index that was written as text, as a number; a name as it is."""
    return int(given) if isinstance(given, str) and given.strip().isdecimal() else given


def find_class(given: int | str, labels: Labels, count: int) -> int:
    """The index of a class given by index or name; TargetError where the model has no such index."""
    index = class_index(given, labels, count) if isinstance(given, str) else given
    if not 0 <= index < count:
        raise TargetError(index, f"the model has {count} classes, 0 to {count - 1}.")
    return index


def class_index(name: str, labels: Labels, count: int) -> int:
    """The index of the class called `name`: its label, short name or any of its synonyms, in any letter case."""
    if labels is None:
        raise TargetError(name, f"this model brings no class names; give an index, 0 to {count - 1}, or labels.")
    wanted = name.strip().casefold()
    synonyms = {index: [part.strip() for part in label.split(",")] for index, label in enumerate(labels)}
    found = [index for index, label in enumerate(labels) if label.casefold() == wanted]
    found = found or [index for index, names in synonyms.items() if names[0].casefold() == wanted]
    found = found or [index for index, names in synonyms.items() if wanted in map(str.casefold, names)]
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise TargetError(name, f"{len(found)} classes have this name; say which by its index: {listed}.")
    if not found:
        raise UnknownName("class", name, [part for names in synonyms.values() for part in names])
    return found[0]
