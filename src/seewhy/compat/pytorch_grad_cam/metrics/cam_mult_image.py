"""The score of the image multiplied by its map, as in `pytorch_grad_cam.metrics.cam_mult_image`."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from seewhy.compat.pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric


def multiply_tensor_with_cam(input_tensor: Tensor, cam: Tensor) -> Tensor:
    """Return the normalized image multiplied by its map."""
    return input_tensor * cam


class CamMultImageConfidenceChange(PerturbationConfidenceMetric):
    """The change of the score when the image is multiplied by its map."""

    def __init__(self) -> None:
        super().__init__(multiply_tensor_with_cam)


class DropInConfidence(CamMultImageConfidenceChange):
    """How much the score drops, at least 0."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return np.maximum(-super().__call__(*args, **kwargs), 0)


class IncreaseInConfidence(CamMultImageConfidenceChange):
    """1 where the score rises, else 0."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return np.float32(super().__call__(*args, **kwargs) > 0)
