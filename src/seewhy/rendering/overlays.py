"""Overlays: heatmaps drawn over photos. NumPy arrays and Pillow images only; importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from seewhy.errors import UnknownName, UsageError, describe_argument
from seewhy.images.view import View
from seewhy.rendering import colors as color_tables

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two exclusive

MAX_SIDE = 65_000  # pixels; JPEG allows 65,500
LONGEST = 1024  # default longer side of an overlay in pixels
OPACITY = 0.85  # of the maximum: benchmarks/OVERLAY_COLORS.md compares others
OUTSIDE_BRIGHTNESS = 0.38  # of the part of a photo that is not in the model's input
PAPER, INK, FAINT = (18, 19, 23), (236, 236, 232), (150, 152, 158)
MODES = ("fade", "blend")
SCALES = ("own", "shared")  # a heatmap is divided by its own maximum, or by the maximum over all targets


@dataclass(frozen=True)
class OverlayStyle:
    """How heatmaps are drawn over an image.

    Args:
        mode: "fade": opacity follows the heatmap, and the image loses its own colors to the same degree, so that the colors of
            the table are recognized; "blend": the same opacity everywhere.
        colors: Name of a color table: "inferno", "viridis", "magma", "plasma", "cividis", "turbo", "gray" or "jet".
        opacity: Opacity of the heatmap's maximum, in [0, 1].
        scale: "own" divides each map by its own maximum. "shared" divides by the maximum over all targets of the same
            image, method and layer, so that weak evidence looks weak.

    Raises:
        UnknownName: `mode`, `colors` or `scale` does not exist.
        UsageError: `opacity` is not a number in [0, 1].

    Example:
        >>> OverlayStyle(mode="blend", colors="viridis", opacity=0.5)
        OverlayStyle(mode='blend', colors='viridis', opacity=0.5, scale='own')
    """

    mode: str = "fade"
    colors: str = color_tables.DEFAULT
    opacity: float = OPACITY
    scale: str = "own"

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if self.mode not in MODES:
            raise UnknownName("mode", self.mode, MODES, hint=f"Choose {' or '.join(MODES)}.")
        color_tables.table(self.colors)
        if not is_fraction(self.opacity):
            raise UsageError(f"opacity={self.opacity!r}: pass a number from 0 to 1, such as 0.8.")


def is_fraction(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) <= 1


def as_style(style: object) -> OverlayStyle:
    """Return a style; the default one for None. Raises UsageError for anything else, such as "blend"."""
    if style is None:
        return OverlayStyle()
    if not isinstance(style, OverlayStyle):
        raise UsageError(
            f"style={describe_argument(style)}: pass a seewhy.OverlayStyle, such as OverlayStyle(mode='blend')."
        )
    return style


def check_scale(name: str) -> str:
    """Return `name` if it is one of SCALES; raise UnknownName otherwise.

    >>> check_scale("shared")
    'shared'
    """
    if name not in SCALES:
        raise UnknownName("scale", name, SCALES, hint=f"Choose {' or '.join(SCALES)}.")
    return name


def colorize(levels: Bytes, colors: str = color_tables.DEFAULT) -> Image.Image:
    """Map levels (H, W) uint8 to an RGB image in the colors of a table."""
    image = Image.fromarray(levels)
    image.putpalette(color_tables.table(colors).tobytes())
    return image.convert("RGB")


def draw_overlay(photo: Image.Image, heatmap: Floats, style: OverlayStyle, visible: Box) -> Image.Image:
    """Draw a heatmap (H, W) in [0, 1] over an RGB photo of the same size, inside the pixel box `visible` only."""
    left, top, right, bottom = visible
    levels_8bit = to_bytes(heatmap[top:bottom, left:right])
    alpha = Image.fromarray(levels_8bit).point(opacity_table(style).tolist())
    image = photo.copy()
    if style.mode == "fade":
        image.paste(desaturate(photo.crop(visible), alpha), visible[:2])
    image.paste(colorize(levels_8bit, style.colors), visible[:2], alpha)
    return image


def desaturate(photo: Image.Image, opacity: Image.Image) -> Image.Image:
    """Blend an RGB photo with its gray version, in proportion to the opacity ("L") of what is drawn over it.

    Otherwise the photo changes the hue of the heatmap: light yellow over a blue bus becomes green.
    """
    return Image.composite(photo.convert("L").convert("RGB"), photo, opacity)


def opacity_table(style: OverlayStyle) -> Bytes:
    """Return the opacity (256,) of each level of a heatmap, from 0 to 255.

    >>> opacity_table(OverlayStyle(opacity=1.0))[[0, 80, 255]].tolist()
    [0, 128, 255]
    """
    levels = np.arange(256) / 255
    # Below about 60% of the maximum the opacity decreases, so that the photo stays readable.
    opacity = style.opacity * (np.clip(1.6 * levels, 0, 1) if style.mode == "fade" else np.ones(256))
    return np.rint(opacity * 255).astype(np.uint8)


CLASSIC = OverlayStyle("blend", "jet", 0.4)  # of tutorials, over the model's input and with min-max scaling


def draw_classic_overlay(photo: Bytes, heatmap: Floats) -> Image.Image:
    """Draw the overlay of the Grad-CAM tutorials: a heatmap (H, W) in [0, 1] truncated to 8 bits, in jet; 60:40."""
    colored = color_tables.table(CLASSIC.colors)[(heatmap * 255).astype(np.uint8)]
    mixed = (1 - CLASSIC.opacity) * photo + CLASSIC.opacity * colored
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def input_pixels(inputs: Floats, preprocess: Mapping[str, Any] | None) -> Bytes:
    """Convert a model input (C, H, W) back to an image (H, W, 3); without a known mean and std, by its own range."""
    if inputs.ndim != 3 or len(inputs) not in (1, 3):
        raise UsageError(
            f"an input of shape {inputs.shape} cannot be drawn as an image: it needs 1 or 3 channels and 2 axes. "
            "Use map() or heatmap()."
        )
    if preprocess and "mean" in preprocess:
        mean, std = (np.reshape(preprocess[name], (-1, 1, 1)) for name in ("mean", "std"))
        levels = inputs * std + mean
        levels = levels[::-1] if preprocess.get("channels") == "BGR" else levels
    else:
        low, high = inputs.min(), inputs.max()
        levels = (inputs - low) / max(float(high - low), 1e-12)
    return np.ascontiguousarray(np.broadcast_to(to_bytes(levels), (3, *inputs.shape[1:])).transpose(1, 2, 0))


def scale_photo(photo: Bytes, view: View, longest: int | None) -> tuple[Image.Image, Box]:
    """Shrink the photo, dim what is outside the view, and return it with the visible pixel box."""
    image = shrink(photo, longest)
    visible = view.visible_box_at((image.height, image.width))
    if visible == (0, 0, *image.size):
        return image, visible
    dimmed = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(0.35)).enhance(OUTSIDE_BRIGHTNESS)
    dimmed.paste(image.crop(visible), visible[:2])
    return dimmed, visible


def shrink(photo: Bytes, longest: int | None) -> Image.Image:
    """Shrink a photo (H, W, 3) so that its longer side is at most `longest` pixels."""
    height, width = fit_size(photo.shape[:2], longest)
    image = Image.fromarray(photo)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def fit_size(size: tuple[int, ...], longest: int | None) -> tuple[int, int]:
    """Scale (height, width) down, never up, so that the longer side is at most `longest` pixels; None: 65,000, for JPEG."""
    scale = min(1.0, (longest or MAX_SIDE) / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_bytes(heatmap: Floats) -> Bytes:
    """Convert values in [0, 1] to 8 bits; NaN becomes 0."""
    levels = np.fmax(heatmap, 0)  # not maximum, which returns NaN
    np.minimum(levels, 1, out=levels)
    levels *= 255
    levels += 0.5
    return levels.astype(np.uint8)
