"""`RemovalCurves`: the score of an image while more and more of it is covered, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RemovalCurve:
    """The score of an image while more and more of its units are covered.

    Attributes:
        fractions: Fractions of the units that are covered, from 0 to 1, `(P,)`.
        scores: The score at each fraction, `(P,)`.
        mass: The fraction of the map's positive values that is not covered at each fraction, `(P,)`; NaN without any.
    """

    fractions: Array
    scores: Array
    mass: Array

    @property
    def area(self) -> float:
        """The area under the curve, by the trapezoidal rule."""
        return area(self.scores, self.fractions)

    def at(self, fractions: Array) -> Array:
        """Return the scores at other fractions, by linear interpolation."""
        return np.interp(fractions, self.fractions, self.scores)


@dataclass(frozen=True, eq=False)
class RemovalCurves:
    """The curves of one map for one filler.

    Attributes:
        most_first: Units with the largest values are covered first (MIF).
        least_first: Units with the smallest values are covered first (LIF): the reverse order.
    """

    most_first: RemovalCurve
    least_first: RemovalCurve


def area(values: Array, positions: Array) -> float:
    """Return the integral of a piecewise linear curve."""
    return float(((values[1:] + values[:-1]) * np.diff(positions)).sum() / 2)
