"""Tables, bars and a small image preview. Takes plain values and imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table

from seewhy.terminal.escaping import plain, printable

BAR_WIDTH = 24
BAR = " "  # header of a column of bars
MAX_WIDTH = 10**6
ACCENT, FAINT = "dark_orange3", "bright_black"


@dataclass(frozen=True)
class LayerRow:
    """One row of the layer table; `positive_evidence` is None where the map is all zeros, `check` a verdict with its number."""

    name: str
    grid: str
    positive_evidence: float | None
    flags: tuple[str, ...] = ()
    is_suggested: bool = False
    check: str = ""


@dataclass(frozen=True)
class OutlierRow:
    """One row of the outlier table of a bulk run; `border` and `corner` are fractions of the heatmap in [0, 1]."""

    image: str
    deviations: float
    border: float
    corner: float
    predicted: str


@dataclass(frozen=True)
class VerdictLine:
    """One row of the table of verdicts of a bulk run: names, the share of confirmed maps, and counts of the other verdicts."""

    names: tuple[str, ...]
    confirmed: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class VerdictTable:
    """The verdicts of a bulk run: the columns of names and of counts, the rows, and what to know about them."""

    name_columns: tuple[str, ...]
    count_columns: tuple[str, ...]
    rows: tuple[VerdictLine, ...]
    notes: tuple[str, ...]


def print_heading(console: Console, text: str) -> None:
    """Print a text, followed by a line if there is room for it. The text is never truncated."""
    title = f"[bold]{plain(text)}[/]"
    if cell_len(printable(text)) + 4 > console.width:
        console.print(title, soft_wrap=True)
    else:
        console.rule(title, align="left", style=FAINT)


def print_predictions(console: Console, top: Sequence[tuple[int, str, float]], explained: Sequence[int]) -> None:
    """Print the top classes (index, name, probability); `explained` classes are highlighted."""
    table = plain_table()
    table.add_column("class", justify="right", style=FAINT, no_wrap=True)
    table.add_column("name", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column(BAR, no_wrap=True)
    for index, name, probability in top:
        style = ACCENT if index in explained else ""
        table.add_row(
            str(index),
            f"[{style or 'default'}]{plain(name)}[/]",
            f"{probability:.1%}",
            bar(probability, style or FAINT),
        )
    print_table(console, table)


def print_layers(console: Console, rows: Sequence[LayerRow], target: str, method: str) -> None:
    """Print the layers in execution order with the positive evidence of their maps."""
    console.print(f'{plain(method)} for "{plain(target)}": positive evidence per layer', style=FAINT)
    table = plain_table()
    table.add_column("", justify="right", style=FAINT, no_wrap=True)
    table.add_column("layer", no_wrap=True)
    table.add_column("grid", justify="right", no_wrap=True)
    table.add_column("positive", justify="right", no_wrap=True)
    table.add_column(BAR, no_wrap=True)
    has_checks = any(row.check for row in rows)
    if has_checks:
        table.add_column("check", no_wrap=True)
    table.add_column("", style=FAINT)
    for number, row in enumerate(rows, 1):
        percent = "" if row.positive_evidence is None else f"{row.positive_evidence:.0%}"
        style = "default" if row.check.endswith("confirmed") else FAINT
        checks = [f"[{style}]{plain(row.check)}[/]"] if has_checks else []
        remarks = [*(["suggested"] if row.is_suggested else []), *row.flags]
        name = f"[{ACCENT}]{plain(row.name)}[/]" if row.is_suggested else plain(row.name)
        table.add_row(
            str(number),
            name,
            row.grid,
            percent,
            bar(row.positive_evidence or 0, FAINT, 12),
            *checks,
            ", ".join(remarks),
        )
    print_table(console, table)


def print_summary(
    console: Console,
    facts: Sequence[tuple[str, str]],
    findings: Sequence[str],
    outliers: Sequence[OutlierRow],
    page: str,
    verdicts: VerdictTable | None = None,
) -> None:
    """Print the summary of a bulk run: facts, findings, verdicts of the check, and the images with the most unusual maps."""
    console.print("  ".join(f"[{FAINT}]{plain(name)}[/] {plain(text)}" for name, text in facts), soft_wrap=True)
    console.print()
    for text in findings:
        console.print(f"[bold {ACCENT}]{plain(text)}[/]", soft_wrap=True)
    if verdicts is not None:
        print_verdicts(console, verdicts)
    if outliers:
        console.print("\nmost unusual maps: evidence at the border or in a corner", style=FAINT)
        table = plain_table()
        table.add_column("image", no_wrap=True)
        for title in ("deviations", "border", "corner"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("predicted", overflow="fold")
        for row in outliers:
            numbers = (f"{row.deviations:.1f}", f"{row.border:.2f}", f"{row.corner:.2f}")
            table.add_row(plain(row.image), *numbers, plain(row.predicted))
        print_table(console, table)
    console.print(f"\nExplore the run in a browser: [bold]{plain(page)}[/]", soft_wrap=True)


def print_verdicts(console: Console, verdicts: VerdictTable) -> None:
    """Print how many maps of each method and layer have which verdict."""
    console.print("\ncheck: covering parts of the images, compared with what the maps predict", style=FAINT)
    table = plain_table()
    for name in verdicts.name_columns:
        table.add_column(name, no_wrap=True)
    table.add_column("confirmed", justify="right", no_wrap=True)
    for name in verdicts.count_columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in verdicts.rows:
        table.add_row(*map(plain, row.names), row.confirmed, *(f"{count:,}" for count in row.counts))
    print_table(console, table)
    for note in verdicts.notes:
        console.print(plain(note), soft_wrap=True)


def print_details(console: Console, details: Mapping[str, str]) -> None:
    """Print "word: text" lines; empty texts are skipped."""
    for word, text in details.items():
        if text:
            console.print(f"    [{FAINT}]{word}:[/] {plain(text)}", soft_wrap=True)


def plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=FAINT)


def print_table(console: Console, table: Table) -> None:
    """Print a table. If the terminal is too narrow, bars are dropped and texts wrap within their columns.

    Columns with `no_wrap`, such as layer names, which users copy, are never truncated: the terminal wraps their lines.
    """
    options = console.options.update(max_width=MAX_WIDTH)
    if Measurement.get(console, options, table).maximum > console.width:
        table.columns = [column for column in table.columns if column.header != BAR]
        for column in table.columns:
            if column.no_wrap:
                cells = [column.header, *column.cells]
                column.min_width = max(Measurement.get(console, options, cell).maximum for cell in cells)
        table.width = max(Measurement.get(console, options, table).minimum, console.width)
    console.print(table, crop=False)


def bar(fraction: float, style: str, width: int = BAR_WIDTH) -> str:
    """Return a horizontal bar as markup, drawn in eighths of a character."""
    eighths = round(min(max(fraction, 0), 1) * width * 8)
    full, rest = divmod(eighths, 8)
    return f"[{style}]{'█' * full}{' ▏▎▍▌▋▊▉'[rest] if rest else ''}[/]"


def print_preview(console: Console, image: Image.Image, columns: int = 48) -> None:
    """Print an image in half-block characters: two pixels per character, one as foreground and one as background."""
    columns = min(columns, console.width - 2, image.width)
    rows = max(1, round(columns * image.height / image.width / 2))
    pixels = np.asarray(image.convert("RGB").resize((columns, 2 * rows), Image.Resampling.LANCZOS))
    segments = []
    for row in range(rows):
        for column in range(columns):
            style = Style(color=hex_color(pixels[2 * row, column]), bgcolor=hex_color(pixels[2 * row + 1, column]))
            segments.append(Segment("▀", style))
        segments.append(Segment.line())
    console.print(Segments(segments))


def hex_color(pixel: NDArray[np.uint8]) -> str:
    return f"#{bytes(pixel).hex()}"
