"""ROAD (remove and debias), as in `pytorch_grad_cam.metrics.road`.

References:
    Rong et al., "A consistent and efficient evaluation strategy for attribution methods", ICML 2022,
    https://arxiv.org/abs/2202.00449
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam.metrics.perturbation_confidence import (
    AveragerAcrossThresholds,
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from seewhy.compat.pytorch_grad_cam.utils.model_targets import Targets
from seewhy.trust.fillers import LinearImputation

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


class NoisyLinearImputer:
    """Replace each pixel where the mask is 0 by the weighted mean of its neighbors, plus noise.

    Args:
        noise: Standard deviation of the noise, in units of the model's input.
    """

    def __init__(self, noise: float = 0.01) -> None:
        self.filler = LinearImputation(noise=noise)

    def __call__(self, img: Tensor, mask: Tensor) -> Tensor:
        return self.filler.bind(img)(1 - mask[None])[0]


class ROADMostRelevantFirst(PerturbationConfidenceMetric):
    """The change of the score without the most relevant pixels: those at or above `percentile` of the map."""

    def __init__(self, percentile: float = 80) -> None:
        super().__init__(RemoveMostRelevantFirst(percentile, NoisyLinearImputer()))


class ROADLeastRelevantFirst(PerturbationConfidenceMetric):
    """The change of the score without the least relevant pixels: those at or above `percentile` of the inverted map."""

    def __init__(self, percentile: float = 20) -> None:
        super().__init__(RemoveLeastRelevantFirst(percentile, NoisyLinearImputer()))


class ROADMostRelevantFirstAverage(AveragerAcrossThresholds):
    """The mean of `ROADMostRelevantFirst` over percentiles."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES) -> None:
        super().__init__(ROADMostRelevantFirst, percentiles)


class ROADLeastRelevantFirstAverage(AveragerAcrossThresholds):
    """The mean of `ROADLeastRelevantFirst` over percentiles."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES) -> None:
        super().__init__(ROADLeastRelevantFirst, percentiles)


class ROADCombined:
    """Half the difference of the two averages, (least - most relevant first) / 2: higher is better."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES) -> None:
        self.morf_averager = ROADMostRelevantFirstAverage(percentiles)
        self.lerf_averager = ROADLeastRelevantFirstAverage(percentiles)

    def __call__(
        self, input_tensor: Tensor, cams: NDArray[Any], targets: Targets, model: nn.Module
    ) -> NDArray[np.float32]:
        """Return one number per image. Args: see `PerturbationConfidenceMetric`."""
        least = self.lerf_averager(input_tensor, cams, targets, model)
        return (least - self.morf_averager(input_tensor, cams, targets, model)) / np.float32(2)
