"""Panels as arrays, their layout, and their drawing with matplotlib."""

from __future__ import annotations

import io
import math
import threading
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from seewhy import OverlayStyle
from seewhy.errors import UnknownName, UsageError
from seewhy.images.view import View
from seewhy.rendering import colors as color_tables
from seewhy.rendering.draw_panel import draw_panel
from seewhy.rendering.overlays import draw_overlay, scale_photo
from seewhy.rendering.panel_layout import compute_layout, fold
from seewhy.rendering.panels import (
    ColorBar,
    Panel,
    PanelColors,
    PanelGrid,
    PhotoContent,
    SignalContent,
    check_interpolation,
    crop_photo,
)
from seewhy.rendering.paper_figure import check_axes, color_table, colormap, draw_grid

VIEW = View(photo_size=(60, 90), input_size=(32, 32), box=(20.0, 5.0, 70.0, 55.0))
VALUES = np.array([[0.0, 1.0, 2.0], [4.0, 1.5, 0.5], [-3.0, 0.2, 3.0]], np.float32)


def photo() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def content(style: OverlayStyle | None = None, **fields: object) -> PhotoContent:
    """Return a map over a photo of noise."""
    style = style or OverlayStyle()
    colors = PanelColors(color_tables.table(style.colors), style)
    values = {"values": VALUES, "maximum": 4.0, "colors": colors, **fields}
    return PhotoContent(photo(), VIEW, VIEW, **values)  # type: ignore[arg-type]


