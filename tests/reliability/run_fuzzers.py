"""Run random cases with new seeds for some time, and print those that failed with their seeds.

    make fuzz                                                     # ten minutes
    .venv/bin/python tests/reliability/run_fuzzers.py --minutes 60 --record
    .venv/bin/python tests/reliability/run_fuzzers.py --kind runs --seed 4711 --count 1      # repeat one case

`--record` appends the result to docs/fuzz_runs.json, which docs/make_reliability.py includes in its page.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
os.environ["OMP_NUM_THREADS"] = "1"

from fuzz.fuzz_server import main as fuzz_server  # noqa: E402
from reliability import cases  # noqa: E402
from reliability.groups import Group, Result, run_group, warm_up  # noqa: E402
from reliability.situations import pristine  # noqa: E402

RECORDS = TESTS.parent / "docs" / "fuzz_runs.json"
IMAGES = 2000
KINDS: dict[str, Callable[[int, Path], Result]] = {
    "explanations": cases.tampered_explanation,
    "runs": cases.tampered_run,
    "commands": cases.random_command_line,
    "names": cases.hostile_name,
    "images": partial(cases.awkward_image, "main", IMAGES),
}
TITLES = {
    "explanations": "tampered saved explanations", "runs": "tampered bulk runs", "commands": "random command lines",
    "names": "hostile names", "images": "awkward images", "app": "requests to the local app",
}  # fmt: skip


def fuzz(kind: str, seed: int, seconds: float, count: int) -> Group:
    """Run cases of one kind from `seed` on, at most `count`, for at most `seconds`."""
    if kind == "images":
        cases.images(IMAGES)
    return run_group(TITLES[kind], "", KINDS[kind], count, start=seed, seconds=seconds)


def report(kind: str, cases_run: int, failures: list[str], minutes: float) -> dict[str, object]:
    print(f"{TITLES[kind]}: {cases_run:,} cases, {len(failures)} failures", flush=True)
    for line in failures:
        print(f"    {line}", flush=True)
    return {
        "date": date.today().isoformat(), "kind": TITLES[kind], "minutes": round(minutes, 1), "cases": cases_run,
        "failures": len(failures), "fixed": "",
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all kinds together")
    parser.add_argument("--kind", choices=TITLES, action="append", help="default: all")
    parser.add_argument("--seed", type=int, default=None, help="first seed; default: a random one")
    parser.add_argument("--count", type=int, default=10**6, help="most cases of each kind")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    kinds = options.kind or list(TITLES)
    seed = random.randrange(10**6, 10**9) if options.seed is None else options.seed
    print(f"first seed: {seed}", flush=True)
    seconds = options.minutes * 60 / len(kinds)
    warm_up()
    pristine("saved"), pristine("bulk")
    records = []
    for kind in sorted(kinds, key="app".__eq__):  # the app last: its threads must not be running when a process forks
        start = time.monotonic()
        if kind == "app":
            result = fuzz_server(seconds, seed)
            done, failures = int(result["cases"]), list(map(str, result["failures"]))
        else:
            group = fuzz(kind, seed, seconds, options.count)
            done, failures = len(group.results), [f"{one.case}: {'; '.join(one.problems)}" for one in group.failures]
        records.append(report(kind, done, failures, (time.monotonic() - start) / 60))
    if options.record:
        old = json.loads(RECORDS.read_text("utf-8")) if RECORDS.exists() else []
        RECORDS.write_text(json.dumps([*old, *records], indent=1) + "\n", "utf-8")
    return 1 if any(record["failures"] for record in records) else 0


if __name__ == "__main__":
    sys.exit(main())
