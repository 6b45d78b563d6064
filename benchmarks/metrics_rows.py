"""The rows of metrics_check.py: two values, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics_peers import Array, largest

Values = Sequence[float] | Array | float


@dataclass(frozen=True, eq=False)
class Row:
    """One comparison. `what` is empty where the definition is the same.

    Attributes:
        again: The peer's value, computed from parts of seewhy with the peer's rule.
    """

    metric: str
    peer: str
    maps: str
    ours: Values
    theirs: Values
    what: str = ""
    again: Values | None = None

    @property
    def difference(self) -> float:
        return relative(self.ours, self.theirs)

    def cells(self) -> list[str]:
        shown = [show(self.ours), show(self.theirs)]
        if not self.what:
            return [self.metric, self.peer, self.maps, *shown, f"{self.difference:.0e}"]
        again = "" if self.again is None else f"yes, to {relative(self.again, self.theirs):.0e}"
        difference = f"{self.difference:.0e}" if np.isfinite(self.difference) else "–"
        return [self.metric, self.peer, self.maps, *shown, difference, self.what, again]


def relative(first: Values, second: Values) -> float:
    """Return the largest difference, relative to the peer's values where they exceed 1."""
    a, b = (np.atleast_1d(np.asarray(one, dtype=float)) for one in (first, second))
    scale = np.maximum(1, np.nan_to_num(np.abs(b), nan=1))
    return largest(a / scale, b / scale)


def show(values: Values) -> str:
    """Return the mean over photos; "undefined" for NaN."""
    found = float(np.mean(np.asarray(values, dtype=float)))
    if np.isnan(found):
        return "undefined"
    return f"{found:.4f}" if 0.001 <= abs(found) < 1000 or found == 0 else f"{found:.2e}"


def each(function: Callable[..., float], *columns: Any) -> list[float]:
    return [float(function(*one)) for one in zip(*columns, strict=True)]
