"""`Metric`: one formula on the evidence of one map, with a card. `METRICS` lists all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from seewhy.errors import UnknownName, UsageError
from seewhy.trust.metrics.evidence import MapEvidence
from seewhy.trust.metrics.not_defined import NotDefined

Better = Literal["higher", "lower", "neither"]
Formula = Callable[[MapEvidence, str], float]  # evidence, filler -> value


@dataclass(frozen=True)
class MetricCard:
    """Facts about a metric, for the terminal and the documentation."""

    formula: str
    paper: str  # or "no paper: " and what it is
    better: Better
    chance: str  # its value without any relation between map and model, or "none"
    cost: str
    trap: str
    undefined: str  # when there is no value


@dataclass(frozen=True)
class Metric:
    """One formula on the evidence of one map.

    Attributes:
        name: As users type it.
        compute: The formula.
        card: Paper, direction, cost and trap.
        passes: Forward passes for each map (and filler), for the progress bar.
        shared_passes: Forward passes for each image, target (and filler), which all maps share. Metrics with the same
            `shares` use the same ones.
        shares: What these passes are.
        uses_filler: True if parts of the image are covered, so that there is one value for each filler.
    """

    name: str
    compute: Formula
    card: MetricCard
    passes: int = 0
    shared_passes: int = 0
    shares: str = ""
    uses_filler: bool = False

    def value(self, evidence: MapEvidence, filler: str = "") -> tuple[float, str]:
        """Return the value and ""; or NaN and the reason why there is none."""
        try:
            value = self.compute(evidence, filler)
        except (NotDefined, UsageError) as error:  # such as a method that the model does not support
            return math.nan, str(error)
        return (value, "") if math.isfinite(value) else (math.nan, self.card.undefined)

    def to_dict(self) -> dict[str, object]:
        """Return name, card and whether it uses a filler, for JSON."""
        return {"name": self.name, **dataclasses.asdict(self.card), "uses_filler": self.uses_filler}


def choose_metrics(metrics: Iterable[Metric], names: str | Iterable[str]) -> list[Metric]:
    """Return metrics by name; "all" selects all of them.

    Raises:
        UnknownName: No metric has one of the names.
        UsageError: There are no names.
    """
    table = {metric.name: metric for metric in metrics}
    chosen = [names] if isinstance(names, str) else list(names)
    if chosen == ["all"]:
        return list(table.values())
    for name in chosen:
        if name not in table:
            raise UnknownName("metric", str(name), table, hint="List all metrics: seewhy metrics")
    if not chosen:
        raise UsageError("no metrics: give at least one, such as 'srg'.")
    return [table[name] for name in dict.fromkeys(chosen)]
