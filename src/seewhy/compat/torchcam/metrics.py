"""Metrics of extractors, as in `torchcam.metrics`. `seewhy.trust` has more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy.compat.model_output import output_of
from seewhy.compat.row_targets import rows_of
from seewhy.compat.torchcam.methods.core import _CAM, Classes, OutputTarget, resize_map
from seewhy.compat.unknown_names import name_lookup
from seewhy.errors import UsageError

Targets = OutputTarget | Sequence[OutputTarget] | None
Functions = Sequence[OutputTarget]


class ExtractorMetric(ABC):
    """A metric that runs the model of an extractor on changed inputs, in eval mode.

    Args:
        cam_extractor: An extractor of `seewhy.compat.torchcam.methods`.
        logits_fn: Applied to the output before scores are read, such as a softmax.
    """

    def __init__(self, cam_extractor: _CAM, logits_fn: Callable[[Any], Any] | None = None) -> None:
        self.cam_extractor, self.logits_fn = cam_extractor, logits_fn
        self.reset()

    def reset(self) -> None:
        """Discard all images so far."""
        self.totals: dict[str, float] = {}
        self.total = self.nan_count = 0

    def summary(self) -> dict[str, float]:
        """Return the mean of each number over all images. Raises UsageError if there are none."""
        if not self.total:
            raise UsageError("the metric has no images yet; call update first.")
        return {name: value / self.total for name, value in self.totals.items()}

    def update(self, input_tensor: Tensor, class_idx: Classes = None, *, targets: Targets = None) -> None:
        """Add images.

        Args:
            input_tensor: `(B, C, *size)`, ready for the model.
            class_idx: The class, from 0, or one for each image. Default: the predicted ones.
            targets: Instead of `class_idx`: a function of the output of one image, or one for each image.

        Raises:
            UsageError: An argument is invalid.
        """
        if class_idx is not None and targets is not None:
            raise UsageError("provide either class_idx or targets, and not both.")
        output = self.run(input_tensor)
        functions = row_functions(output, class_idx, targets)
        self.cam_extractor._call.set(input_tensor, output)
        maps = self.cam_extractor.fuse_cams(self.cam_extractor(targets=[self.after_logits(one) for one in functions]))
        valid = ~maps.flatten(1).isnan().any(1)
        self.nan_count += int((~valid).sum())
        if not valid.any():
            return
        kept = [function for function, is_valid in zip(functions, valid.tolist(), strict=True) if is_valid]
        heatmaps = resize_map(maps[valid], tuple(input_tensor.shape[2:]))
        for name, values in self.measure(input_tensor[valid], heatmaps, kept).items():
            self.totals[name] = self.totals.get(name, 0.0) + float(values.sum())
        self.total += len(kept)

    @abstractmethod
    def measure(self, images: Tensor, heatmaps: Tensor, functions: Functions) -> dict[str, Tensor]:
        """Return the numbers of each image `(B,)`."""

    def run(self, images: Tensor) -> Any:
        output = output_of(self.cam_extractor.model, images)
        return output if self.logits_fn is None else self.logits_fn(output)

    def after_logits(self, function: OutputTarget) -> OutputTarget:
        """Return a target for the output before `logits_fn`."""
        if self.logits_fn is None:
            return function
        logits_fn = self.logits_fn
        return lambda row: function(rows_of(logits_fn(row[None]))[0])

    def scores(self, images: Tensor, targets: OutputTarget | Functions) -> Tensor:
        """Return the score of each image `(B,)`: of one function for all, or one for each image."""
        rows = rows_of(self.run(images))
        functions = [targets] * len(rows) if callable(targets) else targets
        return torch.stack([function(row).reshape(()) for function, row in zip(functions, rows, strict=True)])


class ClassificationMetric(ExtractorMetric):
    """Average drop and increase in confidence of the image multiplied by its map. Args: see `ExtractorMetric`.

    References:
        Chattopadhay et al., "Grad-CAM++", WACV 2018, section 4.1, https://arxiv.org/abs/1710.11063
    """

    def measure(self, images: Tensor, heatmaps: Tensor, functions: Functions) -> dict[str, Tensor]:
        before, after = self.scores(images, functions), self.scores(images * heatmaps[:, None], functions)
        return {"avg_drop": (before - after).relu() / (before + 1e-7), "conf_increase": (before < after).float()}


class DeletionInsertionMetric(ExtractorMetric):
    """Areas under the score while pixels are replaced, or restored, in the order of the map.

    Args:
        cam_extractor: See `ExtractorMetric`.
        logits_fn: See `ExtractorMetric`.
        steps: Number of steps, at least 1.
        baseline: What pixels are replaced by: a tensor, or a function of the images. Default: zeros.
        batch_size: Number of images per forward pass, at least 1.

    References:
        Petsiuk et al., "RISE", BMVC 2018, https://arxiv.org/abs/1806.07421
    """

    def __init__(
        self,
        cam_extractor: _CAM,
        logits_fn: Callable[[Any], Any] | None = None,
        *,
        steps: int = 20,
        baseline: Tensor | Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
    ) -> None:
        if steps < 1 or batch_size < 1:
            raise UsageError(f"steps={steps}, batch_size={batch_size}: must be at least 1.")
        super().__init__(cam_extractor, logits_fn)
        self.steps, self.baseline, self.batch_size = steps, baseline, batch_size

    def measure(self, images: Tensor, heatmaps: Tensor, functions: Functions) -> dict[str, Tensor]:
        pixels = heatmaps[0].numel()
        step = -(-pixels // self.steps)
        counts = [*range(0, pixels, step), pixels]
        fractions = torch.tensor(counts) / pixels
        areas: dict[str, list[Tensor]] = {"deletion_auc": [], "insertion_auc": []}
        for image, heatmap, function in zip(images, heatmaps, functions, strict=True):
            ranks = heatmap.flatten().argsort(descending=True, stable=True).argsort().reshape(heatmap.shape)
            replaced = torch.stack([ranks < count for count in counts])[:, None]
            filler = self.fill(image[None])
            for name, changed in (("deletion_auc", replaced), ("insertion_auc", ~replaced)):
                images_of_curve = torch.where(changed, filler, image)
                scores = [
                    self.scores(images_of_curve[start : start + self.batch_size], function)
                    for start in range(0, len(counts), self.batch_size)
                ]
                areas[name].append(torch.trapezoid(torch.cat(scores).cpu().float(), fractions))
        return {name: torch.stack(values) for name, values in areas.items()}

    def fill(self, images: Tensor) -> Tensor:
        """Return what replaces the pixels of images."""
        if self.baseline is None:
            return torch.zeros_like(images)
        filler = self.baseline if isinstance(self.baseline, Tensor) else self.baseline(images)
        try:
            return filler.to(images).expand_as(images)
        except RuntimeError:
            shapes = f"{tuple(filler.shape)} for images {tuple(images.shape)}"
            raise UsageError(
                f"baseline has shape {shapes}; pass a color (3, 1, 1) or an image of that shape."
            ) from None


def row_functions(output: object, classes: Classes, targets: Targets) -> Functions:
    """Return the target of each row of an output."""
    rows = rows_of(output)
    if targets is not None:
        functions = [targets] * len(rows) if callable(targets) else list(targets)
    elif isinstance(classes, int):
        functions = [class_function(classes)] * len(rows)
    else:
        listed = [int(row.argmax()) for row in rows] if classes is None else list(classes)
        functions = [class_function(one) for one in listed]
    if len(functions) != len(rows):
        raise UsageError(f"{len(functions)} targets for {len(rows)} images; give one for each image.")
    return functions


def class_function(index: int) -> OutputTarget:
    return lambda row: row[index]


__getattr__ = name_lookup(__name__, "torchcam.metrics", ("ClassificationMetric", "DeletionInsertionMetric"))
