"""The windows of the check, and by how much covering them lowers a score, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS = 3  # windows per axis
SMALL = 1e-12


@dataclass(frozen=True)
class Mode:
    """Nine windows of one size: the image outside them is covered (keep), or they are covered themselves (hide).

    `side` is the side of a window as a fraction of that of the image.
    """

    keeps: bool
    side: float

    @property
    def starts(self) -> tuple[float, ...]:
        """The start of each interval on an axis of length 1: they are evenly spaced from end to end."""
        return tuple(step * (1 - self.side) / (STEPS - 1) for step in range(STEPS))


MODES = (Mode(True, 1 / 2), Mode(True, 3 / 8), Mode(False, 3 / 8))
MASKS = len(MODES) * STEPS**2


@dataclass(frozen=True)
class WindowDrops:
    """By how much each mask of the check lowers the score of one image for one target.

    Attributes:
        values: The drops, mode by mode (`MODES`), the windows of each row by row; for a class, of its log-odds. Negative: the
            score rises. Empty if the image could not be covered, or if a score was not a finite number.
        everything: The drop if the entire image is covered; NaN without `values`.
        reason: Why the drops cannot be compared with a map; "" if they can.
    """

    values: tuple[float, ...] = ()
    everything: float = math.nan
    reason: str = ""


def normalized(values: Array) -> Array:
    """Return values `(..., 27)` as `(..., modes, 9)`, each mode with mean 0 and length 1; zeros where it is constant."""
    values = values.reshape(*values.shape[:-1], len(MODES), -1)
    values = values - values.mean(-1, keepdims=True)
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.where(length > SMALL, values / np.maximum(length, SMALL), 0)
