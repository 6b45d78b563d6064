"""Panels of a figure as arrays: a photo or a signal, and the colors and opacity of a map over it. No matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.errors import UnknownName
from seewhy.images.view import View
from seewhy.rendering.overlays import Box, Bytes, Floats, OverlayStyle, desaturate, opacity_table, scale_photo, to_bytes

INTERPOLATIONS = ("linear", "nearest")


@dataclass(frozen=True, eq=False)
class PanelColors:
    """How the values of a map become colors.

    Args:
        table: Colors (256, 3) of the values from `-maximum`, or from 0 for positive maps, to `maximum`.
        style: Opacity and blending.
        signed: True if negative values are drawn too, in the lower half of `table`.
    """

    table: Bytes
    style: OverlayStyle
    signed: bool = False

    def paint(self, values: Floats, maximum: float) -> Bytes:
        """Return the colors and opacity (*shape, 4) of values (*shape); transparent without a positive `maximum`.

        >>> gray = PanelColors(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1), OverlayStyle(opacity=1.0), signed=True)
        >>> gray.paint(np.array([-2.0, 0.0, 2.0], np.float32), 2.0).tolist()
        [[0, 0, 0, 255], [128, 128, 128, 0], [255, 255, 255, 255]]
        """
        if not maximum > 0:
            return np.zeros((*values.shape, 4), np.uint8)
        relative = values / np.float32(maximum)
        levels = to_bytes(relative)
        strength = to_bytes(np.abs(relative)) if self.signed else levels
        if self.signed:
            levels = to_bytes(np.nan_to_num(relative, nan=0.0) * 0.5 + 0.5)
        return np.concatenate([self.table[levels], opacity_table(self.style)[strength][..., None]], -1)

    def bar(self, maximum: float) -> Bytes:
        """Return the colors and opacity (256, 1, 4) of a color bar, the highest value first."""
        low = -maximum if self.signed else 0.0
        return self.paint(np.linspace(maximum, low, 256, dtype=np.float32)[:, None], maximum)


@final
@dataclass(frozen=True, eq=False)
class PhotoContent:
    """A map over a photo.

    Args:
        photo: Pixels (H, W, 3) of the photo.
        view: The part of the photo that the map `values` covers.
        seen: The part that the network sees; the rest of the photo is dimmed.
        values: The map (h, w), in any units; negative values are drawn if `colors` are signed.
        maximum: The value that gets the last color; 0: the map is not drawn.
        colors: The colors of the map.
        interpolation: "linear" between the centers of the cells, or "nearest": each cell has one color.
        origin: Left and top of `photo` in a larger photo.
        box: Left, top, right and bottom of a rectangle to draw, in pixels of the larger photo.
    """

    photo: Bytes
    view: View
    seen: View
    values: Floats
    maximum: float
    colors: PanelColors
    interpolation: str = "linear"
    origin: tuple[int, int] = (0, 0)
    box: Box | None = None

    @property
    def aspect(self) -> float:
        """Height divided by width."""
        height, width = self.photo.shape[:2]
        return float(height / width)

    def photo_at(self, longest: int | None) -> Bytes:
        """Return the photo, dimmed outside the part that the network sees, with at most `longest` pixels a side.

        As in `draw_overlay`, its colors fade below the map.
        """
        photo = scale_photo(self.photo, self.seen, longest)[0]
        if self.colors.style.mode == "fade":
            opacity = self.layer_at((photo.height, photo.width))[..., 3]
            photo = desaturate(photo, Image.fromarray(np.ascontiguousarray(opacity)))
        return np.asarray(photo)

    def layer_at(self, size: tuple[int, int]) -> Bytes:
        """Return the colors and opacity of the map at `size` (height, width) pixels of the entire photo."""
        sample = self.view.to_photo if self.interpolation == "linear" else self._cells_at
        painted = self.colors.paint(sample(self.values, size), self.maximum)
        left, top, right, bottom = self.seen.visible_box_at(size)
        layer = np.zeros_like(painted)
        layer[top:bottom, left:right] = painted[top:bottom, left:right]
        return layer

    def _cells_at(self, values: Floats, size: tuple[int, int]) -> Floats:
        left, top, right, bottom = self.view.box
        rows = nearest_cells(values.shape[0], size[0], self.view.photo_size[0], top, bottom)
        columns = nearest_cells(values.shape[1], size[1], self.view.photo_size[1], left, right)
        return values[rows[:, None], columns]


@final
@dataclass(frozen=True, eq=False)
class SignalContent:
    """A map behind the curves of a signal.

    Args:
        signal: The channels (C, L).
        values: The map at each sample (L,).
        maximum: As for `PhotoContent`.
        colors: The colors of the map.
        box: First sample and the one after the last of a range to mark.
    """

    signal: Floats
    values: Floats
    maximum: float
    colors: PanelColors
    box: tuple[int, int] | None = None

    @property
    def aspect(self) -> float:
        """Height divided by width: more channels need more height."""
        return min(1.2, 0.22 + 0.13 * len(self.signal))


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel of a figure: what it shows, its title, and a mark such as "no positive evidence" in its corner."""

    content: PhotoContent | SignalContent
    title: str = ""
    mark: str = ""


@dataclass(frozen=True, eq=False)
class ColorBar:
    """A color bar: colors from `low` to `high` and its label."""

    colors: Bytes  # (256, 1, 4), the highest value first
    low: float
    high: float
    label: str


@dataclass(frozen=True, eq=False)
class PanelGrid:
    """The panels of a figure by row and column (None: an empty place), with headers and an optional color bar."""

    panels: tuple[tuple[Panel | None, ...], ...]
    row_headers: tuple[str, ...] = ()
    column_headers: tuple[str, ...] = ()
    bar: ColorBar | None = None
    caption: str = ""
    titles: bool = False  # whether each panel has a title above it


def nearest_cells(cells: int, pixels: int, length: int, start: float, end: float) -> NDArray[np.intp]:
    """Return the cell (pixels,) at the center of each pixel; the first or last one for pixels outside [start, end].

    >>> nearest_cells(2, 4, 4, 0, 4).tolist()
    [0, 0, 1, 1]
    """
    centers = (np.arange(pixels) + 0.5) * (length / pixels)
    cell: NDArray[np.intp] = np.floor((centers - start) / (end - start) * cells).astype(np.intp)
    return cell.clip(0, cells - 1)


def crop_photo(photo: Bytes, view: View, seen: View) -> tuple[Bytes, View, View, tuple[int, int]]:
    """Return the part of a photo that the network sees, both views in it, and its left and top.

    >>> view = View((100, 200), (50, 50), (50, 0, 150, 100))
    >>> photo, cropped, _, origin = crop_photo(np.zeros((100, 200, 3), np.uint8), view, view)
    >>> photo.shape, cropped.box, origin
    ((100, 100, 3), (0, 0, 100, 100), (50, 0))
    """
    left, top, right, bottom = seen.visible_box
    size = (bottom - top, right - left)

    def moved(one: View) -> View:
        box = (one.box[0] - left, one.box[1] - top, one.box[2] - left, one.box[3] - top)
        return View(size, one.input_size, box)

    return photo[top:bottom, left:right], moved(view), moved(seen), (left, top)


def check_interpolation(name: str) -> str:
    """Return `name` if it is one of INTERPOLATIONS. Raises UnknownName otherwise.

    >>> check_interpolation("nearest")
    'nearest'
    """
    if name not in INTERPOLATIONS:
        raise UnknownName("interpolation", name, INTERPOLATIONS, hint=f"Choose {' or '.join(INTERPOLATIONS)}.")
    return name
