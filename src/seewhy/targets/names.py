"""Class names and indices: from what a user writes to an index, and from an index to a short name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import TargetError, UnknownName, join_choices
from seewhy.rendering.text_runs import shorten_middle

# Characters of a short name; an accent, or an emoji that is joined to another, is not counted separately.
MAX_NAME = 120
MAX_EXAMPLES = 3
Labels = Sequence[str] | None
OneClass = int | str
# One class for all images, or a sequence, array or tensor of shape (B,): one class per image.
ClassSpec = OneClass | Sequence[OneClass] | np.ndarray[Any, Any] | Tensor


def class_name(index: int, labels: Labels) -> str:
    """Return the short name of a class.

    Args:
        index: Index of the class.
        labels: Class names, or None.

    Returns:
        The label up to its first comma, shortened in the middle to 120 characters; "class 7" without labels.

    Example:
        >>> class_name(0, ["tench, Tinca tinca"]), class_name(7, None)
        ('tench', 'class 7')
    """
    if labels is None or index >= len(labels):
        return f"class {index}"
    return shorten_middle(labels[index].split(",")[0].strip(), MAX_NAME)


def as_number(text: int | str) -> int | str:
    """Convert an integer as text to `int`; return any other text unchanged.

    >>> as_number("654"), as_number("-1"), as_number("minibus")
    (654, -1, 'minibus')
    """
    return int(text) if isinstance(text, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", text) else text


def as_integer(value: object) -> int | None:
    """Convert an integer of Python, NumPy or PyTorch to `int`; None for anything else, `bool` included.

    >>> as_integer(np.int64(3)), as_integer(torch.tensor(3)), as_integer(True), as_integer("3")
    (3, 3, None, None)
    """
    if isinstance(value, (Tensor, np.ndarray)):
        value = value.item() if value.ndim == 0 else None
    is_integer = isinstance(value, Integral) and not isinstance(value, (bool, np.bool_))
    return int(value) if is_integer else None  # type: ignore[call-overload]


def normalize_classes(classes: object) -> object:
    """Bring `ClassSpec` to one of four forms: `int`, `str`, a tensor (B,), or a tuple with names.

    Anything else is returned unchanged, and `find_classes` raises for it.
    """
    if (index := as_integer(classes)) is not None:
        return index
    if isinstance(classes, np.ndarray):
        return torch.as_tensor(classes) if classes.dtype.kind in "iufb" else normalize_classes(classes.tolist())
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        items = [one if (number := as_integer(one)) is None else number for one in classes]
        if any(isinstance(one, str) for one in items):
            return tuple(items)
        try:
            return torch.as_tensor(items)
        except (TypeError, ValueError, RuntimeError):
            return tuple(items)
    return classes


def find_class(name_or_index: object, labels: Labels, count: int, note: str = "") -> int:
    """Return the index of a class given by index or name.

    Args:
        name_or_index: An integer of Python, NumPy or PyTorch, or a name.
        labels: Class names, or None.
        count: Number of classes of the model.
        note: What else the model returns, for the error.

    Returns:
        An index from 0 to `count` - 1.

    Raises:
        TargetError: The model has no such index, several classes have this name, or there are no labels.
        UnknownName: No class has this name.

    Example:
        >>> find_class("Cat", ["dog", "cat"], 2), find_class(1, None, 2)
        (1, 1)
    """
    if isinstance(name_or_index, str):
        index = class_index(name_or_index, labels, count)
    elif (number := as_integer(name_or_index)) is not None:
        index = number
    else:
        raise TargetError(name_or_index, f"a class is an index or a name, not {type(name_or_index).__name__}.")
    if not 0 <= index < count:
        owner = "the explained tensor" if note else "the model"
        raise TargetError(index, f"{owner} has {count} classes, 0 to {count - 1}{note}.")
    return index


def class_index(name: str, labels: Labels, count: int) -> int:
    """Return the index of the class called `name`.

    Args:
        name: The label, its short name or one of its synonyms (separated by commas), in any letter case.
        labels: Class names, or None.
        count: Number of classes of the model.

    Returns:
        The index of the class.

    Raises:
        TargetError: Several classes have this name, or there are no labels.
        UnknownName: No class has this name.

    Example:
        >>> class_index("tinca tinca", ["cat", "tench, Tinca tinca"], 2)
        1
    """
    if labels is None:
        raise TargetError(name, f"this model has no class names; pass an index, 0 to {count - 1}, or labels=.")
    folded = name.strip().casefold()
    synonyms = {index: [part.strip() for part in label.split(",")] for index, label in enumerate(labels)}
    matches = [index for index, label in enumerate(labels) if label.casefold() == folded]
    matches = matches or [index for index, names in synonyms.items() if names[0].casefold() == folded]
    matches = matches or [index for index, names in synonyms.items() if folded in map(str.casefold, names)]
    if len(matches) > 1:
        indices = ", ".join(map(str, matches))
        raise TargetError(name, f"{len(matches)} classes have this name; pass the index of one: {indices}.")
    if not matches:
        raise unknown_class(name, folded, [part for names in synonyms.values() for part in names])
    return matches[0]


def unknown_class(name: str, folded: str, names: Sequence[str]) -> UnknownName:
    """Return the error for an unknown class. Names that contain it as a word are closer than similar letters: "cat"."""
    word = re.compile(rf"\b{re.escape(folded)}\b")
    containing = list(dict.fromkeys(one for one in names if word.search(one.casefold()))) if folded else []
    if not containing:
        return UnknownName("class", name, names)
    count = f"{len(containing)} names contain" if len(containing) > 1 else "One name contains"
    hint = f"{count} this word, such as {join_choices(containing[:MAX_EXAMPLES])}."
    return UnknownName("class", name, names, hint=hint, close_matches=())


def find_classes(classes: object, labels: Labels, scores: Tensor, note: str = "") -> Tensor:
    """Return the class of each image (B,) for class scores (B, K, ...). Errors contain the `note`.

    >>> find_classes("cat", ["dog", "cat"], torch.zeros(2, 2))
    tensor([1, 1])
    >>> find_classes(["cat", "dog"], ["dog", "cat"], torch.zeros(2, 2))
    tensor([1, 0])
    """
    batch, count = scores.shape[:2]
    classes = normalize_classes(classes)
    if isinstance(classes, tuple):
        classes = torch.tensor([find_class(one, labels, count, note) for one in classes])
    if not isinstance(classes, Tensor):
        return torch.full((batch,), find_class(classes, labels, count, note), device=scores.device)
    index = classes.to(scores.device)
    if index.is_floating_point() or index.dtype == torch.bool:
        raise TargetError(classes, f"class indices are integers, not {index.dtype}.")
    if index.dim() == 1 and len(index) != batch:
        raise TargetError(
            classes,
            f"{len(index)} classes for {batch} images; pass one class, or one per image. For several classes of each image, "
            "pass a list of targets: targets=[3, 9].",
        )
    if index.dim() > 1:
        raise TargetError(classes, f"class indices have shape {tuple(index.shape)}; pass one class, or one per image.")
    for invalid in index[(index < 0) | (index >= count)].flatten()[:1].tolist():
        find_class(invalid, labels, count, note)
    return index.long().expand(batch)


def common_name(classes: Tensor, labels: Labels, default: str) -> str:
    """Return the name of the class that all images share; `default` if they differ."""
    distinct = set(classes.tolist())
    return class_name(distinct.pop(), labels) if len(distinct) == 1 else default


def common_key(classes: Tensor, default: str) -> str:
    """Return the index of the class that all images share as text; `default` if they differ."""
    distinct = set(classes.tolist())
    return str(distinct.pop()) if len(distinct) == 1 else default
