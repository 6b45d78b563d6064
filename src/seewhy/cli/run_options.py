"""The settings of a run over images that concern drawing, files and the terminal. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from seewhy.engine.options import Fit, option
from seewhy.errors import UsageError
from seewhy.images.loading import MAX_PIXELS
from seewhy.rendering import colors as color_tables
from seewhy.rendering.overlays import LONGEST, OPACITY, OverlayStyle, check_scale

FEATURES_SHEET = "features.jpg"
METRICS_TABLE, METRICS_RECORD = "metrics.csv", "metrics.json"
StyleName = Literal["fade", "blend", "classic"]
CLASSIC_ONLY = "--style classic has fixed settings (jet at opacity 0.4, each map on its own scale)"


@dataclass(frozen=True, kw_only=True)
class DrawingOptions:
    """How overlays are drawn. Raises UsageError for values that are out of range or do not go together."""

    style: StyleName = option(
        "fade",
        '"fade": opacity follows the map; "blend": equal opacity; "classic": as in many tutorials, '
        "jet with min-max scaling over the model's input (224x224), also on the page; overlays/grad_cam_conv1.jpg and so on.",
        choices=get_args(StyleName),
    )
    colors: str | None = option(None, "viridis, inferno (default), magma, plasma, cividis, turbo, jet or gray.")
    opacity: float | None = option(
        None, "Opacity at the maximum of a map, 0 to 1. Default 0.85 for fade, 0.5 for blend.", "decimal"
    )
    scale: str = option(
        "own",
        '"own": divide each map by its own maximum; "shared": by the maximum over all targets, so that maps of different '
        "targets can be compared.",
    )
    size: str = option(str(LONGEST), 'Longest side of an overlay in pixels, or "original".')

    def __post_init__(self) -> None:
        if self.opacity is not None and not 0 <= self.opacity <= 1:
            raise UsageError(f"--opacity {self.opacity}: give a number from 0 (image only) to 1 (colors only).")
        if self.is_classic and (self.colors, self.opacity) != (None, None):
            raise UsageError(f"{CLASSIC_ONLY}; use --style blend to choose colors and opacity.")
        if check_scale(self.scale) != "own" and self.is_classic:
            raise UsageError(f"{CLASSIC_ONLY}; use --style fade or blend with --scale.")
        if self.size != "original" and (not self.size.isdecimal() or int(self.size) < 16):
            raise UsageError(f"--size {self.size}: give the longest side in pixels (at least 16), or 'original'.")
        color_tables.table(self.colors or color_tables.DEFAULT)

    @property
    def is_classic(self) -> bool:
        return self.style == "classic"

    @property
    def longest(self) -> int | None:
        """Longest side of an overlay in pixels; None for the size of the photo."""
        return None if self.size == "original" else int(self.size)

    @property
    def overlay_style(self) -> OverlayStyle:
        opacity = (0.5 if self.style == "blend" else OPACITY) if self.opacity is None else self.opacity
        return OverlayStyle(
            "blend" if self.style == "blend" else "fade", self.colors or color_tables.DEFAULT, opacity, self.scale
        )

    def default_fit(self, fit: Fit | None) -> Fit | None:
        """Return the fit to use: the classic style squashes photos by default."""
        return "squash" if self.is_classic and fit is None else fit


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where results go and what is printed."""

    out: Path = option(Path("cam"), "Folder for the results; each image gets a folder inside it.", "path", short="-o")
    label: str | None = option(None, "The true class of the image (index or name): prints how the model ranks it.")
    top: int = option(5, "Number of classes to print.", "number")
    no_check: bool = option(
        False,
        "Do not check the maps. The check covers parts of the image, with 28 more forward passes per image.",
        "switch",
    )
    json: bool = option(False, "Print one JSON object per image to stdout, and nothing else.", "switch")
    quiet: bool = option(False, "Print only errors.", "switch", short="-q")
    max_pixels: int = option(
        MAX_PIXELS,
        "Reject images with more pixels before decoding them, and files above 64 MB plus 8 bytes per pixel of this limit.",
        "number",
    )

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UsageError(f"--top {self.top}: give at least 1.")
        if self.max_pixels < 1:
            raise UsageError(f"--max-pixels {self.max_pixels}: give at least 1.")

    @property
    def prints_text(self) -> bool:
        return not (self.quiet or self.json)


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """Which metrics are computed for the maps."""

    metrics: tuple[str, ...] | None = option(
        None,
        'Metrics, or "all"; seewhy metrics lists them. Default: srg, single_deletion, explained_fraction, class_sensitivity.',
        "names",
    )
    fillers: tuple[str, ...] | None = option(
        None, "What covered parts of the image show: blur, mean, linear. Default: blur and mean.", "names"
    )


@dataclass(frozen=True, kw_only=True)
class UseOptions:
    """A saved choice of method and layer."""

    use: Path | None = option(None, "Use the method and layer of a choice.json, which seewhy choose writes.", "path")
