"""The verdicts of the check over a run: how many maps of each method and layer are confirmed, and of each class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seewhy.bulk.bulk_run import BulkRun
from seewhy.explanation.checks import LEVEL, VERDICTS

if TYPE_CHECKING:
    import pyarrow as pa

    from seewhy.summary.map_table import MapTable

NOT_CHECKED = "not checked"
QUANTILE = 1.96  # of the normal distribution, for 95 %
MIN_CHECKED = 10  # maps of a class; the share of fewer is mostly chance
MAX_REASONS = 3  # in a text
MapName = tuple[str, str, str]  # method, target, layer


@dataclass(frozen=True)
class ConfirmedShare:
    """`confirmed` of `checked` maps. Maps without a verdict do not count."""

    confirmed: int
    checked: int

    @property
    def value(self) -> float:
        """The share in [0, 1]; NaN if no map was checked."""
        return self.confirmed / self.checked if self.checked else math.nan

    @property
    def standard_error(self) -> float:
        """The standard error of the share, with the images as a random sample; NaN if all or none are confirmed."""
        is_defined = 0 < self.confirmed < self.checked  # otherwise the formula gives 0
        return math.sqrt(self.value * (1 - self.value) / self.checked) if is_defined else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of Wilson, which also holds for few maps and for shares of 0 and 1; NaN if no map was checked.

        >>> [round(limit, 3) for limit in ConfirmedShare(0, 10).interval]
        [0.0, 0.278]
        """
        if not self.checked:
            return math.nan, math.nan
        n, square = self.checked, QUANTILE**2
        center = (self.value + square / (2 * n)) / (1 + square / n)
        half = QUANTILE / (1 + square / n) * math.sqrt(self.value * (1 - self.value) / n + square / (4 * n**2))
        return max(0.0, center - half), min(1.0, center + half)

    def __str__(self) -> str:
        """Return the share with its standard error and the number of maps as text.

        >>> str(ConfirmedShare(46, 83)), str(ConfirmedShare(7, 7)), str(ConfirmedShare(0, 0))
        ('55% ± 5% of 83', '7 of 7', '0 of 0')
        """
        if math.isnan(self.standard_error):
            return f"{self.confirmed:,} of {self.checked:,}"
        return f"{self.value:.0%} ± {self.standard_error:.0%} of {self.checked:,}"

    def uncertainty(self) -> str:
        """Return the standard error as text, or the interval where that is not defined.

        >>> ConfirmedShare(46, 83).uncertainty(), ConfirmedShare(7, 7).uncertainty()
        ('standard error 5%', '95% interval 65% to 100%')
        """
        low, high = self.interval
        is_defined = not math.isnan(self.standard_error)
        return f"standard error {self.standard_error:.0%}" if is_defined else f"95% interval {low:.0%} to {high:.0%}"


@dataclass(frozen=True, eq=False)
class VerdictRow:
    """The maps of one method, target and layer: how many have each verdict, and why maps were not checked."""

    method: str
    target: str
    layer: str
    counts: Mapping[str, int]  # by verdict, in the order of `VERDICTS`
    reasons: Mapping[str, int]  # most frequent first

    @property
    def maps(self) -> int:
        return sum(self.counts.values())

    @property
    def share(self) -> ConfirmedShare:
        return confirmed_share(self.counts)

    def not_checked(self) -> str:
        """Return how many maps were not checked, and why, as text; "" if all were."""
        if not self.reasons:
            return ""
        total, frequent = sum(self.reasons.values()), list(self.reasons.items())[:MAX_REASONS]
        others = total - sum(count for _, count in frequent)
        listed = [*frequent, *([("other reasons", others)] if others else [])]
        texts = [f"{reason} ({count:,})" if len(listed) > 1 else reason for reason, count in listed]
        return f"{total:,} of {self.maps:,} maps of {self.method} at {self.layer} were not checked: {'; '.join(texts)}"


@dataclass(frozen=True)
class ClassShare:
    """The maps of one class: how many are confirmed."""

    index: int
    name: str
    share: ConfirmedShare

    @property
    def has_few(self) -> bool:
        """Return True if the share is mostly chance, so that only counts are shown."""
        return self.share.checked < MIN_CHECKED


