"""Figures of matplotlib: panels, color bar and texts. Importing this module imports matplotlib, but not pyplot."""

from __future__ import annotations

import dataclasses
import io
import os
import threading
from pathlib import Path
from typing import IO, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure, FigureBase

from seewhy.errors import UnknownName, UsageError, describe_argument
from seewhy.rendering import colors as color_tables
from seewhy.rendering.draw_panel import draw_bar, draw_panel, plain_text
from seewhy.rendering.overlays import Bytes
from seewhy.rendering.panel_layout import (
    BAR,
    EDGE,
    GAP,
    MAX_BAR_LINES,
    MIN_PANEL,
    bar_text_width,
    compute_layout,
    fold,
)
from seewhy.rendering.panels import ColorBar, Panel, PanelGrid

# Text stays text in SVG. PDF gets TrueType fonts: some publishers reject Type 3, the default.
FILE_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "seewhy",
}
DIVERGING = "RdBu_r"  # blue: negative, white: zero, red: positive
NO_DATE = {"pdf": "CreationDate", "svg": "Date"}  # files depend on their content only
SCREEN_DPI = 150  # of the image in a notebook
_SETTINGS_LOCK = threading.Lock()  # the settings of matplotlib are global


class PaperFigure(Figure):
    """A figure of matplotlib that saves text as text, shows itself in notebooks, and has a caption."""

    caption: str = ""
    latex_caption: str = ""

    def savefig(self, fname: str | os.PathLike[str] | IO[Any], **settings: Any) -> None:
        """Save the figure as `Figure.savefig` does, with text as text in SVG and PDF, and without the date.

        Args:
            fname: Path or file.
            settings: As for `Figure.savefig`. The default of `dpi` is that of the figure.
        """
        ending = Path(fname).suffix[1:] if isinstance(fname, (str, os.PathLike)) else ""
        kind = str(settings.get("format") or ending).lower()
        if kind in NO_DATE:
            settings["metadata"] = {NO_DATE[kind]: None, **(settings.get("metadata") or {})}
        with _SETTINGS_LOCK, mpl.rc_context(FILE_SETTINGS):
            super().savefig(fname, **settings)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=min(SCREEN_DPI, self.dpi))
        return buffer.getvalue()


class PaperAxes(Axes):
    """Axes that show their figure in notebooks."""

    def _repr_png_(self) -> bytes | None:
        figure = self.figure
        return figure._repr_png_() if isinstance(figure, PaperFigure) else None


def check_axes(axes: object) -> Axes:
    """Return axes of a figure in which images can be drawn. Raises UsageError for anything else."""
    if isinstance(axes, FigureBase):
        count = len(Figure.get_axes(axes)) if isinstance(axes, Figure) else 0
        advice = "use fig, ax = plt.subplots()" if not count else "pass one of them, such as figure.axes[0]"
        raise UsageError(f"ax is a figure with {count or 'no'} axes: {advice}.")
    if not isinstance(axes, Axes):
        kind = f"an array of shape {axes.shape}" if isinstance(axes, np.ndarray) else describe_argument(axes)
        raise UsageError(f"ax is {kind}: pass one Axes of matplotlib, such as that of fig, ax = plt.subplots().")
    if axes.name != "rectilinear":
        raise UsageError(f"ax has the projection {axes.name!r}: pass axes without a projection.")
    if axes.get_figure() is None:
        raise UsageError("ax was removed from its figure: pass axes of a figure.")
    return axes


