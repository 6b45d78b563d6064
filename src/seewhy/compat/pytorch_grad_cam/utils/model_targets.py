"""The targets of pytorch-grad-cam: each is called with the output for one image and returns a number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seewhy.compat.differences import log_once
from seewhy.compat.row_targets import RowScore
from seewhy.compat.unknown_names import name_lookup
from seewhy.errors import UsageError
from seewhy.targets import ClassScore
from seewhy.targets.parsing import TargetSpec

Targets = Iterable[Callable[[Any], Tensor]] | None  # what users pass


class ClassifierOutputTarget:
    """The score of a class.

    Args:
        category: The class, from 0.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output[..., self.category]


class ClassifierOutputSoftmaxTarget(ClassifierOutputTarget):
    """The softmax probability of a class. Args: see `ClassifierOutputTarget`."""

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output.softmax(-1)[..., self.category]


class ClassifierOutputReST(ClassifierOutputTarget):
    """The score of a class plus its log probability. Args: see `ClassifierOutputTarget`.

    References:
        Cai, "ShapleyCAM", 2025, https://arxiv.org/abs/2501.06261
    """

    def __call__(self, model_output: Tensor) -> Tensor:
        return (model_output + model_output.log_softmax(-1))[..., self.category]


class BinaryClassifierOutputTarget:
    """The output of a model with one logit, or its negative.

    Args:
        category: 1 for the output, anything else for its negative.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output if self.category == 1 else -model_output


class SoftmaxOutputTarget:
    """The softmax of all outputs; a target only if there is one output."""

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output.softmax(-1)


class RawScoresOutputTarget:
    """The output itself; a target only if it is one number."""

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output


class SemanticSegmentationTarget:
    """The sum of a class's scores over a mask.

    Args:
        category: The class, from 0.
        mask: Array or tensor `(height, width)`, the weight of each pixel.
    """

    def __init__(self, category: int, mask: NDArray[Any] | Tensor) -> None:
        self.category = category
        self.mask = torch.as_tensor(mask)

    def __call__(self, model_output: Tensor) -> Tensor:
        return (model_output[self.category] * self.mask.to(model_output.device)).sum()


class FasterRCNNBoxScoreTarget:
    """For each given box: overlap plus score of the detection that overlaps it most, if that has the same label; summed.

    Args:
        labels: The label of each box.
        bounding_boxes: Boxes (left, top, right, bottom) in pixels of the input.
        iou_threshold: A detection counts if its overlap is above this.
    """

    def __init__(
        self, labels: Sequence[int] | Tensor, bounding_boxes: Sequence[Any] | Tensor, iou_threshold: float = 0.5
    ) -> None:
        self.labels, self.bounding_boxes, self.iou_threshold = labels, bounding_boxes, iou_threshold

    def __call__(self, model_outputs: dict[str, Tensor]) -> Tensor:
        from torchvision.ops import box_iou  # type: ignore[import-untyped]

        boxes, scores, labels = model_outputs["boxes"], model_outputs["scores"], model_outputs["labels"]
        total = boxes.new_zeros(1)
        for box, label in zip(self.bounding_boxes, self.labels, strict=True):
            if not len(boxes):
                continue
            overlaps = box_iou(torch.as_tensor(np.asarray(box), device=boxes.device, dtype=boxes.dtype)[None], boxes)[0]
            best = overlaps.argmax()
            if overlaps[best] > self.iou_threshold and labels[best] == label:
                total = total + overlaps[best] + scores[best]
        return total


class FinerWeightedTarget:
    """How far a class is above others: the mean of its score minus `alpha` times theirs, weighted by their probabilities.

    Args:
        main_category: The class, from 0.
        comparison_categories: The other classes.
        alpha: Strength of the comparison.

    References:
        Zhang et al., "Finer-CAM", CVPR 2025, https://arxiv.org/abs/2501.11309
    """

    def __init__(self, main_category: int, comparison_categories: Sequence[int], alpha: float) -> None:
        self.main_category, self.comparison_categories, self.alpha = main_category, comparison_categories, alpha

    def __call__(self, model_output: Tensor) -> Tensor:
        others = list(self.comparison_categories)
        weights = F.softmax(model_output, -1)[..., others]
        differences = model_output[..., self.main_category, None] - self.alpha * model_output[..., others]
        return (weights * differences).sum(-1) / (weights.sum(-1) + 1e-9)


def as_functions(targets: object, images: int) -> Sequence[Callable[[Any], Tensor]] | None:
    """Return one target per image; None for the predicted classes.

    Args:
        targets: As users pass them. A single target for several images is used for each of them.
        images: Number of images.

    Raises:
        UsageError: Their number is not that of the images, or one cannot be called.
    """
    if targets is None:
        return None
    if not isinstance(targets, Iterable):
        raise UsageError(f"targets is one {type(targets).__name__}; pass a list with one target per image.")
    listed = list(targets)
    for number, target in enumerate(listed):
        if not callable(target):
            advice = (
                f"use ClassifierOutputTarget({target})" if isinstance(target, (int, np.integer)) else "pass a function"
            )
            raise UsageError(f"targets[{number}] is {target!r}, of type {type(target).__name__}; {advice}.")
    if len(listed) == 1 and images > 1:
        log_once(
            "There is one target for several images. pytorch-grad-cam returns empty maps for all but the first image; "
            "here the target is used for every image."
        )
        return listed * images
    if len(listed) != images:
        raise UsageError(f"targets has {len(listed)} entries for {images} images; give one target per image.")
    return listed


def as_target(targets: Targets, images: int) -> TargetSpec:
    """Return targets as one target of seewhy for a batch; None for the predicted classes. See `as_functions`."""
    functions = as_functions(targets, images)
    if functions is None:
        return None
    classes = [int(target.category) for target in functions if type(target) is ClassifierOutputTarget]
    if len(classes) == len(functions):
        return ClassScore(torch.tensor(classes))
    return RowScore(tuple(functions))


__getattr__ = name_lookup(
    __name__,
    "pytorch_grad_cam.utils.model_targets",
    [name for name in dir() if name.endswith("Target") or name.endswith("ReST")],
)
