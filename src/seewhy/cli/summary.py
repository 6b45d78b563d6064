"""`seewhy summary`: what a network looks at on the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from seewhy.cli.bulk import require_packages
from seewhy.errors import UsageError

SHOWN, NAMED, LEAST = 10, 3, 20


def summary(
    *runs: Path,
    method: str | None = None,
    target: str | None = None,
    layer: str | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    json: bool = False,
) -> int:
    """What a network looks at on the whole: a page and tables of a run, or of two beside each other.

    Parameters
    ----------
    runs
        A folder that seewhy bulk wrote; a second one of the same pictures to compare with.
    method
        Of several methods, which; the first by default.
    target
        Of several targets, which: top1, label, a class as it was asked; the first by default.
    layer
        Of several layers, which; the last by default.
    out
        Folder for the page and the tables. Default: RUN/summary.
    json
        Print the findings, or of two runs what differs, as JSON, and nothing else, to stdout.
    """
    if not 1 <= len(runs) <= 2:
        raise UsageError(f"{len(runs)} runs: give one (seewhy summary run), or two to compare them.")
    require_packages("seewhy summary", "pyarrow", "sklearn")
    from seewhy.bulk.bulk_run import BulkRun
    from seewhy.summary import write_comparison, write_summary
    from seewhy.terminal import printable

    choice = {"method": method, "target": target, "layer": layer}
    read = [BulkRun.read(run) for run in runs]
    if len(read) == 2:
        both, page = write_comparison(read[0], read[1], out, **choice)
        least = [both.answers[0].columns["id"][both.first[place]] for place in both.least_alike[:LEAST]]
        about = {"page": str(page), "pictures": len(both.first), "same_answer": both.same_answer,
                 "likeness": both.median(both.likeness), "least_alike": least}  # fmt: skip
        print(as_json(about) if json else printable(str(page)))
        return 0
    from seewhy.summary.document import MOST_FINDINGS, facts, unshown

    found, page = write_summary(read[0], out, **choice)
    if json:
        entries = [
            {"kind": one.kind, "of": found.name_of(one.predicted), "place": one.place, "share": one.share, "others": one.others,
             "pictures": found.ids(one.indices), "text": one.sentence}
            for one in found.findings
        ]  # fmt: skip
        print(as_json({"page": str(page), "findings": entries}))
        return 0
    from seewhy.summary.outliers import EDGE
    from seewhy.summary.wording import NOTHING_FOUND
    from seewhy.terminal import OutlierRow, make_console, print_summary

    answers, edge = found.answers, found.outliers[EDGE]
    rows = [
        OutlierRow(
            name,
            score,
            answers.numbers["border"][at],
            answers.numbers["corner"][at],
            str(answers.columns["predicted_name"][at] or ""),
        )
        for at, name, score in zip(edge.indices[:SHOWN], found.ids(edge.indices), edge.scores, strict=False)
    ]
    said = [
        f"{one.sentence}: {', '.join(found.ids(one.indices[:NAMED]))}, ..." for one in found.findings[:MOST_FINDINGS]
    ]
    said += [unshown(found)] if unshown(found) else []
    print_summary(make_console(), facts(found), said or [NOTHING_FOUND], rows, str(page))
    return 0


def as_json(found: dict[str, Any]) -> str:
    """Text for people to read as well, but nothing that a terminal would take for a command."""
    from json import dumps

    text = dumps(found, ensure_ascii=False)
    return text if text.isprintable() else "".join(one if one.isprintable() else dumps(one)[1:-1] for one in text)
