"""Checks of the arguments of `TrainingMaps`, before training."""

from __future__ import annotations

import operator
from typing import SupportsIndex

import numpy as np
from torch import Tensor

from seewhy.errors import OptionError, UsageError, describe_argument


def check_classes(classes: object, count: int) -> list[int | str]:
    """Return one class per image. Raises UsageError for anything else."""
    items = classes.tolist() if isinstance(classes, Tensor | np.ndarray) else classes
    items = list(items) if isinstance(items, list | tuple | range) else []
    if len(items) != count or not all(isinstance(item, int | str | np.integer) for item in items):
        raise UsageError(
            f"classes={describe_argument(classes)}: pass a list with one class for each of the {count} images."
        )
    return items


def check_step(step: SupportsIndex) -> int:
    """Return the number of a step, which may be a tensor or an array. Raises UsageError if it is negative."""
    number = operator.index(step)
    if number < 0:
        raise UsageError(f"step={number}: pass the number of optimizer steps so far.")
    return number


def check_count(option: str, value: object, low: int, high: int, reason: str) -> None:
    """Raise OptionError unless a value is an integer from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise OptionError(option, value, reason)
