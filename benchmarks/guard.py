"""Compare measured ratios with the committed ones, so that a change that makes seewhy slower is noticed.

    .venv-bench/bin/python benchmarks/run.py --only engine --json new.json
    python benchmarks/guard.py new.json

Ratios to the bare forward pass depend less on the machine than times, but they do depend on it: compare runs of one machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

COMMITTED = Path(__file__).resolve().with_name("results.json")


def slower(new: dict[str, dict[str, float]], old: dict[str, dict[str, float]], tolerance: float) -> list[str]:
    """Return a line for each ratio of seewhy that grew by more than `tolerance` (0.1 is 10 %)."""
    lines = []
    for title, contenders in new.items():
        for name, ratio in contenders.items():
            before = old.get(title, {}).get(name)
            if name.startswith("seewhy") and before is not None and ratio > before * (1 + tolerance):
                lines.append(f"{title}: {name}: {before:.2f} -> {ratio:.2f} times the bare forward pass")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare measured ratios with those of benchmarks/results.json.")
    parser.add_argument("new", type=Path, help="a file that run.py --json wrote")
    parser.add_argument("--tolerance", type=float, default=0.15, help="allowed growth (default: 0.15)")
    options = parser.parse_args()
    new, old = json.loads(options.new.read_text()), json.loads(COMMITTED.read_text())
    common = new["ratios"].keys() & old["ratios"].keys()
    if not common:
        sys.exit(f"{options.new} and {COMMITTED.name} have no table in common.")
    lines = slower(new["ratios"], old["ratios"], options.tolerance)
    print(
        *lines,
        f"{len(common)} tables compared, {len(lines)} ratios are more than {options.tolerance:.0%} larger.",
        sep="\n",
    )
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
