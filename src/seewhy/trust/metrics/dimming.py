"""Average drop, increase, gain and drop in deletion: the probability of the class when the image is dimmed by its heatmap."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Dimming:
    """The probability of a class in three versions of an image.

    Attributes:
        image: In the image itself, in [0, 1].
        kept: In the image multiplied by the heatmap: what the map marks remains.
        removed: In the image multiplied by 1 - heatmap: what the map marks fades.
    """

    image: float
    kept: float
    removed: float

    @property
    def average_drop(self) -> float:
        """max(0, image - kept) / image; lower is better. A map of ones has 0. NaN if the image has probability 0.

        References:
            Chattopadhay et al., "Grad-CAM++", WACV 2018
        """
        return positive(self.image - self.kept) / self.image if self.image else math.nan

    @property
    def increase(self) -> float:
        """1 if `kept` is higher than `image`, else 0; the mean over images is the increase in confidence."""
        return float(self.kept > self.image) if math.isfinite(self.kept + self.image) else math.nan

    @property
    def average_gain(self) -> float:
        """max(0, kept - image) / (1 - image); higher is better. NaN if the image has probability 1.

        References:
            Zhang et al., "Opti-CAM", CVIU 2024
        """
        return positive(self.kept - self.image) / (1 - self.image) if self.image < 1 else math.nan

    @property
    def drop_in_deletion(self) -> float:
        """(image - removed) / image; higher is better, at most 1. NaN if the image has probability 0."""
        return (self.image - self.removed) / self.image if self.image else math.nan


def positive(value: float) -> float:
    """Return max(0, value); NaN stays NaN."""
    return value if math.isnan(value) else max(0.0, value)
