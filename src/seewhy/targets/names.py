"""Classes by name: from what a user writes to an index, and from an index to a short name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from seewhy.errors import TargetError, UnknownName

Labels = Sequence[str] | None


def class_name(index: int, labels: Labels) -> str:
    """The short name of a class: its label up to the first comma, or "class 7" without labels."""
    if labels is None or index >= len(labels):
        return f"class {index}"
    return labels[index].split(",")[0].strip()


def as_number(given: int | str) -> int | str:
    """An index that was written as text, as a number; a name as it is.

    >>> as_number("654"), as_number("minibus")
    (654, 'minibus')
    """
    return int(given) if isinstance(given, str) and re.fullmatch(r"\s*\d{1,18}\s*", given) else given


def find_class(given: int | str, labels: Labels, count: int) -> int:
    """The index of a class given by index or name; TargetError where the model has no such index."""
    if isinstance(given, bool) or not isinstance(given, (Integral, str)):
        raise TargetError(given, f"a class is an index or a name, not {type(given).__name__}.")
    index = class_index(given, labels, count) if isinstance(given, str) else int(given)
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


def find_classes(given: int | str | Tensor, labels: Labels, scores: Tensor) -> Tensor:
    """The class of each picture (B,), for class scores (B, K, ...). `given` may be a tensor of them.

    >>> find_classes("cat", ["dog", "cat"], torch.zeros(2, 2))
    tensor([1, 1])
    """
    batch, count = scores.shape[:2]
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


def common_name(classes: Tensor, labels: Labels, otherwise: str) -> str:
    """The name of the class that all pictures share, or `otherwise`."""
    distinct = set(classes.tolist())
    return class_name(distinct.pop(), labels) if len(distinct) == 1 else otherwise


def common_key(classes: Tensor, otherwise: str) -> str:
    distinct = set(classes.tolist())
    return str(distinct.pop()) if len(distinct) == 1 else otherwise
