"""A run as a whole: what is found, counted and clustered, as a page and as tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seewhy import storage
from seewhy.errors import UsageError

if TYPE_CHECKING:
    from seewhy.bulk.bulk_run import BulkRun
    from seewhy.summary.comparison import Comparison
    from seewhy.summary.document import Summary

FOLDER, PAGE, COMPARED = "summary", "summary.html", "compare.html"


def write_summary(run: BulkRun, out: Path | None = None, **choice: Any) -> tuple[Summary, Path]:
    """Write the page and the tables of a run; gives what was found, and the page. `choice`: method, target, layer."""
    from seewhy.summary.csv_tables import csv_tables
    from seewhy.summary.document import document, summarize
    from seewhy.viewer import build_summary

    found = summarize(run, **choice)
    folder = out or run.folder / FOLDER
    title = f"{len(found.answers):,} pictures: what the network looks at"
    text = build_summary(document(found), title=title, model=str(run.model["model"]))
    for name, (header, rows) in csv_tables(found).items():
        written(folder / name, as_csv(header, rows))
    return found, written(folder / PAGE, text.encode("ascii"))


def write_comparison(one: BulkRun, other: BulkRun, out: Path | None = None, **choice: Any) -> tuple[Comparison, Path]:
    """Write the page of two runs beside each other into the second's folder, or `out`; gives what differs, and the page."""
    from seewhy.summary.comparison import compare
    from seewhy.summary.comparison_page import comparison_document
    from seewhy.viewer import build_summary

    both = compare(one, other, **choice)
    title = f"{one.folder} and {other.folder}: {len(both.first):,} pictures"
    models = dict.fromkeys(str(run.model["model"]) for run in both.runs)
    text = build_summary(comparison_document(both), title=title, model=" and ".join(models))
    return both, written((out or other.folder / FOLDER) / COMPARED, text.encode("ascii"))


def written(path: Path, content: bytes) -> Path:
    try:
        return storage.write_file(path, content)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written ({error.strerror or error}). Choose another folder: --out"
        ) from None


def as_csv(header: list[str], rows: list[list[Any]]) -> bytes:
    """A table as CSV, what is unknown left empty.

    A text that begins with = + - @, a tab or a carriage return gets an apostrophe in front: spreadsheets would run it.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")  # with other ends a carriage return in a cell is not quoted
    writer.writerow(header)
    writer.writerows([[as_cell(value) for value in row] for row in rows])
    return file.getvalue().encode()


def as_cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
    return "" if value is None or value != value else value
