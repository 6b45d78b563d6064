"""`seewhy summary`: what a network looks at on the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from seewhy.bulk.command import needed
from seewhy.errors import UsageError

SHOWN, NAMED = 10, 3


def summary(
    *runs: Path,
    method: str | None = None,
    question: str | None = None,
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
    question
        Of several targets, which: top1, label, a class as it was asked; the first by default.
    layer
        Of several layers, which; the last by default.
    out
        Folder for the page and the tables. Default: RUN/summary.
    json
        Print the findings as JSON, and nothing else, to stdout.
    """
    if not 1 <= len(runs) <= 2:
        raise UsageError(f"{len(runs)} runs: give one (seewhy summary run), or two to compare them.")
    needed("seewhy summary", "pyarrow", "sklearn")
    from seewhy.bulk.run import Run
    from seewhy.summary import write_comparison, write_summary

    choice = {"method": method, "question": question, "layer": layer}
    read = [Run.read(run) for run in runs]
    if len(read) == 2:
        page = write_comparison(read[0], read[1], out, **choice)
        print(page)
        return 0
    from seewhy.summary.document import facts

    found, page = write_summary(read[0], out, **choice)
    if json:
        import json as writer

        entries = [
            {"kind": one.kind, "of": found.name_of(one.predicted), "place": one.place, "share": one.share, "others": one.others,
             "pictures": found.ids(one.indices), "text": one.sentence}
            for one in found.findings
        ]  # fmt: skip
        print(writer.dumps({"page": str(page), "findings": entries}, ensure_ascii=False))
        return 0
    from seewhy.console import make_console, print_whole
    from seewhy.summary.outliers import EDGE
    from seewhy.summary.words import NOTHING_FOUND

    answers, edge = found.answers, found.outliers[EDGE]
    rows = [
        (
            name,
            score,
            answers.numbers["border"][at],
            answers.numbers["corner"][at],
            str(answers.columns["predicted_name"][at] or ""),
        )
        for at, name, score in zip(edge.indices[:SHOWN], found.ids(edge.indices), edge.scores, strict=False)
    ]
    said = [f"{one.sentence}: {', '.join(found.ids(one.indices[:NAMED]))}, ..." for one in found.findings]
    print_whole(make_console(), facts(found), said or [NOTHING_FOUND], rows, str(page))
    return 0
