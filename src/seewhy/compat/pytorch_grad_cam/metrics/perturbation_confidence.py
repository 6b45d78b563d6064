"""How the score changes when the image is changed by its map, as in `pytorch_grad_cam.metrics.perturbation_confidence`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seewhy.compat.model_output import output_of
from seewhy.compat.pytorch_grad_cam.utils.model_targets import Targets, as_functions
from seewhy.compat.row_targets import rows_of
from seewhy.errors import UsageError

Floats = NDArray[np.float32]
Perturbation = Callable[[Tensor, Tensor], Tensor]


class PerturbationConfidenceMetric:
    """The score of each changed image, minus that of the image itself.

    Args:
        perturbation: Takes an image `(C, height, width)` and its map `(height, width)`, and returns the changed image.
    """

    def __init__(self, perturbation: Perturbation) -> None:
        self.perturbation = perturbation

    def __call__(
        self,
        input_tensor: Tensor,
        cams: NDArray[Any],
        targets: Targets,
        model: nn.Module,
        return_visualization: bool = False,
        return_diff: bool = True,
    ) -> Any:
        """Return one number per image.

        Args:
            input_tensor: `(B, C, height, width)`, ready for the model.
            cams: The maps `(B, height, width)` in [0, 1].
            targets: One target per image, as for the methods.
            model: The model. It runs in eval mode and is not modified.
            return_visualization: Also return the changed images `(B, C, height, width)`.
            return_diff: False: the score of the changed image itself.

        Raises:
            UsageError: The shapes of the maps and images differ, or there is not one target per image.
        """
        maps = torch.as_tensor(np.asarray(cams))
        if maps.shape != (len(input_tensor), *input_tensor.shape[2:]):
            raise UsageError(
                f"cams has shape {tuple(maps.shape)} for images {tuple(input_tensor.shape)}; pass one map per image."
            )
        changed = [self.perturbation(image.cpu(), one) for image, one in zip(input_tensor, maps, strict=True)]
        changed_images = torch.stack(changed).to(input_tensor)
        result = self.scores(model, changed_images, targets)
        if return_diff:
            result = result - self.scores(model, input_tensor, targets)
        return (result, changed_images) if return_visualization else result

    def scores(self, model: nn.Module, images: Tensor, targets: Targets) -> Floats:
        """Return the score of each image `(B,)`."""
        functions = as_functions(targets, len(images))
        if functions is None:
            raise UsageError("targets=None: metrics need one target per image, such as ClassifierOutputTarget(281).")
        rows = rows_of(output_of(model, images))
        return np.asarray([float(function(row)) for function, row in zip(functions, rows, strict=True)], np.float32)


class RemoveMostRelevantFirst:
    """Replace the pixels whose map is at or above a percentile of the map.

    Args:
        percentile: From 0 to 100. "auto" (Otsu's threshold) is not available.
        imputer: Takes an image and a mask `(height, width)` that is 1 where pixels stay, and returns the changed image.
    """

    def __init__(self, percentile: float | Literal["auto"], imputer: Perturbation) -> None:
        if isinstance(percentile, str):
            raise UsageError(f"percentile={percentile!r} is not available; pass a number from 0 to 100.")
        self.percentile, self.imputer = percentile, imputer

    def __call__(self, input_tensor: Tensor, mask: Tensor) -> Tensor:
        threshold = np.percentile(mask.cpu().numpy(), self.percentile)
        return self.imputer(input_tensor, (mask < threshold).float())


class RemoveLeastRelevantFirst(RemoveMostRelevantFirst):
    """Replace the pixels whose inverted map (1 - map) is at or above a percentile. Args: see `RemoveMostRelevantFirst`."""

    def __call__(self, input_tensor: Tensor, mask: Tensor) -> Tensor:
        return super().__call__(input_tensor, 1 - mask)


class AveragerAcrossThresholds:
    """The mean of a metric over percentiles.

    Args:
        imputer: Takes a percentile and returns a metric.
        percentiles: The percentiles.
    """

    def __init__(
        self,
        imputer: Callable[[float], PerturbationConfidenceMetric],
        percentiles: Sequence[float] = (10, 20, 30, 40, 50, 60, 70, 80, 90),
    ) -> None:
        self.imputer, self.percentiles = imputer, percentiles

    def __call__(self, input_tensor: Tensor, cams: NDArray[Any], targets: Targets, model: nn.Module) -> Floats:
        """Return one number per image. Args: see `PerturbationConfidenceMetric`."""
        scores = [self.imputer(percentile)(input_tensor, cams, targets, model) for percentile in self.percentiles]
        mean: Floats = np.mean(np.stack(scores), axis=0)
        return mean
