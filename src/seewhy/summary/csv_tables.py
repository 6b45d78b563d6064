"""The results of a summary as CSV tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from seewhy.explanation.checks import VERDICTS
from seewhy.storage import open_regular
from seewhy.summary.map_table import STATISTICS
from seewhy.summary.run_summary import RunSummary
from seewhy.summary.verdicts import Verdicts

Cell = str | int | float | bool | None
VERDICT_COLUMNS = [verdict.replace(" ", "_") for verdict in VERDICTS]
HEADERS = {
    "classes.csv": ["class", "name", "images", "accuracy", "probability", *STATISTICS],
    "confusions.csv": ["label", "label_name", "predicted", "predicted_name", "images", "ids"],
    "outliers.csv": ["statistic", "rank", "id", "deviations"],
    "clusters.csv": ["class", "cluster", "images", "separation", "id", "representative"],
    "findings.csv": ["finding", "kind", "class", "location", "fraction", "other_fraction", "separation", "id"],
    # of runs with the check
    "checks.csv": [
        "method", "target", "layer", "maps", "checked", *VERDICT_COLUMNS, "share", "standard_error", "low", "high",
    ],
    "class_checks.csv": ["class", "name", "checked", "confirmed", "low", "high"],
}  # fmt: skip
MAX_IDS = 100  # in one cell


def build_csv_files(summary: RunSummary) -> dict[str, bytes]:
    """Return the content of the CSV files by name. They also contain the rows for which the page has no space."""
    return {name: encode_csv(HEADERS[name], rows) for name, rows in build_tables(summary).items()}


def is_own_table(path: Path) -> bool:
    """Return True if a file starts with the header of the table of its name. A mark would disturb programs that read CSV."""
    header = encode_csv(HEADERS[path.name], [])
    try:
        with open_regular(path) as file:
            return not path.is_symlink() and file.read(len(header)) == header
    except OSError:
        return False


def build_tables(summary: RunSummary) -> dict[str, list[list[Cell]]]:
    """Return the rows of each table."""
    ids = summary.table.columns["id"]
    classes: list[list[Cell]] = [
        [row.index, row.name, len(row.members), row.accuracy, row.probability,
         *(row.mean_statistics[name] for name in STATISTICS)]
        for row in summary.classes
    ]  # fmt: skip
    confusions: list[list[Cell]] = [
        [pair.label, pair.label_name, pair.predicted, pair.predicted_name, len(pair.members),
         " ".join(summary.ids(pair.members[:MAX_IDS]))]
        for pair in summary.confusions
    ]  # fmt: skip
    outliers: list[list[Cell]] = [
        [name, rank, ids[row], float(score)]
        for name, one in summary.outliers.items()
        for rank, (row, score) in enumerate(zip(one.indices, one.scores, strict=True), 1)
    ]
    clusters: list[list[Cell]] = [
        [summary.class_name(index), number, cluster.size, cluster.separation, ids[row], row in representatives]
        for index, group in summary.groups.items()
        for number, cluster in enumerate(group.clusters, 1)
        for representatives in [set(cluster.representatives.tolist())]
        for row in cluster.members.tolist()
    ]
    findings: list[list[Cell]] = [
        [number, one.kind, summary.class_name(one.class_index), one.location, one.fraction, one.other_fraction,
         one.separation, ids[row]]
        for number, one in enumerate(summary.findings, 1)
        for row in one.indices
    ]  # fmt: skip
    return {
        "classes.csv": classes,
        "confusions.csv": confusions,
        "outliers.csv": outliers,
        "clusters.csv": clusters,
        "findings.csv": findings,
        **({} if summary.verdicts is None else build_check_tables(summary.verdicts)),
    }


def build_check_tables(verdicts: Verdicts) -> dict[str, list[list[Cell]]]:
    """Return the rows of the tables about the check."""
    return {
        "checks.csv": [
            [row.method, row.target, row.layer, row.maps, row.share.checked, *row.counts.values(), row.share.value,
             row.share.standard_error, *row.share.interval]
            for row in verdicts.rows
        ],
        "class_checks.csv": [
            [one.index, one.name, one.share.checked, one.share.confirmed, *one.share.interval] for one in verdicts.classes
        ],
    }  # fmt: skip


def encode_csv(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bytes:
    """Encode a table as CSV; None and NaN become empty cells.

    Text that starts with = + - @, a tab or a carriage return gets a leading apostrophe, because a spreadsheet would run it as a
    formula.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")  # with "\n", a carriage return in a cell would not be quoted
    writer.writerow(header)
    writer.writerows([[encode_cell(value) for value in row] for row in rows])
    return file.getvalue().encode()


def encode_cell(value: Cell) -> Cell:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
    return "" if value is None or value != value else value
