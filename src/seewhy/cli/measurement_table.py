"""The table of metrics in the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console

from seewhy import terminal
from seewhy.explanation.result import Explanation

if TYPE_CHECKING:
    from seewhy.trust.measurements import Measurements


def print_measurements(console: Console, e: Explanation, measured: Measurements) -> None:
    """Print the metrics of each map of one image; a value that is not defined is empty, with a note below.

    The direction and the trap of each metric are listed by `seewhy metrics`.
    """
    table = terminal.plain_table()
    several = [len(e.methods) > 1, len(e.targets) > 1]
    titles = [name for name, shown in zip(["method", "target"], several, strict=True) if shown]
    for title in (*titles, "layer"):
        table.add_column(title, no_wrap=True)
    for column in measured.columns:
        name, _, filler = column.partition("(")
        title = name.replace("_", "\n") if not filler else f"{name.replace('_', chr(10))}\n{filler.rstrip(')')}"
        table.add_column(title, justify="right", no_wrap=True)
    reasons: dict[str, int] = {}
    for row in measured.rows:
        values = [row.values[column] for column in measured.columns]
        names = [name for name, shown in zip([row.method, row.target], several, strict=True) if shown]
        layer = terminal.plain(row.layer)
        layer = f"[{terminal.ACCENT}]{layer}[/]" if row.layer == e.suggested else layer
        table.add_row(*map(terminal.plain, names), layer, *("" if math.isnan(v) else f"{v:.2f}" for v in values))
        for reason in row.reasons.values():
            reasons[reason] = reasons.get(reason, 0) + 1
    console.print()
    terminal.print_table(console, table)
    for reason, count in reasons.items():
        console.print(f"not defined ({count} values): {terminal.plain(reason)}", style=terminal.FAINT, soft_wrap=True)
    console.print("What the numbers mean: seewhy metrics", style=terminal.FAINT)
