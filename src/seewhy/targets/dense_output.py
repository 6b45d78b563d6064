"""Outputs with class scores for each position: which axis has the classes, and where each class wins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seewhy.errors import TargetError
from seewhy.targets.class_scores import describe_tensor, find_scores
from seewhy.targets.names import Labels, class_name
from seewhy.targets.probability_checks import are_bounded, ends_in_bounded_function

BACKGROUND = ("background", "__background__")


def winning_region(scores: Tensor, classes: Tensor) -> Tensor:
    """Return the cells (B, *grid) where each image's class wins."""
    winners = winning_classes(scores)
    return winners == classes.view(-1, *[1] * (winners.dim() - 1))


def is_dense(output: object, axes: int = 2) -> bool:
    """Return True if an output is class scores for every cell of a grid (B, K, *grid) with more than one cell.

    The grid has two or three axes; one, if the inputs have one of `axes`. A fully convolutional classifier has one cell.
    """
    tensor = find_scores(output)
    if tensor is None or not (3 if axes == 1 else 4) <= tensor.dim() <= 5 or not tensor.is_floating_point():
        return False
    return tensor.shape[2:].numel() > 1


def dense_logits(output: object, target: object, axis: int = 1) -> Tensor:
    """Return the dense class scores in a model's output as (B, K, *grid), from the `axis` of their classes.

    Raises TargetError without any.
    """
    scores = find_scores(output)
    if scores is None or scores.dim() < 3 or not scores.is_floating_point():
        if scores is not None and scores.dim() == 2 and scores.is_floating_point():
            raise TargetError(
                target,
                f"it needs a segmentation model, and this model returns one score per class and image, {tuple(scores.shape)}; "
                "use the class itself as target.",
            )
        shape = type(output).__name__ if scores is None else describe_tensor(scores)
        raise TargetError(
            target,
            f"it needs a segmentation model with class scores (B, K, height, width), and the model's output is {shape}.",
        )
    return scores.movedim(axis, 1)


def class_axis(output: object, size: Sequence[int]) -> int:
    """Return the axis of the classes of a dense output: the last, if only the others have the aspect ratio of the input."""
    scores = find_scores(output)
    return -1 if scores is not None and has_channels_last(scores.shape, size) else 1


def has_channels_last(shape: Sequence[int], size: Sequence[int]) -> bool:
    """Return True if a shape is (B, *grid, K) and not (B, K, *grid) for an input of a size.

    >>> has_channels_last((1, 16, 24, 5), (64, 96)), has_channels_last((1, 5, 16, 24), (64, 96))
    (True, False)
    """
    if not size or len(shape) != len(size) + 2:
        return False
    return fits(shape[1:-1], size) and not fits(shape[2:], size)


def fits(grid: Sequence[int], size: Sequence[int]) -> bool:
    """Return True if a grid has the aspect ratio of an input, up to one cell; on one axis, if it is as long."""
    if len(size) == 1:
        return grid[0] == size[0]
    low = max(length / (cells + 1) for cells, length in zip(grid, size, strict=True))
    high = min(length / max(cells - 1, 0.5) for cells, length in zip(grid, size, strict=True))
    return low <= high


def winning_classes(scores: Tensor) -> Tensor:
    """Return the class with the highest score in each cell (B, *grid).

    A single class wins where its logit is positive, or its probability larger than 0.5; elsewhere it is -1.
    """
    if scores.shape[1] == 1:
        limit = 0.5 if are_bounded(scores) and ends_in_bounded_function(scores) else 0.0
        return (scores[:, 0].detach() > limit).long() - 1
    return scores.detach().argmax(1)


def winning_areas(scores: Tensor) -> list[tuple[int, float]]:
    """Return (class, fraction of cells) of one image (K, *grid), largest first."""
    winners = winning_classes(scores[None]).flatten()
    winners = winners[winners >= 0]
    fractions = torch.bincount(winners, minlength=len(scores)) / max(1, scores[0].numel())
    order = fractions.argsort(descending=True, stable=True).tolist()
    return [(index, float(fractions[index])) for index in order if fractions[index] > 0]


def top_classes(output: object, rank: int, labels: Labels, axis: int = 1) -> Tensor:
    """Return the class (B,) that wins in the `rank`th most cells of each image, background excluded."""
    scores = dense_logits(output, f"top{rank}", axis)
    ranked = [
        [index for index, _ in winning_areas(one) if class_name(index, labels).casefold() not in BACKGROUND]
        for one in scores
    ]
    if any(len(classes) < rank for classes in ranked):
        advice = " If it is a value such as depth, use targets='value:mean'." if scores.shape[1] == 1 else ""
        raise TargetError(f"top{rank}", f"only {min(map(len, ranked))} classes win in any cell of the output.{advice}")
    return torch.tensor([classes[rank - 1] for classes in ranked], device=scores.device)
