"""The targets of captum: indices into the output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seewhy.compat.row_targets import RowFunction, RowScore
from seewhy.errors import UsageError
from seewhy.targets import ClassScore, Target

Index = int | tuple[int, ...]
TargetType = int | tuple[int, ...] | Tensor | Sequence[int] | Sequence[tuple[int, ...]] | None


def as_target(target: TargetType, images: int) -> Target:
    """Return captum's target as one target of seewhy for a batch.

    Args:
        target: A class, a tuple of indices for an output with more axes, or a list or tensor with one for each image. None: the
            output is one number per image.
        images: Number of images.

    Raises:
        UsageError: It is something else, or its length is not the number of images.
    """
    if isinstance(target, Tensor):
        classes = [int(one) for one in target.flatten()]
        target = classes[0] if len(classes) == 1 else classes
    if target is None:
        return RowScore((only_number,) * images)
    if isinstance(target, bool) or not isinstance(target, int | tuple | list):
        raise UsageError(
            f"target={target!r}: pass a class, a tuple of indices, or a list with one of these for each image."
        )
    if isinstance(target, int):
        return ClassScore(target)
    if isinstance(target, tuple):
        return RowScore((number_at(target),) * images)
    if len(target) != images:
        raise UsageError(
            f"target has {len(target)} entries for {images} images; pass one for each image, or a single one."
        )
    if all(isinstance(one, int) for one in target):
        return ClassScore(torch.tensor(target))
    return RowScore(tuple(number_at(one) for one in target))


def number_at(index: Index) -> RowFunction:
    return lambda row: row[index]


def only_number(row: Tensor) -> Tensor:
    return row
