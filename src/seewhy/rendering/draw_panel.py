"""Draw one panel or a color bar into axes of matplotlib. Importing this module imports matplotlib, but not pyplot."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from seewhy.rendering.curves import MAX_LANES, lane_rows
from seewhy.rendering.overlays import Bytes
from seewhy.rendering.panels import ColorBar, Panel, PhotoContent, SignalContent

FRAME = 0.5  # points
FRAME_COLOR = "#333333"


class EmbeddedImage(AxesImage):
    """An image that PDF and SVG embed with its own pixels, and that is antialiased elsewhere.

    By default, matplotlib resamples images in vector files to the dpi of the figure and merges those of one axes.
    """

    def can_composite(self) -> bool:
        """Return False: photo and map stay separate images, each with its own resolution."""
        return False

    def draw(self, renderer: RendererBase) -> None:
        """Draw the image unscaled if the renderer embeds images, and antialiased otherwise."""
        self.set_interpolation("none" if renderer.option_scale_image() else "antialiased")
        super().draw(renderer)


def draw_panel(axes: Axes, panel: Panel, size: tuple[float, float], dpi: float, font_size: float) -> None:
    """Draw a panel into axes of `size` (width, height) inches; its images get `dpi` pixels per inch at most."""
    axes.grid(False)
    if isinstance(panel.content, PhotoContent):
        draw_photo(axes, panel.content, size, dpi)
    else:
        draw_signal(axes, panel.content, size, dpi, font_size)
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=FRAME, edgecolor=FRAME_COLOR)
    if panel.title:
        plain_text(axes.set_title(panel.title, fontsize=font_size, pad=2.5))
    if panel.mark:
        text = axes.text(0.03, 0.03, panel.mark, ha="left", va="bottom", fontsize=font_size - 2, color="black")
        text.set(transform=axes.transAxes, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.2})
        plain_text(text)


def draw_photo(axes: Axes, content: PhotoContent, size: tuple[float, float], dpi: float) -> None:
    """Draw photo and map as two images; the coordinates of the axes are pixels of the photo."""
    height, width = content.photo.shape[:2]
    scale = min(size[0] / width, size[1] / height) * dpi  # dots per pixel of the photo
    drawn = max(1, round(height * scale)), max(1, round(width * scale))
    left, top = content.origin
    extent = (left, left + width, top + height, top)
    embed(axes, content.photo_at(max(drawn)), extent, zorder=0)
    embed(axes, content.layer_at(drawn), extent, zorder=1)
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[], aspect="equal")
    if content.box is not None:
        x0, y0, x1, y1 = content.box
        for color, line in (("black", 2.0), ("white", 1.0)):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=line, zorder=3))


def draw_signal(axes: Axes, content: SignalContent, size: tuple[float, float], dpi: float, font_size: float) -> None:
    """Draw the channels of a signal as curves, each scaled to its lane, over the colors of the map."""
    channels = content.signal[:MAX_LANES]
    length = content.signal.shape[1]
    columns = max(1, round(size[0] * dpi))
    at = ((np.arange(columns) + 0.5) * length / columns - 0.5).astype(np.float32)
    values = np.interp(at, np.arange(length), content.values).astype(np.float32)
    embed(axes, content.colors.paint(values, content.maximum)[None], (0, length, len(channels), 0), zorder=0)
    for lane, channel in enumerate(channels):
        axes.plot(np.arange(length) + 0.5, lane + lane_rows(channel, 1), color="black", linewidth=0.7, zorder=2)
        if lane:
            axes.axhline(lane, color=FRAME_COLOR, linewidth=FRAME / 2, zorder=1)
    axes.set(xlim=(0, length), ylim=(len(channels), 0), yticks=[], aspect="auto")
    axes.tick_params(axis="x", labelsize=font_size - 1, width=FRAME, length=2, pad=1.5)
    if content.box is not None:
        axes.axvspan(*content.box, fill=False, edgecolor="black", linewidth=1.0, zorder=3)


def draw_bar(axes: Axes, bar: ColorBar, height: float, font_size: float) -> None:
    """Draw a color bar of `height` inches with numbers and label at its right."""
    axes.grid(False)
    embed(axes, bar.colors, (0, 1, bar.low, bar.high), zorder=0)
    axes.set(xlim=(0, 1), ylim=(bar.low, bar.high), xticks=[], aspect="auto")
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.locator_params(axis="y", nbins=max(1, min(5, int(height * 72 / (1.8 * font_size)))))
    axes.tick_params(axis="y", labelsize=font_size - 1, width=FRAME, length=2, pad=1.5)
    plain_text(axes.set_ylabel(bar.label, fontsize=font_size, labelpad=2))
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=FRAME, edgecolor=FRAME_COLOR)


def embed(axes: Axes, pixels: Bytes, extent: tuple[float, float, float, float], zorder: float) -> None:
    """Add an image with its own pixels to axes. `extent` is left, right, bottom and top; row 0 is at the top."""
    image = EmbeddedImage(axes, extent=extent, origin="upper", zorder=zorder)
    image.set_data(pixels)
    image.set_clip_path(axes.patch)
    axes.add_image(image)


def plain_text(text: Text) -> Text:
    """Draw a text unchanged: "$" in a class name is no formula."""
    text.set_parse_math(False)
    text.set_usetex(False)
    return text
