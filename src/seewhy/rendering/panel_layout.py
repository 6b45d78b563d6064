"""Where the panels, texts and the color bar of a figure lie, in inches from its top left corner. No matplotlib."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from seewhy.errors import UsageError
from seewhy.rendering.panels import Panel, PanelGrid, SignalContent

Rectangle = tuple[float, float, float, float]  # left, top, width, height

GAP = 0.05  # between panels
EDGE = 0.02  # between texts or panels and the border of the figure
BAR = 0.09  # width of the color bar
MAX_BAR_HEIGHT = 2.2  # a longer bar is not easier to read
MAX_BAR_LINES = 3  # of the label of a color bar
UNBROKEN = 10  # characters of a word that is never broken
MIN_PANEL = 0.2  # width of a panel
LINE = 1.25 / 72  # height of a line of text per point of its size
CHARACTER = 0.53 / 72  # width of an average character per point of its size


@dataclass(frozen=True)
class PanelLayout:
    """The layout of a `PanelGrid`.

    Args:
        size: Width and height of the figure.
        lefts: Left edge of each column.
        tops: Top edge of each row.
        across: Width of each panel.
        heights: Height of each row.
        row_headers: Text of each row, with line breaks.
        column_headers: Text of each column, with line breaks.
        headers_bottom: Bottom edge of the headers of columns.
        bar: The color bar.
        bar_label: Its label, with line breaks.
        caption: Text below the panels, with line breaks.
        caption_top: Top edge of the caption.
    """

    size: tuple[float, float]
    lefts: tuple[float, ...]
    tops: tuple[float, ...]
    across: float
    heights: tuple[float, ...]
    row_headers: tuple[str, ...]
    column_headers: tuple[str, ...]
    headers_bottom: float
    bar: Rectangle | None
    bar_label: str
    caption: str
    caption_top: float

    def panel(self, row: int, column: int, aspect: float) -> Rectangle:
        """Return the place of a panel, centered in its row."""
        height = min(self.across * aspect, self.heights[row])
        return self.lefts[column], self.tops[row] + (self.heights[row] - height) / 2, self.across, height

    def fractions(self, place: Rectangle) -> Rectangle:
        """Return left, bottom, width and height of a rectangle as matplotlib needs them: fractions of the figure."""
        (left, top, width, height), (across, down) = place, self.size
        return left / across, 1 - (top + height) / down, width / across, height / down


def compute_layout(grid: PanelGrid, width: float, dpi: float, font_size: float) -> PanelLayout:
    """Return the layout of a figure of `width` inches. All columns have one width; the height follows from the panels.

    Edges are rounded to dots, so a PNG file at the figure's dpi shows the pixels of each panel unchanged.

    Raises:
        UsageError: The columns do not fit into `width`.
    """

    def dots(inches: float) -> float:
        return math.floor(inches * dpi + 0.5) / dpi

    columns, gap, line = max(map(len, grid.panels)), dots(GAP), dots(font_size * LINE)
    row_headers, bar_label = grid.row_headers, "" if grid.bar is None else grid.bar.label
    for _ in range(2):  # a second time with the lines that the texts at the sides need
        right = dots(EDGE if grid.bar is None else 2 * GAP + BAR + bar_text_width(bar_label, font_size))
        left = dots(EDGE + (line * count_lines(row_headers) + 0.04 if any(row_headers) else 0))
        across = math.floor((width - left - right - (columns - 1) * gap) / columns * dpi) / dpi
        if across < MIN_PANEL:
            raise UsageError(
                f"{columns} column{'s' * (columns > 1)} of panels in {width:g} inches: each needs at least {MIN_PANEL} "
                f"inches, and there are {max(across, 0):.2f}. Increase width, put more on rows, or select fewer."
            )
        heights = tuple(dots(row_aspect(row) * across) for row in grid.panels)
        texts = zip(grid.row_headers, heights, strict=bool(grid.row_headers)) if grid.row_headers else ()
        row_headers = tuple(fold(text, height, font_size) for text, height in texts)
        bar_label = "" if grid.bar is None else fold(grid.bar.label, sum(heights), font_size, MAX_BAR_LINES)
    column_headers = tuple(fold(text, across, font_size) for text in grid.column_headers)
    caption = fold(grid.caption, width - 2 * EDGE, font_size, limit=1000) if grid.caption else ""

    half_number = 0.0 if grid.bar is None else dots(font_size / 2 / 72)  # the last number of the bar extends beyond it
    headers_bottom = dots(EDGE + line * count_lines(column_headers)) if any(column_headers) else 0.0
    title = line + dots(EDGE) if grid.titles else 0.0
    start = y = max(headers_bottom + dots(0.03) if headers_bottom else dots(EDGE), half_number)
    tops = []
    for row, height in zip(grid.panels, heights, strict=True):
        tops.append(y + title)
        y = tops[-1] + height + dots(foot_height(row, font_size)) + gap
    bottom = tops[-1] + heights[-1]
    bar = None
    if grid.bar is not None:
        space = bottom - (start + title)
        height = dots(min(space, MAX_BAR_HEIGHT))
        at = left + columns * (across + gap) + dots(GAP)
        bar = (at, start + title + dots((space - height) / 2), dots(BAR), height)
    end = max(y - gap, bottom + half_number) + dots(EDGE)
    caption_top = end + dots(0.04)
    if caption:
        end = caption_top + line * count_lines((caption,)) + dots(EDGE)
    lefts = tuple(left + column * (across + gap) for column in range(columns))
    return PanelLayout(
        (dots(width), dots(end)), lefts, tuple(tops), across, heights, row_headers, column_headers, headers_bottom, bar,
        bar_label, caption, caption_top,
    )  # fmt: skip


def row_aspect(row: Sequence[Panel | None]) -> float:
    """Return the height of a row divided by the width of a panel."""
    return max((panel.content.aspect for panel in row if panel is not None), default=1.0)


def foot_height(row: Sequence[Panel | None], font_size: float) -> float:
    """Return the height below a row for the numbers of its horizontal axes, which only signals have."""
    has_axis = any(panel is not None and isinstance(panel.content, SignalContent) for panel in row)
    return (font_size - 1) * LINE + 0.05 if has_axis else 0.0


def bar_text_width(label: str, font_size: float) -> float:
    """Return the width at the right of a color bar that its numbers and its label need."""
    return (font_size - 1) * 6.6 * CHARACTER + font_size * LINE * count_lines((label,)) + 0.04


def count_lines(texts: Sequence[str]) -> int:
    """Return the largest number of lines of several texts."""
    return max((text.count("\n") + 1 for text in texts if text), default=0)


def fold(text: str, inches: float, font_size: float, limit: int = 2) -> str:
    """Break each line of a text that is longer than `inches`; the rest after `limit` lines becomes "...".

    >>> fold("a very long class name of an animal", 0.8, 8)
    'a very long\\nclass...'
    """
    longest_word = max(map(len, text.split()), default=0)
    length = max(4, min(longest_word, UNBROKEN), int(inches / (font_size * CHARACTER)))
    parts = [textwrap.wrap(part, length, max_lines=limit, placeholder="...") or [""] for part in text.split("\n")]
    return "\n".join(line for part in parts for line in part)
