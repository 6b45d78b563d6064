"""What a person reads in the terminal: tables, bars and a small preview. Takes plain values; knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table

BAR = 24
ACCENT, FAINT = "dark_orange3", "bright_black"


@dataclass(frozen=True)
class LayerRow:
    """A line of the table of layers; `share` of positive evidence is None where the map is all zeros."""

    name: str
    grid: str
    share: float | None
    flags: tuple[str, ...] = ()
    suggested: bool = False


def make_console(*, stderr: bool = False) -> Console:
    """A console that shows text as it is; wide enough for any table where no terminal limits it."""
    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 160
    return console


def print_top(console: Console, top: Sequence[tuple[int, str, float]], asked: Sequence[int]) -> None:
    """The top classes with their probabilities; those that are explained are marked."""
    table = plain_table()
    table.add_column("class", justify="right", style=FAINT)
    table.add_column("name")
    table.add_column("probability", justify="right")
    table.add_column("")
    for index, name, chance in top:
        style = ACCENT if index in asked else ""
        table.add_row(
            str(index), f"[{style or 'default'}]{escape(name)}[/]", f"{chance:.1%}", bar(chance, style or FAINT)
        )
    console.print(table)


def print_layers(console: Console, rows: Sequence[LayerRow], target: str, method: str) -> None:
    """The table of layers in execution order: how much of a layer's evidence speaks for the target."""
    console.print(
        f"{escape(method)} for {escape(target)}: the share of each layer's evidence that speaks for it", style=FAINT
    )
    table = plain_table()
    table.add_column("", justify="right", style=FAINT)
    # A name is there to be copied, so it is never cut.
    table.add_column("layer", no_wrap=True, min_width=max(len(row.name) for row in rows))
    table.add_column("grid", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=12)
    table.add_column("", style=FAINT)
    for number, row in enumerate(rows, 1):
        share = "" if row.share is None else f"{row.share:.0%}"
        remarks = [*(["suggested"] if row.suggested else []), *row.flags]
        name = f"[{ACCENT}]{escape(row.name)}[/]" if row.suggested else escape(row.name)
        table.add_row(str(number), name, row.grid, share, bar(row.share or 0, FAINT, 12), ", ".join(remarks))
    console.print(table)


def print_methods(console: Console, cards: Sequence[dict[str, Any]], *, full: bool) -> None:
    """The methods with formula and paper, and what to expect of each; `full`: everything on their cards."""
    for card in cards:
        name, formula, paper = (escape(card[key]) for key in ("name", "formula", "paper"))
        console.print(f"[bold {ACCENT}]{name}[/]  {formula}  [{FAINT}]{paper}[/]", soft_wrap=True)
        console.print(f"    {escape(card['expect'])} [{FAINT}]Cost: {escape(card['cost'])}.[/]", soft_wrap=True)
        if full:
            details = {
                "settings": ", ".join(card["settings"]), "needs": ", ".join(card["needs"]), "gives": card["answers"],
                "works on": card["works_on"], "decided by": card["source"], "pitfalls": card["pitfalls"],
            }  # fmt: skip
            for word, text in details.items():
                if text:
                    console.print(f"    [{FAINT}]{word}:[/] {escape(text)}", soft_wrap=True)
            console.print(f"\n{escape(card['doc'])}", style=FAINT)


def print_whole(
    console: Console,
    facts: Sequence[tuple[str, str]],
    said: Sequence[str],
    outliers: Sequence[tuple[str, float, float, float, str]],
    page: str,
) -> None:
    """What was found in a whole data set: facts, findings, and the pictures that look farthest out (id, deviations, border,
    corner, predicted)."""

    def shown(text: str) -> str:
        return escape(printable(text))

    console.print("  ".join(f"[{FAINT}]{shown(name)}[/] {shown(text)}" for name, text in facts), soft_wrap=True)
    console.print()
    for text in said:
        console.print(f"[bold {ACCENT}]{shown(text)}[/]", soft_wrap=True)
    if outliers:
        console.print("\nfarthest out, by their heat at the border or in a corner", style=FAINT)
        table = plain_table()
        for title, justify in (("picture", "left"), ("deviations", "right"), ("border", "right"), ("corner", "right")):
            table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("predicted")
        for name, score, border, corner, predicted in outliers:
            table.add_row(shown(name), f"{score:.1f}", f"{border:.2f}", f"{corner:.2f}", shown(predicted))
        console.print(table)
    console.print(f"\nAll of it in a browser: [bold]{shown(page)}[/]", soft_wrap=True)


def printable(text: str) -> str:
    """Text with escapes for what a terminal would take for a command: `\\x1b`.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=FAINT)


def bar(share: float, style: str, width: int = BAR) -> str:
    """A bar of eighths of a character."""
    eighths = round(min(max(share, 0), 1) * width * 8)
    full, rest = divmod(eighths, 8)
    return f"[{style}]{'█' * full}{' ▏▎▍▌▋▊▉'[rest] if rest else ''}[/]"


def can_preview(console: Console) -> bool:
    """Whether this is a terminal with true colours, where half blocks make a picture."""
    return console.is_terminal and console.color_system == "truecolor"


def print_preview(console: Console, picture: Image.Image, columns: int = 48) -> None:
    """A picture in half-block characters: two pixels to a character, one its ink and one its paper."""
    columns = min(columns, console.width - 2, picture.width)
    rows = max(1, round(columns * picture.height / picture.width / 2))
    pixels = np.asarray(picture.convert("RGB").resize((columns, 2 * rows), Image.Resampling.LANCZOS))
    segments = []
    for row in range(rows):
        for column in range(columns):
            style = Style(color=hex_of(pixels[2 * row, column]), bgcolor=hex_of(pixels[2 * row + 1, column]))
            segments.append(Segment("▀", style))
        segments.append(Segment.line())
    console.print(Segments(segments))


def hex_of(pixel: NDArray[np.uint8]) -> str:
    return f"#{bytes(pixel).hex()}"
