"""Signals at random moments of several commands."""

from __future__ import annotations

import random
import tempfile
import time
from functools import cache
from pathlib import Path

from reliability.groups import Result
from support.signal_drill import KINDS, SIGNALS, Drill, signal_case


@cache
def drill() -> Drill:
    """Return the inputs of all commands. Call it before the processes that run the cases start."""
    prepared = Drill(Path(tempfile.mkdtemp(prefix="signals-")))
    prepared.prepare()
    return prepared


def run_signal(seed: int, folder: Path) -> Result:
    """Send a signal to a command after a delay: half of them within the first second."""
    generator = random.Random(seed)
    kind, number = KINDS[seed % len(KINDS)], generator.choice(SIGNALS)
    delay = generator.uniform(0.15, 1) if seed % 2 else generator.uniform(1, 7)
    command, out = drill().case(kind)
    start = time.monotonic()
    case = signal_case(command, number, delay, out, repeat=seed % 4 == 3)
    lines = str(case.get("stderr", "")).strip().splitlines()
    return Result(
        f"{seed}: {number.name} to {kind} after {delay:.2f} s", str(case["code"]), lines[-1] if lines else "",
        case["problems"], time.monotonic() - start, 0,
    )  # fmt: skip