def rasterize(panel: PhotoContent) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Draw a panel with matplotlib at one dot per pixel of the photo."""
    height, width = panel.photo.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_panel(axes, Panel(panel), (width / 100, height / 100), 100, 8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.mark.parametrize(
    "style",
    [
        OverlayStyle(),
        OverlayStyle("blend", "viridis", 0.5),
        OverlayStyle("fade", "turbo", 1.0),
        OverlayStyle(opacity=0.0),
    ],
)
def test_matplotlib_draws_the_pixels_of_the_overlay(style: OverlayStyle) -> None:
    own_photo, box = scale_photo(photo(), VIEW, None)
    heatmap = np.clip(VIEW.to_photo(np.maximum(VALUES, 0), (60, 90)) / 4, 0, 1)
    expected = np.asarray(draw_overlay(own_photo, heatmap, style, box)).astype(int)
    drawn = rasterize(content(style, values=np.maximum(VALUES, 0))).astype(int)
    assert np.abs(drawn - expected).max() <= 2  # of 255: two libraries round the blended color
    assert style.opacity == 0 or np.abs(drawn - np.asarray(own_photo).astype(int)).max() > 30


def test_nearest_shows_the_cells() -> None:
    layer = content(OverlayStyle("blend", opacity=1.0), interpolation="nearest").layer_at((60, 90))
    table = color_tables.table("inferno")
    for row in range(3):
        for column in range(3):
            top, left = 5 + row * 50 // 3, 20 + column * 50 // 3
            cell = layer[top + 2 : top + 15, left + 2 : left + 15]
            level = math.floor(max(float(VALUES[row, column]), 0) / 4 * 255 + 0.5)
            assert (cell == (*table[level], 255)).all()
    assert not layer[:5].any() and not layer[:, 70:].any()  # outside the input


def test_signed_colors_are_symmetric_and_transparent_at_zero() -> None:
    colors = PanelColors(color_table(None, "inferno", signed=True), OverlayStyle(opacity=1.0), signed=True)
    negative, zero, positive = colors.paint(np.array([-2, 0, 2], np.float32), 2.0)
    assert zero[3] == 0 and negative[3] == positive[3] == 255
    assert negative[2] > negative[0] and positive[0] > positive[2]  # blue and red
    assert colors.bar(2.0)[0, 0].tolist() == positive.tolist() and colors.bar(2.0)[-1, 0].tolist() == negative.tolist()
    assert not colors.paint(np.full(3, np.nan, np.float32), 1.0)[:, 3].any()
    assert not colors.paint(np.ones(3, np.float32), 0.0).any()


def test_a_cropped_photo_keeps_its_pixels_and_its_map() -> None:
    pixels, view, seen, origin = crop_photo(photo(), VIEW, VIEW)
    assert origin == (20, 5) and (pixels == photo()[5:55, 20:70]).all() and view == seen
    np.testing.assert_allclose(view.to_photo(VALUES, (50, 50)), VIEW.to_photo(VALUES, (60, 90))[5:55, 20:70], atol=1e-6)


def test_color_tables_are_those_of_seewhy_and_of_matplotlib() -> None:
    assert (color_table(None, "jet", signed=False) == color_tables.table("jet")).all()
    assert (color_table("cividis", "jet", signed=False) == color_tables.table("cividis")).all()
    assert (color_table(colormap("magma"), "jet", signed=False) == color_tables.table("magma")).all()
    assert color_table("coolwarm", "jet", signed=True)[0].tolist() == [59, 76, 192]
    with pytest.raises(UnknownName, match="did you mean 'coolwarm'"):
        color_table("colwarm", "jet", signed=False)
    with pytest.raises(UsageError, match="colors=3: pass the name"):
        color_table(3, "jet", signed=False)
    with pytest.raises(UnknownName, match="did you mean 'nearest'"):
        check_interpolation("nearst")


# Layout


def grid(columns: int, rows: int = 1, **fields: object) -> PanelGrid:
    return PanelGrid(((Panel(content()),) * columns,) * rows, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("dpi", [72, 150, 300, 601])
@pytest.mark.parametrize("has_bar", [False, True])
def test_nothing_overlaps_or_extends_beyond_the_figure(dpi: int, has_bar: bool) -> None:
    bar = ColorBar(np.zeros((256, 1, 4), np.uint8), 0, 1, "x") if has_bar else None
    fields = {"row_headers": ("a long name of a class of animals",) * 2, "column_headers": ("a\nb",) * 3}
    layout = compute_layout(grid(3, 2, bar=bar, caption="word " * 50, titles=True, **fields), 4.0, dpi, 8)
    places = [layout.panel(row, column, 60 / 90) for row in range(2) for column in range(3)]
    places += [layout.bar] if layout.bar else []
    for number, (left, top, width, height) in enumerate(places):
        assert left > 0.1 and top >= layout.headers_bottom
        assert left + width <= layout.size[0] and top + height <= layout.caption_top
        for other in places[number + 1 :]:
            assert left + width <= other[0] or other[0] + other[2] <= left or top + height <= other[1]
        assert abs(left * dpi - round(left * dpi)) < 1e-6  # at dots
    assert layout.caption_top < layout.size[1] and layout.caption.count("\n") > 1
    assert layout.row_headers[0].count("\n") == 1 and abs(layout.size[0] - 4.0) < 1 / dpi


def test_the_label_of_a_low_color_bar_is_folded() -> None:
    bar = ColorBar(np.zeros((256, 1, 4), np.uint8), 0, 1, "fraction of maximum")
    layout = compute_layout(grid(6, bar=bar), 6.9, 300, 8)
    assert layout.bar_label == "fraction\nof maximum" and layout.bar is not None
    assert layout.bar[0] + layout.bar[2] + 0.5 < layout.size[0]  # numbers and two lines
    axes = draw_grid(grid(6, bar=bar), 6.9, 300, 8).axes[-1]
    assert axes.get_ylabel() == layout.bar_label and 2 <= len(axes.get_yticks()) <= 4
    assert compute_layout(grid(1, bar=bar), 3.3, 300, 8).bar_label == "fraction of maximum"


def test_too_many_columns_are_one_line() -> None:
    with pytest.raises(
        UsageError, match=r"20 columns of panels in 3\.3 inches: each needs at least 0\.2 inches, and there are 0\.11"
    ):
        compute_layout(grid(20), 3.3, 300, 8)


def test_text_is_folded_at_words() -> None:
    assert fold("Egyptian cat", 10, 8) == "Egyptian cat"
    assert fold("Egyptian cat", 0.6, 8) == "Egyptian\ncat"
    assert fold("a" * 100, 0.6, 8).count("\n") == 1 and fold("a\nb", 10, 8) == "a\nb"


# Figures


def test_saving_does_not_change_the_settings_of_matplotlib(tmp_path: Path) -> None:
    figure = draw_grid(grid(1), 2.0, 100, 8)
    before = dict(mpl.rcParams)
    threads = [
        threading.Thread(target=draw_grid(grid(1), 1, 72, 8).savefig, args=(tmp_path / f"{n}.svg",)) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(mpl.rcParams) == before
    with pytest.raises(ValueError, match="not supported"):
        figure.savefig(tmp_path / "a.abc")
    assert dict(mpl.rcParams) == before
    first, second = tmp_path / "a.pdf", tmp_path / "b.pdf"
    figure.savefig(first)
    figure.savefig(second)
    assert first.read_bytes() == second.read_bytes()  # no date


def test_a_figure_shows_itself_in_notebooks() -> None:
    figure = draw_grid(grid(1), 2.0, 300, 8)
    data = figure._repr_png_()
    assert Image.open(io.BytesIO(data)).size[0] == 300  # 2 inches at the resolution of screens
    assert figure.axes[0]._repr_png_() == data  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Figure(), r"ax is a figure with no axes: use fig, ax = plt.subplots\(\)"),
        (3, "ax is 3: pass one Axes of matplotlib"),
        (Figure().subplots(1, 2), r"ax is an array of shape \(2,\): pass one Axes"),
        (Figure().add_subplot(projection="polar"), "ax has the projection 'polar': pass axes without a projection"),
    ],
)
def test_what_is_not_an_axes_is_one_line(value: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_axes(value)


def test_figures_and_removed_axes_are_rejected() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    with pytest.raises(UsageError, match=r"a figure with 1 axes: pass one of them, such as figure.axes\[0\]"):
        check_axes(figure)
    axes.remove()
    with pytest.raises(UsageError, match="removed from its figure"):
        check_axes(axes)


def test_a_signal_is_drawn_as_curves() -> None:
    signal = np.sin(np.arange(200, dtype=np.float32) / 9)[None].repeat(2, 0)
    signal[1, 50] = np.nan
    values = np.linspace(0, 1, 200, dtype=np.float32)
    colors = PanelColors(color_tables.table("inferno"), OverlayStyle())
    axes = Figure(dpi=100).add_subplot()
    draw_panel(axes, Panel(SignalContent(signal, values, 1.0, colors, (20, 60)), "$title_", "blank"), (4, 2), 100, 8)
    assert len(axes.lines) == 3  # two curves and the line between them
    assert axes.get_xlim() == (0, 200) and axes.get_title() == "$title_"
    (image,) = axes.images
    assert image.get_array().shape == (1, 400, 4)