@dataclass(frozen=True, eq=False)
class Verdicts:
    """The verdicts of a run.

    Attributes:
        rows: One per method, target and layer.
        selected: That of the maps in the summary.
        classes: The classes of these maps, the largest first.
    """

    rows: list[VerdictRow]
    selected: VerdictRow
    classes: list[ClassShare]

    @property
    def has_targets(self) -> bool:
        """Return True if the run has several targets."""
        return len({row.target for row in self.rows}) > 1

    def sentence(self) -> str:
        """Return the share of the selected maps next to that of chance, in words."""
        share, selected = self.selected.share, self.selected
        place = f"{selected.method} at {selected.layer}{f' for {selected.target}' if self.has_targets else ''}"
        if not share.checked:
            return f"No map of {place} has a verdict."
        noun = "checked map" if share.checked == 1 else "checked maps"
        text = (
            f"{share.confirmed:,} of {share.checked:,} {noun} of {place} confirmed: {share.value:.0%} ({share.uncertainty()}). "
            f"Chance alone would confirm {LEVEL:.0%}."
        )
        low, high = share.interval
        return f"{text} The difference between the two can be chance." if low <= LEVEL <= high else text


def confirmed_share(counts: Mapping[str, int]) -> ConfirmedShare:
    return ConfirmedShare(counts.get("confirmed", 0), sum(counts.values()) - counts.get(NOT_CHECKED, 0))


def load_verdicts(run: BulkRun, table: MapTable) -> Verdicts | None:
    """Return the verdicts of a run; None if its maps were not checked. `table` holds the maps of the summary."""
    if not run.has_checks:
        return None
    rows = count_verdicts(run)
    name = (table.method, table.target, table.layer)
    (selected,) = (row for row in rows if (row.method, row.target, row.layer) == name)
    return Verdicts(rows, selected, share_of_classes(table))


def count_verdicts(run: BulkRun) -> list[VerdictRow]:
    """Count the verdicts of each method, target and layer, in the order of the run. Rows are counted by Arrow."""
    verdicts: dict[MapName, Counter[str]] = {}
    reasons: dict[MapName, Counter[str]] = {}
    columns = ["method", "target", "layers", "check", "check_reason", "error"]
    for batch in run.batches(columns):
        groups = one_row_per_layer(batch).group_by(["method", "target", "layer", "check", "reason"], use_threads=False)
        for group in groups.aggregate([([], "count_all")]).to_pylist():
            key = group["method"], group["target"], group["layer"]
            verdicts.setdefault(key, Counter())[group["check"]] += group["count_all"]
            if group["check"] == NOT_CHECKED:
                reason = group["reason"] or "unknown reason"
                reasons.setdefault(key, Counter())[reason] += group["count_all"]
    places: list[dict[str, int]] = [
        {name: place for place, name in enumerate(dict.fromkeys(names))} for names in zip(*verdicts, strict=True)
    ]
    order = sorted(verdicts, key=lambda key: [place[name] for place, name in zip(places, key, strict=True)])
    return [
        VerdictRow(
            *key,
            {verdict: verdicts[key][verdict] for verdict in VERDICTS},
            dict(reasons.get(key, Counter()).most_common()),
        )
        for key in order
    ]


def one_row_per_layer(batch: pa.RecordBatch) -> pa.Table:
    """Return the verdicts of a batch with one row per map. Failed images have none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = pc.list_parent_indices(batch["check"])
    texts = {name: batch[name].take(rows) for name in ("method", "target")}
    lists = {"layer": "layers", "check": "check", "reason": "check_reason"}
    return pa.table({**texts, **{name: pc.list_flatten(batch[column]) for name, column in lists.items()}})


def share_of_classes(table: MapTable) -> list[ClassShare]:
    """Return the confirmed maps of each class of the selected maps, the class with the most checked maps first."""
    counts: dict[int, Counter[str]] = {}
    for index, verdict in zip(table.classes.tolist(), table.columns["check"], strict=True):
        counts.setdefault(index, Counter())[verdict] += 1
    shares = [
        ClassShare(index, table.class_name(index) if index >= 0 else table.target, confirmed_share(one))
        for index, one in counts.items()
    ]
    return sorted(shares, key=lambda one: (-one.share.checked, one.index))


def share_of_rows(table: MapTable, rows: Iterable[int]) -> ConfirmedShare | None:
    """Return the confirmed maps of some images of a table; None if its maps were not checked."""
    if "check" not in table.columns:
        return None
    return confirmed_share(Counter(table.columns["check"][row] for row in rows))
