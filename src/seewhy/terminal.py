"""Terminal output: tables, bars and a small image preview. Takes plain values and imports no torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table

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


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text unchanged. Without a terminal it is wide enough for every table."""
    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 160
    return console


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
            f"[{style or 'default'}]{escape(name)}[/]",
            f"{probability:.1%}",
            bar(probability, style or FAINT),
        )
    console.print(table)


def print_layers(console: Console, rows: Sequence[LayerRow], target: str, method: str) -> None:
    """Print the layers in execution order with the positive evidence of their maps."""
    console.print(f'{escape(method)} for "{escape(target)}": positive evidence per layer', style=FAINT)
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
        name = f"[{ACCENT}]{escape(row.name)}[/]" if row.is_suggested else escape(row.name)
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

    def clean(text: str) -> str:
        return escape(printable(text))

    console.print("  ".join(f"[{FAINT}]{clean(name)}[/] {clean(text)}" for name, text in facts), soft_wrap=True)
    console.print()
    for text in findings:
        console.print(f"[bold {ACCENT}]{clean(text)}[/]", soft_wrap=True)
    if outliers:
        console.print("\nmost unusual maps: evidence at the border or in a corner", style=FAINT)
        table = plain_table()
        table.add_column("image", no_wrap=True)
        for title in ("deviations", "border", "corner"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("predicted")
        for row in outliers:
            numbers = (f"{row.deviations:.1f}", f"{row.border:.2f}", f"{row.corner:.2f}")
            table.add_row(clean(row.image), *numbers, clean(row.predicted))
        console.print(table)
    console.print(f"\nExplore the run in a browser: [bold]{clean(page)}[/]", soft_wrap=True)


def print_details(console: Console, details: Mapping[str, str]) -> None:
    """Print "word: text" lines; empty texts are skipped."""
    for word, text in details.items():
        if text:
            console.print(f"    [{FAINT}]{word}:[/] {escape(text)}", soft_wrap=True)


def printable(text: str) -> str:
    """Return text with control characters escaped, so that a terminal cannot interpret them.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def encode_json(value: object) -> str:
    """Encode a value as one line of JSON for stdout.

    Non-ASCII characters stay readable, if stdout can encode them. Control characters are escaped.

    >>> encode_json({"image": "caf\\udce9\\x9b31m.jpg"})
    '{"image": "caf\\\\udce9\\\\u009b31m.jpg"}'
    """
    text = json.dumps(value, ensure_ascii=False)
    if not text.isprintable():
        text = "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=FAINT)


def bar(fraction: float, style: str, width: int = BAR_WIDTH) -> str:
    """Return a horizontal bar as markup, drawn in eighths of a character."""
    eighths = round(min(max(fraction, 0), 1) * width * 8)
    full, rest = divmod(eighths, 8)
    return f"[{style}]{'█' * full}{' ▏▎▍▌▋▊▉'[rest] if rest else ''}[/]"


def can_preview(console: Console) -> bool:
    """Return True for a terminal with 24-bit color, in which half blocks can show an image."""
    return console.is_terminal and console.color_system == "truecolor"


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
