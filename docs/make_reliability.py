"""Run all reliability cases, each in a separate process, and write docs/reliability.md.

    .venv/bin/python docs/make_reliability.py             # about half an hour on two cores
    .venv/bin/python docs/make_reliability.py --share 0.1 # a tenth of the random cases

The page also contains the results of `make fuzz`, which are recorded in docs/fuzz_runs.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
os.environ["OMP_NUM_THREADS"] = "1"

import PIL  # noqa: E402
import pyarrow  # noqa: E402
import torch  # noqa: E402

from reliability import cases  # noqa: E402
from reliability.app_images import upload_images  # noqa: E402
from reliability.faults import FAULTS, Fault, observed_text, run_fault  # noqa: E402
from reliability.groups import Group, Result, run_group, warm_up  # noqa: E402
from reliability.mistakes import MISTAKES, run_mistake  # noqa: E402
from reliability.signals import run_signal  # noqa: E402
from reliability.situations import pristine  # noqa: E402

PAGE, FUZZ_RUNS = HERE / "reliability.md", HERE / "fuzz_runs.json"
COUNTS = {"explanations": 600, "runs": 1050, "commands": 500, "names": 400, "images": 200, "signals": 100}
# Columns of the table, and how a problem of this kind starts.
KINDS = {
    "tracebacks": ("traceback",), "hangs": ("hang",), "stray files": ("stray",), "changed files": ("changed", "deleted"),
}  # fmt: skip
CODES = "0, 1 (an image failed) or 2 (one line)"


def run_groups(counts: dict[str, int]) -> Iterator[Group]:
    """Run the groups one after the other. The app is last: its threads must not be running when a process forks."""
    yield run_group("Faults found by attack", "see the table below", run_fault, len(FAULTS))
    pristine("saved"), pristine("bulk")
    yield run_group("Mistakes of users", "see the table below", run_mistake, len(MISTAKES))
    yield run_group(
        "Signals", "130 (SIGINT), 143 (SIGTERM), 129 (SIGHUP), or 0 if it ended before", run_signal, counts["signals"]
    )
    warm_up()
    pristine("saved"), pristine("bulk"), cases.images(counts["images"])
    yield run_group("Tampered saved explanations: report, then Python", "0 or 2 (one line)",
                    cases.tampered_explanation, counts["explanations"])  # fmt: skip
    yield run_group("Tampered bulk runs: summary, export, read, resume", "0 or 2 (one line)",
                    cases.tampered_run, counts["runs"])  # fmt: skip
    yield run_group("Random command lines", CODES, cases.random_command_line, counts["commands"])
    yield run_group("Hostile names: image, folder, bulk, --out, --labels, --targets", CODES,
                    cases.hostile_name, counts["names"])  # fmt: skip
    for entry, title in (("main", "main command"), ("bulk", "bulk job")):
        run = partial(cases.awkward_image, entry, counts["images"])
        yield run_group(f"Awkward images: {title}", CODES, run, counts["images"])
    yield upload_images(cases.images(counts["images"]), "Awkward images: local app", "a page or a refusal")


def table(groups: list[Group]) -> str:
    columns = ("kind", "cases", "expected exit codes", "observed", *KINDS, "other", "slowest")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for group in groups:
        counts = [sum(any(is_kind(kind, text) for text in one.problems) for one in group.failures) for kind in KINDS]
        others = sum(not any(is_kind(kind, one.problems[0]) for kind in KINDS) for one in group.failures)
        slowest = max((result.seconds for result in group.results), default=0)
        cells = [
            group.title,
            f"{len(group.results):,}",
            group.expected,
            group.ends(),
            *counts,
            others,
            f"{slowest:.1f} s",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def is_kind(kind: str, problem: str) -> bool:
    return problem.startswith(KINDS[kind])


def cell(text: str) -> str:
    """Return text for a cell of a Markdown table, in code style."""
    text = text.replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else ""


def fault_table(group: Group) -> str:
    lines = ["| case | expected | observed | as expected |", "|---|---|---|---|"]
    for fault, result in with_results(FAULTS, group):
        lines.append(f"| {fault.title} | {fault.expected} | {cell(observed_text(result))} | {verdict(result)} |")
    return "\n".join(lines)


def mistake_table(group: Group) -> str:
    lines = ["| mistake | command | exit code and message | as expected |", "|---|---|---|---|"]
    for fault, result in with_results(MISTAKES, group):
        command = cell(f"seewhy {' '.join(fault.arguments)}")
        lines.append(f"| {fault.title} | {command} | {cell(f'{result.end}: {result.message}')} | {verdict(result)} |")
    return "\n".join(lines)


def with_results(faults: Sequence[Fault], group: Group) -> list[tuple[Fault, Result]]:
    by_title = {result.case: result for result in group.results}
    return [(fault, by_title[fault.title]) for fault in faults]


def verdict(result: Result) -> str:
    return "yes" if not result.problems else f"**no**: {cell('; '.join(result.problems))}"


def failure_list(groups: list[Group]) -> str:
    failures = [
        f"* {group.title}, {cell(one.case)}: {cell('; '.join(one.problems))}"
        for group in groups
        for one in group.failures
    ]
    return "\n".join(failures) or "None."


def fuzz_table() -> str:
    lines = ["| date | kind | minutes | cases | failures | found and fixed |", "|---|---|---|---|---|---|"]
    for run in json.loads(FUZZ_RUNS.read_text("utf-8")) if FUZZ_RUNS.exists() else []:
        lines.append(
            f"| {run['date']} | {run['kind']} | {run['minutes']:g} | {run['cases']:,} | {run['failures']} | {run['fixed']} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the random cases")
    share = parser.parse_args().share
    start = time.monotonic()
    groups = []
    for group in run_groups({name: round(share * count) for name, count in COUNTS.items()}):
        groups.append(group)
        print(f"{group.title}: {len(group.results)} cases, {len(group.failures)} failures", flush=True)
        for one in group.failures:
            print(f"    {one.case}: {'; '.join(one.problems)}", flush=True)
    template = (HERE / "reliability.in.md").read_text("utf-8")
    packages = f"torch {torch.__version__}, Pillow {PIL.__version__}, pyarrow {pyarrow.__version__}"
    texts = {
        "table": table(groups), "faults": fault_table(groups[0]),
        "mistakes": mistake_table(groups[1]), "failures": failure_list(groups), "fuzz": fuzz_table(),
        "date": date.today().isoformat(), "minutes": f"{(time.monotonic() - start) / 60:.0f}",
        "versions": f"Python {platform.python_version()}, {packages}",
    }  # fmt: skip
    for name, text in texts.items():
        template = template.replace("{{" + name + "}}", text)
    PAGE.write_text(template, "utf-8")
    return 1 if any(group.failures for group in groups) else 0


if __name__ == "__main__":
    sys.exit(main())
