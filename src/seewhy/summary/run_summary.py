"""The summary of one run: aggregates, clusters, findings and outliers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from seewhy.bulk.bulk_run import BulkRun
from seewhy.explanation.checks import LEVEL
from seewhy.summary.aggregates import ClassRow, Confusion, aggregate_classes, find_confusions
from seewhy.summary.clusters import MIN_MAPS, Clusters
from seewhy.summary.findings import Finding, find_groups, find_shortcuts
from seewhy.summary.map_table import MapTable, load_map_table
from seewhy.summary.outliers import Outliers, find_outliers
from seewhy.summary.verdicts import Verdicts, load_verdicts

RELATIONS = {"top1": "predicted as", "label": "labeled"}  # how an image belongs to a class, by target
TARGET_NAMES = {"top1": "the predicted class", "label": "the class of the label"}


@dataclass(frozen=True, eq=False)
class RunSummary:
    """The summary of one run. `groups` are the clusters of each class, and of all images (None).

    `verdicts` are those of the check; None if the run has none.
    """

    run: BulkRun
    table: MapTable
    classes: list[ClassRow]
    confusions: list[Confusion]
    groups: dict[int | None, Clusters]
    findings: list[Finding]
    outliers: dict[str, Outliers]
    verdicts: Verdicts | None = None

    @property
    def has_regions(self) -> bool:
        """Return True if any image has a box or mask."""
        return not np.isnan(self.table.statistics["inside"]).all()

    def class_name(self, index: int | None) -> str:
        return "all images" if index is None else self.table.class_name(index)

    def ids(self, rows: Iterable[int]) -> list[str]:
        return [self.table.columns["id"][row] for row in rows]

    def facts(self) -> list[tuple[str, str]]:
        """Return the main numbers of the run as (name, text)."""
        table, run = self.table, self.run
        facts = [("images", f"{len(table):,}"), ("classes", f"{len(self.classes):,}")]
        if table.correct is not None:
            count = table.labeled.sum()
            facts.append(("correct", f"{table.correct[table.labeled].mean():.1%} of {count:,} labeled images"))
        if table.failed:
            facts.append(("failed", f"{len(table.failed):,}"))
        facts += [
            ("maps", f"{table.method} for {TARGET_NAMES.get(table.target, table.target)}"),
            ("layer", f"{table.layer}, {table.maps.shape[1]}x{table.maps.shape[2]}"),
            ("run", str(run.folder)),
        ]
        if self.verdicts is not None:
            facts.insert(-1, ("confirmed", f"{self.verdicts.selected.share} checked maps (by chance {LEVEL:.0%})"))
        if not run.complete:
            facts.append(("progress", f"{len(run.files)} of {run.settings['parts']} parts"))
        return facts

    def notes(self) -> list[str]:
        """Return the notes on the maps and the clusters."""
        notes = list(self.table.notes)
        if self.verdicts is not None and (text := self.verdicts.selected.not_checked()):
            notes.append(text)
        unsampled = max((len(group.unsampled) for group in self.groups.values()), default=0)
        if unsampled:
            notes.append(f"large groups: only an even sample of the maps was clustered (up to {unsampled:,} were not)")
        blank = len(self.groups[None].blank)
        if blank:
            notes.append(f"{blank:,} maps have no positive evidence and belong to no cluster")
        small = sum(1 for row in self.classes if len(row.members) < MIN_MAPS)
        if small:
            notes.append(
                f"{small:,} of {len(self.classes):,} classes have fewer than {MIN_MAPS} images; they are only clustered "
                "together with all images"
            )
        return notes


def summarize(
    run: BulkRun, method: str | None = None, target: str | None = None, layer: str | None = None
) -> RunSummary:
    """Summarize the maps of one method, target and layer. Default: the first method and target, and the last layer.

    Raises UsageError if no image was explained, UnknownName for a method, target or layer that the run does not contain.
    """
    table = load_map_table(run, method, target, layer)
    classes = aggregate_classes(table)
    names = {row.index: row.name for row in classes}
    groups = find_groups(table.maps, table.classes, table.size)
    relation = RELATIONS.get(table.target, "explained for")
    findings = find_shortcuts(table.maps, table.classes, table.size, names, groups, relation)
    outliers = find_outliers(table.statistics)
    confusions, verdicts = find_confusions(run, table), load_verdicts(run, table)
    return RunSummary(run, table, classes, confusions, groups, findings, outliers, verdicts)
