"""Comparing targets that a user passes later with the targets that were passed to `explain`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

from seewhy.errors import UsageError
from seewhy.targets import Combined, Contrast, Target
from seewhy.targets.base import is_equal
from seewhy.targets.names import Labels, class_index, class_name

Convert = Callable[[int | str], int | str]


def is_requested(requested: Iterable[Target | str], passed: Target, labels: Labels) -> bool:
    """Return True if `passed` is one of the requested targets, with classes by name or by index.

    A loaded explanation has the text of its requested targets instead of the targets.
    """
    forms = spellings(passed, labels)
    texts = {text.casefold() for one in forms if (text := describe_target(one)) is not None}
    for one in requested:
        if isinstance(one, str):
            if one.casefold() in texts:
                return True
        elif any(is_equal(form, other) for form in forms for other in spellings(one, labels)):
            return True
    return False


def is_contrast_of(requested: Iterable[Target | str], passed: Target, labels: Labels) -> bool:
    """Return True if a requested target is a contrast whose first target is `passed`."""
    starts = [f"contrast(target={text}, ".casefold() for text in describe_spellings(passed, labels)]
    for one in requested:
        if isinstance(one, str):
            if one.casefold().startswith(tuple(starts)):
                return True
        elif isinstance(one, Contrast) and is_requested([one.parts[0]], passed, labels):
            return True
    return False


def describe_spellings(target: Target, labels: Labels) -> list[str]:
    """Return the texts that identify a target, with classes as passed, by index and by name; none if no text can."""
    texts = map(describe_target, spellings(target, labels))
    return list(dict.fromkeys(text for text in texts if text is not None))


def describe_target(target: Target) -> str | None:
    """Return text that identifies a target; None if text cannot (tensors, arrays, functions, images).

    >>> from seewhy.targets import ClassScore, FunctionScore
    >>> describe_target(ClassScore("dog")), describe_target(FunctionScore(len))
    ("ClassScore(classes='dog')", None)
    """
    text = repr(target)
    return None if re.search(r"tensor\(|array\(|<", text) else text


def spellings(target: Target, labels: Labels) -> list[Target]:
    """Return the target with its classes as passed, by index and by name, as far as the labels are known."""

    def to_index(name_or_index: int | str) -> int | str:
        if labels is None or not isinstance(name_or_index, str):
            return name_or_index
        try:
            return class_index(name_or_index, labels, len(labels))
        except UsageError:
            return name_or_index

    def to_name(name_or_index: int | str) -> int | str:
        index = to_index(name_or_index)
        return name_or_index if isinstance(index, str) or labels is None else class_name(index, labels)

    return [target, convert_classes(target, to_index), convert_classes(target, to_name)]


def convert_classes(target: Target, convert: Convert) -> Target:
    """Return the target with each class converted; the parts of a contrast become targets."""
    if isinstance(target, Contrast):
        first, rivals = target.parts
        return Contrast(convert_classes(first, convert), [convert_classes(rival, convert) for rival in rivals])
    if isinstance(target, Combined):
        return Combined(tuple((weight, convert_classes(part, convert)) for weight, part in target.parts))
    classes: object = getattr(target, "classes", None)
    copy: Any = target
    if isinstance(classes, (int, str)):
        return dataclasses.replace(copy, classes=convert(classes))  # type: ignore[no-any-return]
    if isinstance(classes, tuple):
        return dataclasses.replace(copy, classes=tuple(map(convert, classes)))  # type: ignore[no-any-return]
    return target
