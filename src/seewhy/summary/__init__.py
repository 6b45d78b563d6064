"""Summaries of bulk runs: an HTML page and CSV tables of one run, or a comparison of two runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seewhy import storage
from seewhy.storage.paths import check_folders, check_overwrite

if TYPE_CHECKING:
    from seewhy.bulk.bulk_run import BulkRun
    from seewhy.summary.comparison import Comparison
    from seewhy.summary.run_summary import RunSummary

FOLDER, PAGE, COMPARISON_PAGE = "summary", "summary.html", "compare.html"


def write_summary(
    run: BulkRun,
    out: Path | None = None,
    *,
    method: str | None = None,
    target: str | None = None,
    layer: str | None = None,
) -> tuple[RunSummary, Path]:
    """Write the page and the CSV tables of a run to `out` (default: RUN/summary). Return the summary and the page's path."""
    from seewhy.bulk.bulk_run import source_paths
    from seewhy.summary.csv_tables import HEADERS, build_csv_files, is_own_table
    from seewhy.summary.run_summary import summarize
    from seewhy.summary.summary_page import build_summary_data
    from seewhy.viewer import build_summary

    folder = out or run.folder / FOLDER
    check_folders([folder])
    tables = [folder / name for name in HEADERS]
    check_overwrite([folder / PAGE, *tables], source_paths(run))
    storage.check_own(folder / PAGE)
    for table in tables:
        storage.check_own(table, is_own_table)
    summary = summarize(run, method, target, layer)
    title = f"Summary of {len(summary.table):,} images"
    page = build_summary(build_summary_data(summary), title=title, model=str(run.model["model"]))
    for name, content in build_csv_files(summary).items():
        storage.write_file(folder / name, content, is_own=is_own_table)
    return summary, storage.write_file(folder / PAGE, page.encode("ascii"))


def write_comparison(
    first: BulkRun,
    second: BulkRun,
    out: Path | None = None,
    *,
    method: str | None = None,
    target: str | None = None,
    layer: str | None = None,
) -> tuple[Comparison, Path]:
    """Write the comparison page of two runs to `out` (default: SECOND/summary). Return the comparison and the page's path."""
    from seewhy.bulk.bulk_run import source_paths
    from seewhy.summary.comparison import compare
    from seewhy.summary.comparison_page import build_comparison_data
    from seewhy.viewer import build_summary

    folder = out or second.folder / FOLDER
    check_folders([folder])
    check_overwrite([folder / COMPARISON_PAGE], [*source_paths(first), *source_paths(second)])
    storage.check_own(folder / COMPARISON_PAGE)
    comparison = compare(first, second, method, target, layer)
    title = f"{first.folder} vs. {second.folder}: {len(comparison.rows[0]):,} images"
    models = dict.fromkeys(str(run.model["model"]) for run in comparison.runs)
    page = build_summary(build_comparison_data(comparison), title=title, model=" and ".join(models))
    return comparison, storage.write_file(folder / COMPARISON_PAGE, page.encode("ascii"))
