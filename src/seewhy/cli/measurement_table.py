"""The table of metrics in the terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from seewhy import terminal
from seewhy.explanation.result import Explanation

if TYPE_CHECKING:
    from seewhy.trust.metrics.measurements import MapMeasurement, Measurements


def print_measurements(console: Console, e: Explanation, measured: Measurements) -> None:
    """Print the metrics of each map of one image; a value that is not defined is empty, with a note below.

    The direction and the trap of each metric are listed by `seewhy metrics`.
    """
    several = [len(e.methods) > 1, len(e.targets) > 1]
    titles = [name for name, shown in zip(["method", "target"], several, strict=True) if shown]
    table = make_table([*titles, "layer"], measured.columns)
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


def make_table(titles: Sequence[str], columns: Sequence[str]) -> Table:
    """Return an empty table with columns of names, then one for each metric, whose header has several lines."""
    table = terminal.plain_table()
    for title in titles:
        table.add_column(title, no_wrap=True)
    for column in columns:
        name, _, filler = column.partition("(")
        lines = [*name.split("_"), *([filler.rstrip(")")] if filler else [])]
        table.add_column("\n".join(lines), justify="right", no_wrap=True)
    return table


def print_means(console: Console, all_measured: Sequence[Measurements]) -> None:
    """Print the mean of each metric over several images, with its standard error, by method and layer.

    With several targets, those of one rank are averaged: the first target of each image, the second, and so on.
    """
    columns = all_measured[0].columns
    groups: dict[tuple[str, int, str], list[MapMeasurement]] = {}
    for measured in all_measured:
        targets = list(dict.fromkeys(row.target for row in measured.rows))
        for row in measured.rows:
            groups.setdefault((row.method, targets.index(row.target), row.layer), []).append(row)
    several = [len({key[place] for key in groups}) > 1 for place in (0, 1)]
    titles = [name for name, shown in zip(["method", "target"], several, strict=True) if shown]
    table = make_table([*titles, "layer"], columns)
    for (method, target, layer), rows in groups.items():
        names = [name for name, shown in zip([method, str(target + 1)], several, strict=True) if shown]
        cells = [mean_text([row.values[column] for row in rows]) for column in columns]
        table.add_row(*map(terminal.plain, [*names, layer]), *cells)
    console.print(f"\nMeans of {len(all_measured)} images ± standard error", style=terminal.FAINT)
    terminal.print_table(console, table)


def mean_text(values: Sequence[float]) -> str:
    """Return mean and standard error of the values that are defined; with their number if some are not.

    >>> mean_text([0.1, 0.3, 0.2]), mean_text([0.1, 0.3, float("nan")]), mean_text([float("nan")])
    ('0.20 ± 0.06', '0.20 ± 0.10 (2)', '')
    """
    defined = [value for value in values if not math.isnan(value)]
    if len(defined) < 2:
        return f"{defined[0]:.2f} (1)" if defined else ""
    error = statistics.stdev(defined) / math.sqrt(len(defined))
    count = f" ({len(defined)})" if len(defined) < len(values) else ""
    return f"{statistics.mean(defined):.2f} ± {error:.2f}{count}"