def color_table(colors: object, default: str, *, signed: bool) -> Bytes:
    """Return the colors (256, 3) of a name of seewhy or matplotlib, or of a Colormap.

    >>> color_table("coolwarm", "inferno", signed=True).shape
    (256, 3)
    """
    if colors is None:
        colors = DIVERGING if signed else default
    if isinstance(colors, str):
        if colors in color_tables.tables():
            return color_tables.table(colors)
        if colors not in mpl.colormaps:
            hint = "Choose a color table of seewhy or matplotlib, such as viridis."
            raise UnknownName("color table", colors, [*color_tables.tables(), *mpl.colormaps], hint=hint)
        colors = mpl.colormaps[colors]
    if not isinstance(colors, Colormap):
        raise UsageError(
            f"colors={describe_argument(colors)}: pass the name of a color table, or a matplotlib Colormap."
        )
    table: Bytes = np.rint(colors(np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)
    return table


def colormap(name: str) -> ListedColormap:
    """Return a color table of seewhy as a Colormap for your own plots.

    >>> colormap("inferno").N
    256
    """
    return ListedColormap(color_tables.table(name) / 255, name=f"seewhy.{name}")


def draw_on_axes(axes: Axes, panel: Panel, bar: ColorBar | None, dpi: float, font_size: float) -> None:
    """Draw one panel into axes of any figure; the color bar takes a part of their right side."""
    if bar is not None:
        place = axes.get_position(original=True)
        total, height = size_in_inches(axes)
        height = min(height, total * panel.content.aspect)
        label = fold(bar.label, height, font_size, MAX_BAR_LINES)
        needed = 2 * GAP + BAR + bar_text_width(label, font_size)
        if total < needed + MIN_PANEL:
            raise UsageError(
                f"these axes are {total:.2f} inches wide, too narrow for a panel with a color bar: make the figure larger, or "
                "pass color_bar=False."
            )
        figure = axes.get_figure(root=True)
        if figure is None or figure.get_layout_engine() is None:  # a layout engine makes room itself
            kept = 1 - needed / total
            axes.set_position((place.x0, place.y0, place.width * kept, place.height))
        width = size_in_inches(axes)[0]
        place_of_bar = axes.inset_axes((1 + 2 * GAP / width, 0, BAR / width, 1))
        draw_bar(place_of_bar, dataclasses.replace(bar, label=label), height, font_size)
    draw_panel(axes, panel, size_in_inches(axes), dpi, font_size)


def size_in_inches(axes: Axes) -> tuple[float, float]:
    """Return the width and height of axes in inches."""
    box = axes.get_window_extent()
    figure = axes.get_figure(root=True)
    assert figure is not None
    return box.width / figure.dpi, box.height / figure.dpi


def draw_grid(grid: PanelGrid, width: float, dpi: float, font_size: float) -> PaperFigure:
    """Draw panels in rows and columns, with headers, color bar and caption, as a new figure of `width` inches."""
    layout = compute_layout(grid, width, dpi, font_size)
    across, down = layout.size
    figure = PaperFigure(figsize=layout.size, dpi=dpi, facecolor="white")
    for row, panels in enumerate(grid.panels):
        for column, panel in enumerate(panels):
            if panel is not None:
                place = layout.panel(row, column, panel.content.aspect)
                axes = figure.add_axes(PaperAxes(figure, layout.fractions(place)))
                draw_panel(axes, panel, place[2:], dpi, font_size)
    for left, text in zip(layout.lefts, layout.column_headers, strict=False):
        x, y = (left + layout.across / 2) / across, 1 - layout.headers_bottom / down
        plain_text(figure.text(x, y, text, ha="center", va="bottom", fontsize=font_size))
    for top, height, text in zip(layout.tops, layout.heights, layout.row_headers, strict=False):
        x, y = EDGE / across, 1 - (top + height / 2) / down
        plain_text(figure.text(x, y, text, ha="left", va="center", rotation=90, fontsize=font_size))
    if grid.bar is not None and layout.bar is not None:
        axes = figure.add_axes(PaperAxes(figure, layout.fractions(layout.bar)))
        draw_bar(axes, dataclasses.replace(grid.bar, label=layout.bar_label), layout.bar[3], font_size)
    if layout.caption:
        x, y = EDGE / across, 1 - layout.caption_top / down
        plain_text(figure.text(x, y, layout.caption, ha="left", va="top", fontsize=font_size, linespacing=1.15))
    return figure
