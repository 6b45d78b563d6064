"""`seewhy summary`: summarize a bulk run, or compare two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from seewhy.cli.bulk import note_incomplete, require_packages
from seewhy.errors import UsageError

if TYPE_CHECKING:
    from seewhy.summary.comparison import Comparison
    from seewhy.summary.run_summary import RunSummary
    from seewhy.summary.verdicts import ConfirmedShare, Verdicts
    from seewhy.terminal import OutlierRow, VerdictTable

MAX_OUTLIERS, MAX_LOWEST = 10, 20
IDS_PER_FINDING = 3
MAX_VERDICT_ROWS = 25
VERDICT_HEADERS = ("not\nspecific", "incon-\nclusive", "contra-\ndicted", "not\nchecked")  # in the order of `VERDICTS`


def summary(
    *runs: Path,
    method: str | None = None,
    target: str | None = None,
    layer: str | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    json: bool = False,
) -> int:
    """Summarize a bulk run as a page and tables, or compare two runs.

    Parameters
    ----------
    runs
        The folder of a bulk run; with a second folder, both runs over the same images are compared.
    method
        The method, if the run contains several. Default: the first.
    target
        The target (top1, label or a class), if the run contains several. Default: the first.
    layer
        The layer, if the run contains several. Default: the last.
    out
        Folder for the page and the tables. Default: RUN/summary.
    json
        Print only the findings and the verdicts of the check, or the comparison, as JSON on stdout.
    """
    if not 1 <= len(runs) <= 2:
        raise UsageError(f"{len(runs)} runs: give one (seewhy summary run), or two to compare them.")
    require_packages("seewhy summary", "pyarrow", "sklearn")
    from seewhy.bulk.bulk_run import BulkRun
    from seewhy.summary import write_comparison, write_summary
    from seewhy.terminal import encode_json, printable

    loaded = [BulkRun.read(run) for run in runs]
    for one in loaded:
        note_incomplete(one)
    if len(loaded) == 2:
        comparison, page = write_comparison(loaded[0], loaded[1], out, method=method, target=target, layer=layer)
        print(encode_json(comparison_record(comparison, page)) if json else printable(str(page)))
        return 0
    run_summary, page = write_summary(loaded[0], out, method=method, target=target, layer=layer)
    if json:
        print(encode_json(summary_record(run_summary, page)))
    else:
        print_run_summary(run_summary, page)
    return 0


def comparison_record(comparison: Comparison, page: Path) -> dict[str, object]:
    from seewhy.summary.aggregates import nan_median

    return {
        "page": str(page), "images": len(comparison.rows[0]), "same_prediction": comparison.agreement,
        "median_correlation": nan_median(comparison.correlation),
        "lowest_correlation": [comparison.image_id(place) for place in comparison.ranked[:MAX_LOWEST]],
    }  # fmt: skip


def summary_record(summary: RunSummary, page: Path) -> dict[str, object]:
    findings = [
        {
            "kind": one.kind, "class": summary.class_name(one.class_index), "location": one.location,
            "fraction": one.fraction, "other_fraction": one.other_fraction, "images": summary.ids(one.indices),
            "text": one.sentence,
        }
        for one in summary.findings
    ]  # fmt: skip
    checks = {} if summary.verdicts is None else {"checks": verdict_record(summary.verdicts)}
    return {"page": str(page), "findings": findings, **checks}


def verdict_record(verdicts: Verdicts) -> dict[str, object]:
    from seewhy.explanation.checks import LEVEL

    maps = [
        {
            "method": row.method, "target": row.target, "layer": row.layer, "maps": row.maps, "verdicts": dict(row.counts),
            **share_record(row.share), "not_checked": dict(row.reasons),
        }
        for row in verdicts.rows
    ]  # fmt: skip
    classes = [{"class": one.index, "name": one.name, **share_record(one.share)} for one in verdicts.classes]
    selected = verdicts.selected
    of = {"method": selected.method, "target": selected.target, "layer": selected.layer}
    return {"chance": LEVEL, "maps": maps, "by_class": {**of, "classes": classes}}


def share_record(share: ConfirmedShare) -> dict[str, object]:
    from seewhy.storage import finite_or_none

    return {
        "checked": share.checked, "confirmed": share.confirmed, "share": finite_or_none(share.value),
        "standard_error": finite_or_none(share.standard_error),
        "interval": list(share.interval) if share.checked else None,
    }  # fmt: skip


def print_run_summary(summary: RunSummary, page: Path) -> None:
    from seewhy.summary.statistic_texts import NO_FINDINGS
    from seewhy.summary.summary_page import MAX_FINDINGS, more_findings
    from seewhy.terminal import make_console, print_summary

    findings = [
        f"{one.sentence}: {', '.join(summary.ids(one.indices[:IDS_PER_FINDING]))}, ..."
        for one in summary.findings[:MAX_FINDINGS]
    ]
    findings += [more_findings(summary)] if more_findings(summary) else []
    verdicts = None if summary.verdicts is None else make_verdict_table(summary.verdicts)
    outliers = list_outliers(summary)
    print_summary(make_console(), summary.facts(), findings or [NO_FINDINGS], outliers, str(page), verdicts)


def make_verdict_table(verdicts: Verdicts) -> VerdictTable:
    """Return the table of verdicts. Targets are listed if there are several."""
    from seewhy.explanation.checks import VERDICTS
    from seewhy.terminal import VerdictLine, VerdictTable

    columns = ["method", "layer"]
    if verdicts.has_targets:
        columns.insert(1, "target")
    lines = [
        VerdictLine(
            tuple(getattr(row, column) for column in columns),
            str(row.share),
            tuple(row.counts[verdict] for verdict in VERDICTS[1:]),
        )
        for row in verdicts.rows[:MAX_VERDICT_ROWS]
    ]
    notes = [verdicts.sentence(), verdicts.selected.not_checked()]
    more = len(verdicts.rows) - len(lines)
    notes += [f"{more} more rows are in checks.csv"] if more else []
    sentences = (f"{note.removesuffix('.')}." for note in notes if note)
    return VerdictTable(tuple(columns), VERDICT_HEADERS, tuple(lines), tuple(sentences))


def list_outliers(summary: RunSummary) -> list[OutlierRow]:
    """Return the images with the most unusual evidence at the border or in a corner."""
    from seewhy.summary.outliers import EDGE
    from seewhy.terminal import OutlierRow

    table, edge = summary.table, summary.outliers[EDGE]
    rows = edge.indices[:MAX_OUTLIERS]
    return [
        OutlierRow(
            image=name,
            deviations=score,
            border=table.statistics["border"][row],
            corner=table.statistics["corner"][row],
            predicted=str(table.columns["predicted_name"][row] or ""),
        )
        for row, name, score in zip(rows, summary.ids(rows), edge.scores, strict=False)
    ]
