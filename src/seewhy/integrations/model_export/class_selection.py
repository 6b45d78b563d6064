"""The classes whose maps an exported network returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import TargetError
from seewhy.targets.names import Labels, as_number, class_name, find_class
from seewhy.targets.parsing import parse_rank

ALL = "all"


@dataclass(frozen=True)
class ClassSelection:
    """The `top` most likely classes, fixed `classes`, or all classes if neither is given."""

    top: int = 0
    classes: tuple[int, ...] = ()

    def select(self, scores: Tensor) -> Tensor:
        """Return the classes `(B, k)` for scores `(B, classes)`."""
        if self.top == 1:  # more runtimes have argmax than topk
            return scores.argmax(1, keepdim=True)
        if self.top:
            return scores.topk(self.top, dim=1).indices
        numbers = self.classes or tuple(range(scores.shape[1]))
        return torch.tensor(numbers, device=scores.device).expand(scores.shape[0], len(numbers))

    def count(self, class_count: int) -> int:
        """Return the number of maps per image."""
        return self.top or len(self.classes) or class_count

    def names(self, labels: Labels) -> list[str]:
        """Return the targets for the metadata: "top5", "all", or the names of the classes."""
        if self.top:
            return [f"top{self.top}"]
        return [class_name(number, labels) for number in self.classes] or [ALL]


def parse_classes(targets: Any, labels: Labels, class_count: int) -> ClassSelection:
    """Return the classes that `targets` describe: "topK", "all", or one or more classes by index or name.

    >>> parse_classes(["cat", 0], ["dog", "cat"], 2)
    ClassSelection(top=0, classes=(1, 0))

    Raises:
        TargetError: There are not as many classes, or something else is combined with "topK" or "all".
        UnknownName: No class has this name.
    """
    entries = list(targets) if isinstance(targets, Sequence) and not isinstance(targets, str) else [targets]
    if not entries:
        raise TargetError(targets, "the list is empty; omit it to explain the predicted class.")
    ranks = [parse_rank(one) if isinstance(one, str) else None for one in entries]
    is_group = [rank is not None or one == ALL for rank, one in zip(ranks, entries, strict=True)]
    if any(is_group) and len(entries) > 1:
        raise TargetError(targets, "'topK' and 'all' cannot be combined with other classes in one file.")
    if ranks[0] is not None and ranks[0] > class_count:
        raise TargetError(entries[0], f"the model has {class_count} classes.")
    if any(is_group):
        return ClassSelection(top=ranks[0] or 0)
    numbers = (find_class(as_number(one), labels, class_count) for one in entries)
    return ClassSelection(classes=tuple(dict.fromkeys(numbers)))
