"""Tables, bars and a small image preview. Takes plain values and imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich import box
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table

from seewhy.terminal.escaping import plain

BAR_WIDTH = 24
ACCENT, FAINT = "dark_orange3", "bright_black"


@dataclass(frozen=True)
class LayerRow:
    """One row of the layer table; `positive_evidence` is None where the map is all zeros."""

    name: str
    grid: str
    positive_evidence: float | None
    flags: tuple[str, ...] = ()
    is_suggested: bool = False


@dataclass(frozen=True)
class OutlierRow:
    """One row of the outlier table of a bulk run; `border` and `corner` are fractions of the heatmap in [0, 1]."""

    image: str
    deviations: float
    border: float
    corner: float
    predicted: str


def print_predictions(console: Console, top: Sequence[tuple[int, str, float]], explained: Sequence[int]) -> None:
    """Print the top classes (index, name, probability); `explained` classes are highlighted."""
    table = plain_table()
    table.add_column("class", justify="right", style=FAINT)
    table.add_column("name")
    table.add_column("probability", justify="right")
    table.add_column("")
    for index, name, probability in top:
        style = ACCENT if index in explained else ""
        table.add_row(
            str(index),
            f"[{style or 'default'}]{plain(name)}[/]",
            f"{probability:.1%}",
            bar(probability, style or FAINT),
        )
    console.print(table)


def print_layers(console: Console, rows: Sequence[LayerRow], target: str, method: str) -> None:
    """Print the layers in execution order with the positive evidence of their maps."""
    console.print(f'{plain(method)} for "{plain(target)}": positive evidence per layer', style=FAINT)
    table = plain_table()
    table.add_column("", justify="right", style=FAINT)
    # Users copy layer names, so they are never truncated.
    table.add_column("layer", no_wrap=True, min_width=max(len(row.name) for row in rows))
    table.add_column("grid", justify="right", no_wrap=True)
    table.add_column("positive", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=12)
    table.add_column("", style=FAINT)
    for number, row in enumerate(rows, 1):
        percent = "" if row.positive_evidence is None else f"{row.positive_evidence:.0%}"
        remarks = [*(["suggested"] if row.is_suggested else []), *row.flags]
        name = f"[{ACCENT}]{plain(row.name)}[/]" if row.is_suggested else plain(row.name)
        table.add_row(
            str(number), name, row.grid, percent, bar(row.positive_evidence or 0, FAINT, 12), ", ".join(remarks)
        )
    console.print(table)


def print_summary(
    console: Console,
    facts: Sequence[tuple[str, str]],
    findings: Sequence[str],
    outliers: Sequence[OutlierRow],
    page: str,
) -> None:
    """Print the summary of a bulk run: facts, findings, and the images with the most unusual maps."""
    console.print("  ".join(f"[{FAINT}]{plain(name)}[/] {plain(text)}" for name, text in facts), soft_wrap=True)
    console.print()
    for text in findings:
        console.print(f"[bold {ACCENT}]{plain(text)}[/]", soft_wrap=True)
    if outliers:
        console.print("\nmost unusual maps: evidence at the border or in a corner", style=FAINT)
        table = plain_table()
        table.add_column("image", no_wrap=True)
        for title in ("deviations", "border", "corner"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("predicted")
        for row in outliers:
            numbers = (f"{row.deviations:.1f}", f"{row.border:.2f}", f"{row.corner:.2f}")
            table.add_row(plain(row.image), *numbers, plain(row.predicted))
        console.print(table)
    console.print(f"\nExplore the run in a browser: [bold]{plain(page)}[/]", soft_wrap=True)


def print_details(console: Console, details: Mapping[str, str]) -> None:
    """Print "word: text" lines; empty texts are skipped."""
    for word, text in details.items():
        if text:
            console.print(f"    [{FAINT}]{word}:[/] {plain(text)}", soft_wrap=True)


def plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=FAINT)


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
