"""Signals at 100 moments of several commands."""

from __future__ import annotations

import random
import signal
from pathlib import Path

from reliability.groups import Result
from support.signal_drill import COMMANDS, signal_case

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_signal(seed: int, folder: Path) -> Result:
    """Send one signal to one command after a random delay."""
    generator = random.Random(seed)
    command = list(COMMANDS)[seed % len(COMMANDS)]
    number = SIGNALS[seed % len(SIGNALS)]
    delay = generator.uniform(0, 6) if seed % 2 else generator.uniform(0, 1)
    case = signal_case(command, number, delay, folder)
    end = str(case["code"])
    return Result(
        f"{seed}: {number.name} to {command} after {delay:.2f} s",
        end,
        case["message"],
        case["problems"],
        case["seconds"],
        0,
    )
