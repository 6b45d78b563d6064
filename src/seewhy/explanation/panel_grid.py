"""The panels of a figure in rows and columns, their scale and color bar, and the checks of its arguments."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping, Sequence
from itertools import product
from numbers import Real

from seewhy.errors import UsageError, describe_argument
from seewhy.explanation.data import ExplanationData, require_single_image
from seewhy.explanation.panel_maps import PanelMap, PanelSettings, shared_peak
from seewhy.explanation.panel_selection import SelectedMap, Selection, selected_images
from seewhy.explanation.selection import fields_for_image
from seewhy.rendering.overlays import OverlayStyle, as_style
from seewhy.rendering.panels import ColorBar, Panel, PanelColors, PanelGrid

ONE_COLUMN, TWO_COLUMNS = 3.3, 6.9  # inches: common widths of papers with two columns
MAX_ONE_COLUMN = 3  # columns of panels in the width of one column
MIN_PLAIN, MAX_PLAIN = 0.05, 10_000  # of a color bar in the units of a method; others have an exponent
MAX_WIDTH, MAX_DPI, MAX_FONT_SIZE = 100, 2400, 100


def panel_settings(
    style: OverlayStyle | None,
    scale: str | float | None,
    signed: bool,
    interpolation: str,
    crop: bool,
    box: float | None,
    depth: int | None,
) -> PanelSettings:
    """Return the settings of the panels; the scale is that of the style unless it is given."""
    checked = as_style(style)
    return PanelSettings(checked, checked.scale if scale is None else scale, signed, interpolation, crop, box, depth)


def require_matplotlib() -> None:
    """Import matplotlib. Raises UsageError if it is not installed."""
    try:
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        raise UsageError("figures need matplotlib, which is not installed: pip install 'seewhy[figures]'") from None


def select_image(e: ExplanationData, image: int | None) -> ExplanationData:
    """Return the explanation of one image. Raises ChoiceError if there are several and none is selected."""
    if image is None:
        require_single_image(e, "plot")
        return e
    (index,) = selected_images(e, [image])
    return e if len(e) == 1 else dataclasses.replace(e, **fields_for_image(e, index))


def build_grid(
    selection: Selection,
    rows: Sequence[str],
    columns: Sequence[str],
    settings: PanelSettings,
    palette: PanelColors,
    names: Mapping[str, str],
) -> tuple[PanelGrid, list[PanelMap], float | None]:
    """Return the panels of a figure in rows and columns, their maps, and the shared maximum (None: each map has its own)."""
    places = [
        [selection.at({**row, **column}) for column in indices(selection, columns)] for row in indices(selection, rows)
    ]
    table = [[PanelMap(one.e, one.key, settings) if one.key else None for one in row] for row in places]
    maps = [one for row in table for one in row if one]
    maximum = shared_maximum(maps, settings)
    # A target such as the most likely class is another class in each image: then each panel has its name as a title.
    own_names = selection.varies_by_image
    row_headers = [header(row[0], rows, names, own_names) for row in places]
    column_headers = [header(place, columns, names, own_names) for place in places[0]]
    panels: list[tuple[Panel | None, ...]] = []
    for row, row_maps in zip(places, table, strict=True):
        texts = [names.get(one.names["targets"], one.names["targets"]) if own_names else "" for one in row]
        pairs = zip(row_maps, texts, strict=True)
        panels.append(tuple(make_panel(one, maximum, palette, text) if one else None for one, text in pairs))
    return PanelGrid(tuple(panels), tuple(row_headers), tuple(column_headers), titles=own_names), maps, maximum


def make_panel(one: PanelMap, maximum: float | None, palette: PanelColors, title: str) -> Panel:
    """Return one panel; without a shared maximum, its last color is at its maximum."""
    return Panel(one.content(one.peak if maximum is None else maximum, palette), title, one.mark)


def indices(selection: Selection, dimensions: Sequence[str]) -> list[dict[str, int]]:
    """Return every combination of indices along some dimensions, the last one fastest."""
    ranges = [range(selection.sizes[name]) for name in dimensions]
    return [dict(zip(dimensions, combination, strict=True)) for combination in product(*ranges)]


def header(place: SelectedMap, dimensions: Sequence[str], names: Mapping[str, str], own_names: bool) -> str:
    """Return the header of the row or column of a place: a line for each dimension; targets only without `own_names`."""
    texts = [place.names[dimension] for dimension in dimensions if dimension != "targets" or not own_names]
    return "\n".join(names.get(text, text) for text in texts)


def shared_maximum(maps: Sequence[PanelMap], settings: PanelSettings) -> float | None:
    """Return the value of the last color if it is the same for all panels. Raises UsageError for several methods."""
    if not isinstance(settings.scale, str):
        return float(settings.scale)
    if settings.scale == "own":
        return None
    if len(methods := list(dict.fromkeys(one.key[0] for one in maps))) > 1:
        raise UsageError(
            f"scale='shared' with {' and '.join(methods)}: methods have different units. Draw one figure for each method, or "
            "use scale='own'."
        )
    return shared_peak(maps)


def number_of(scale: str | float) -> float | None:
    return None if isinstance(scale, str) else float(scale)


def make_bar(
    palette: PanelColors, maps: Sequence[PanelMap], maximum: float | None, names: Mapping[str, str]
) -> ColorBar:
    """Return the color bar: fractions of each map's maximum, or one scale in the units of the method."""
    if maximum is None:
        label = "fraction of max. |value|" if palette.signed else "fraction of maximum"
        return ColorBar(palette.bar(1.0), -1.0 if palette.signed else 0.0, 1.0, label)
    label, high = names.get(maps[0].key[0], maps[0].key[0]), maximum if maximum > 0 else 1.0
    colors = palette.bar(high)
    if not MIN_PLAIN <= high < MAX_PLAIN:  # numbers such as 2.5 are shorter than 0.00025
        exponent = math.floor(math.log10(high))
        label, high = f"{label} (1e{exponent})", high / 10.0**exponent
    return ColorBar(colors, -high if palette.signed else 0.0, high, label)


def default_width(selection: Selection, columns: Sequence[str]) -> float:
    return ONE_COLUMN if len(indices(selection, columns)) <= MAX_ONE_COLUMN else TWO_COLUMNS


def check_sizes(width: object, dpi: object, font_size: object) -> None:
    """Raise UsageError if a size is not a positive number, or too large for a figure."""
    limits = (("width", width, MAX_WIDTH, "inches"), ("dpi", dpi, MAX_DPI, "dots per inch"))
    for name, value, limit, unit in (*limits, ("font_size", font_size, MAX_FONT_SIZE, "points")):
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= limit:
            raise UsageError(
                f"{name}={describe_argument(value)}: pass a number of {unit}, above 0 and at most {limit}."
            )


def check_others(others: Sequence[object]) -> list[ExplanationData]:
    """Raise UsageError for anything that is not an explanation."""
    for one in others:
        if not isinstance(one, ExplanationData):
            raise UsageError(
                f"figure({describe_argument(one)}): pass explanations, such as first.figure(second, third)."
            )
    return [one for one in others if isinstance(one, ExplanationData)]


def check_names(names: object) -> Mapping[str, str]:
    """Return the user's texts for headers; {} for None."""
    if names is None:
        return {}
    if not isinstance(names, Mapping):
        raise UsageError(f'names={describe_argument(names)}: pass a dict, such as {{"gradcam": "Grad-CAM"}}.')
    return {str(name): str(text) for name, text in names.items()}
