"""A run as a whole: what is found, counted and clustered, as a page and as tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seewhy import storage

if TYPE_CHECKING:
    from seewhy.bulk.run import Run
    from seewhy.summary.document import Summary

FOLDER, PAGE, COMPARED = "summary", "summary.html", "compare.html"


def write_summary(run: Run, out: Path | None = None, **choice: Any) -> tuple[Summary, Path]:
    """Write the page and the tables of a run; gives what was found, and the page. `choice`: method, question, layer."""
    from seewhy.summary.document import csv_tables, document, summarize
    from seewhy.viewer import build_summary

    found = summarize(run, **choice)
    folder = out or run.folder / FOLDER
    title = f"{len(found.answers):,} pictures: what the network looks at"
    text = build_summary(document(found), title=title, model=str(run.model["model"]))
    for name, (header, rows) in csv_tables(found).items():
        storage.write_file(folder / name, as_csv(header, rows))
    return found, storage.write_file(folder / PAGE, text.encode("ascii"))


def write_comparison(one: Run, other: Run, out: Path | None = None, **choice: Any) -> Path:
    """Write the page of two runs beside each other into the second's folder, or `out`."""
    from seewhy.summary.compare import compare, document
    from seewhy.viewer import build_summary

    both = compare(one, other, **choice)
    title = f"{one.folder} and {other.folder}: {len(both.first):,} pictures"
    models = dict.fromkeys(str(run.model["model"]) for run in both.runs)
    text = build_summary(document(both), title=title, model=" and ".join(models))
    return storage.write_file((out or other.folder / FOLDER) / COMPARED, text.encode("ascii"))


def as_csv(header: list[str], rows: list[list[Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if value is None or value != value else value for value in row] for row in rows])
    return file.getvalue().encode()
