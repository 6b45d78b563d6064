"""Run the benchmarks.

.venv-bench/bin/python benchmarks/run.py                            # all parts; writes benchmarks/RESULTS.md
.venv-bench/bin/python benchmarks/run.py --only engine --rounds 3   # one part, printed only
.venv-bench/bin/python benchmarks/run.py --only engine --keep       # one part, replaced in RESULTS.md and results.json
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["TQDM_DISABLE"] = (
    "1"  # grad-cam draws a progress bar per image; tqdm reads this when it is imported, which torch does
)

import torch

import app
import bulk
import correctness
import engine
import floor
import memory
import methods
import process
import viewer
from results import Report, load, merged, page

# Linux takes the pages of large tensors back when they are freed, and fills new ones with zeros. In a virtual machine, that is
# more than half of the time of a forward pass, or nothing, depending on what ran before. glibc reads these when it starts.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}

RESULTS = Path(__file__).resolve().with_name("RESULTS.md")
RATIOS = RESULTS.with_name("results.json")

# Processes take seconds and memory peaks hardly vary, so these parts run fewer rounds.
PARTS: dict[str, Callable[[int], Report]] = {
    "engine": lambda rounds: engine.measure(max(1, rounds // 2), [1, 8]),
    "floor": floor.measure,
    "correctness": lambda rounds: correctness.measure(),
    "methods": methods.measure,
    "process": lambda rounds: process.measure(max(1, rounds // 2)),
    "viewer": lambda rounds: viewer.measure(),
    "app": lambda rounds: app.measure(2 * rounds),
    "memory": lambda rounds: memory.measure(max(1, rounds // 5)),
    "bulk": lambda rounds: bulk.measure(max(1, rounds // 2)),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare seewhy with torchcam, grad-cam and captum.")
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="run this part only (may be repeated) and print it"
    )
    parser.add_argument("--keep", action="store_true", help="with --only: write the results into RESULTS.md")
    parser.add_argument("--json", type=Path, help="also write the ratios to this file, for guard.py")
    parser.add_argument("--full", action="store_true", help="batches of 32 as well")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each race (default: 15)")
    parser.add_argument(
        "--threads", type=int, help="threads of torch within this process (default: torch's own choice)"
    )
    return parser.parse_args()


def keep_freed_memory() -> None:
    """Start this process again, so that it keeps the memory of freed tensors, if it does not do that already."""
    if sys.platform == "linux" and not KEEP_FREED_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_FREED_MEMORY)
    for name in KEEP_FREED_MEMORY:
        os.environ.pop(name, None)  # processes that this one starts are measured as users start them


def main() -> None:
    options = arguments()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.full:
        PARTS["engine"] = lambda rounds: engine.measure(rounds, [1, 8, 32])
    load_before = load()
    report = Report()
    for name in options.only or PARTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        part = PARTS[name](options.rounds)
        if options.keep:  # after each part: the next one can take many minutes, and be interrupted
            part.save(RATIOS)
            RESULTS.write_text(merged(RESULTS.read_text(), part, load_before))
        report += part
    if options.json:
        report.save(options.json)
    if not options.only:
        report.save(RATIOS)
        RESULTS.write_text(page(report, options.rounds, load_before))
    elif not options.keep:
        print(page(report, options.rounds, load_before))
    missed = [aim.promise for aim in report.aims if not aim.met]
    print(f"{len(report.aims) - len(missed)} of {len(report.aims)} aims met", *missed, sep="\n  ", file=sys.stderr)


if __name__ == "__main__":
    main()
