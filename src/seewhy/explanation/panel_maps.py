"""One map of one image as a panel of a figure: its values, their maximum, and what they are drawn over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import numpy as np
from torch import Tensor

from seewhy.errors import UsageError, describe_argument
from seewhy.explanation.data import ExplanationData, MapKey, placed_maps, positive_maps
from seewhy.explanation.flags import find_flags
from seewhy.images.regions import largest_box
from seewhy.images.view import View
from seewhy.rendering.backgrounds import PhotoBackground, SignalBackground, VolumeBackground
from seewhy.rendering.heatmaps import Heatmap, threshold_mask
from seewhy.rendering.overlays import SCALES, Floats, OverlayStyle, check_scale, is_fraction
from seewhy.rendering.panels import PanelColors, PhotoContent, SignalContent, check_interpolation, crop_photo
from seewhy.rendering.slices import volume_pixels
from seewhy.tensors import map_functions

Scale = str | float
MARKS = {
    "non_finite": "not finite",
    "no_gradient": "no gradient",
    "no_evidence": "no positive evidence",
}  # flags of which a panel shows a mark: without it, a blank panel looks like a fault of the figure


@dataclass(frozen=True)
class PanelSettings:
    """How the panels of a figure are drawn; `Explanation.plot` documents the fields."""

    style: OverlayStyle
    scale: Scale = "own"
    signed: bool = False
    interpolation: str = "linear"
    crop: bool = False
    box: float | None = None
    depth: int | None = None

    def __post_init__(self) -> None:
        check_interpolation(self.interpolation)
        check_figure_scale(self.scale)
        if self.box is not None and (isinstance(self.box, bool) or not is_fraction(self.box) or not self.box > 0):
            raise UsageError(f"box={self.box!r}: pass a fraction of the map's maximum, above 0 and at most 1.")


def check_figure_scale(scale: object) -> None:
    """Raise UsageError if `scale` is neither "own", "shared" nor a positive number."""
    if isinstance(scale, str):
        check_scale(scale)
    elif isinstance(scale, bool) or not isinstance(scale, Real) or not 0 < float(scale) < math.inf:
        raise UsageError(
            f"scale={describe_argument(scale)}: pass {' or '.join(map(repr, SCALES))}, or the value that gets the last color, "
            "above 0, in the units of the method."
        )


@dataclass(frozen=True, eq=False)
class PanelMap:
    """One map of one image."""

    e: ExplanationData
    key: MapKey
    settings: PanelSettings

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """The flags of the map."""
        return find_flags(self.e.maps[self.key], self.e.has_gradient.get(self.key[1:]))[0]

    @cached_property
    def maps(self) -> Tensor:
        """The map (1, *cells) with the axes of the input; only its positive part unless the panel is signed."""
        maps = placed_maps(self.e, self.key) if self.settings.signed else positive_maps(self.e, self.key)
        return (maps if self.settings.signed else map_functions.rectify(maps))[:1].detach().float().cpu()

    @cached_property
    def peak(self) -> float:
        """The largest absolute value that is drawn, in the units of the method; 0 if the map is not finite."""
        if "non_finite" in self.flags:
            return 0.0
        drawn = self.maps if self.settings.interpolation == "nearest" else map_functions.resize(self.maps, self.e.size)
        return float(drawn.abs().amax())

    @property
    def mark(self) -> str:
        """A text for a panel that is blank, or ""."""
        return next((MARKS[flag] for flag in self.flags if flag in MARKS and not self._shows_negatives(flag)), "")

    def _shows_negatives(self, flag: str) -> bool:
        return flag == "no_evidence" and self.settings.signed and self.peak > 0

    def content(self, maximum: float, colors: PanelColors) -> PhotoContent | SignalContent:
        """Return what the panel shows. `maximum` is the value that gets the last color."""
        maximum = 0.0 if "non_finite" in self.flags else maximum
        background = self.e.background
        if self.settings.depth is not None and not isinstance(background, VolumeBackground):
            raise UsageError(f"depth={self.settings.depth!r}: only volumes have slices.")
        if isinstance(background, SignalBackground):
            box = self._box()
            return SignalContent(background.signal, self._samples(), maximum, colors, (box[0], box[1]) if box else None)
        if isinstance(background, VolumeBackground):
            return self._slice(background, maximum, colors)
        assert isinstance(background, PhotoBackground)
        photo, view, seen, origin = background.pixels, background.view, background.seen or background.view, (0, 0)
        box = self._box()
        if self.settings.crop:
            photo, view, seen, origin = crop_photo(photo, view, seen)
        rectangle = (box[0], box[1], box[2], box[3]) if box else None
        values = self.maps[0].numpy()
        return PhotoContent(photo, view, seen, values, maximum, colors, self.settings.interpolation, origin, rectangle)

    def _samples(self) -> Floats:
        (length,) = self.e.size
        if self.settings.interpolation == "nearest":
            cells = np.arange(length) * self.maps.shape[1] // length
            return self.maps[0].numpy()[cells]
        return map_functions.resize(self.maps, self.e.size)[0].numpy()

    def _slice(self, background: VolumeBackground, maximum: float, colors: PanelColors) -> PhotoContent:
        """Return one slice of a volume along its first axis: `depth`, or the slice that contains the peak."""
        length = self.e.size[0]
        depth = self.depth
        if self.settings.interpolation == "nearest":
            plane = self.maps[0, depth * self.maps.shape[1] // length]
        else:
            plane = map_functions.resize(self.maps, (length, *self.maps.shape[2:]))[0, depth]
        pixels = volume_pixels(background.volume, background.preprocess)[depth]
        view = View.identity(pixels.shape[:2])
        return PhotoContent(pixels, view, view, plane.numpy(), maximum, colors, self.settings.interpolation)

    @cached_property
    def depth(self) -> int:
        """The slice of a volume that is drawn."""
        length, depth = self.e.size[0], self.settings.depth
        if depth is None:
            resized = map_functions.resize(self.maps, (length, *self.maps.shape[2:]))
            return int(resized[0].abs().flatten(1).amax(1).argmax()) if self.peak > 0 else length // 2
        if isinstance(depth, bool) or not isinstance(depth, int) or not 0 <= depth < length:
            raise UsageError(
                f"depth={depth!r}: the volume has {length} slices along its first axis, 0 to {length - 1}."
            )
        return depth

    def _box(self) -> tuple[int, ...] | None:
        """Return the box of the heatmap at the threshold `settings.box`, as `Explanation.box` does."""
        if self.settings.box is None:
            return None
        heatmap = Heatmap(positive_maps(self.e, self.key), self.e.size)
        view = self.e.view if len(self.e.size) == 2 else None
        values = heatmap.array() if view is None else heatmap.on_photo(view, view.photo_size)
        return largest_box(threshold_mask(values, self.settings.box, own_maximum=True))


def shared_peak(maps: Sequence[PanelMap]) -> float:
    """Return the largest value over several maps, in the units of the method; maps that are not finite do not count."""
    return max((one.peak for one in maps), default=0.0)


def peak_of_targets(panel: PanelMap) -> float:
    """Return the largest value over all targets of the same image, method and layer, as the overlays do."""
    method, _, layer = panel.key
    keys = [(method, target, layer) for target in panel.e.targets]
    return shared_peak([PanelMap(panel.e, key, panel.settings) for key in keys if key in panel.e.maps])
