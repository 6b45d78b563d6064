"""What heatmaps are drawn over: a photo, the curves of a signal, or the slices of a volume."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from PIL import Image
from torch import Tensor

from seewhy.images.view import View
from seewhy.rendering.curves import draw_signal
from seewhy.rendering.heatmaps import Heatmap
from seewhy.rendering.overlays import (
    LONGEST,
    Box,
    Bytes,
    Floats,
    OverlayStyle,
    colorize,
    draw_overlay,
    scale_photo,
    to_bytes,
)
from seewhy.rendering.slices import draw_volume, volume_pixels
from seewhy.tensors import map_functions

CHANNEL_STYLE = OverlayStyle("blend", "gray", 1.0)  # of channels in signals and volumes


class Background(ABC):
    """What heatmaps of one image are drawn over."""

    tile_scale: float = 1.0  # size of a contact sheet's tile relative to that of a photo

    @abstractmethod
    def draw_overlay(self, heatmap: Heatmap, style: OverlayStyle, longest: int | None) -> Image.Image:
        """Draw a heatmap. The longer side is at most `longest` pixels; None: the photo's own size."""

    @abstractmethod
    def draw_channel(self, channel: Tensor, size: tuple[int, ...], longest: int) -> Image.Image:
        """Draw one channel (*grid) of an input of `size`, from its lowest value in black to its highest in white."""

    def tile_side(self, side: int) -> int:
        """Return the longer side of a contact sheet's tile, for tiles of photos of `side` pixels."""
        return round(side * self.tile_scale)


@final
@dataclass(frozen=True, eq=False)
class PhotoBackground(Background):
    """A photo (H, W, 3) uint8 of which the model received the part in `view`; the rest is dimmed.

    `seen` is a smaller part, if the network sees only that of its input.
    """

    pixels: Bytes
    view: View
    seen: View | None = None
    _scaled: dict[int | None, tuple[Image.Image, Box]] = field(default_factory=dict, repr=False)

    def scaled(self, longest: int | None) -> tuple[Image.Image, Box]:
        """Return the dimmed photo, scaled to `longest` pixels, and the visible box in it; computed once per size."""
        if longest not in self._scaled:
            self._scaled[longest] = scale_photo(self.pixels, self.seen or self.view, longest)
        return self._scaled[longest]

    def draw_overlay(self, heatmap: Heatmap, style: OverlayStyle, longest: int | None) -> Image.Image:
        photo, box = self.scaled(longest)
        return draw_overlay(photo, heatmap.on_photo(self.view, (photo.height, photo.width)), style, box)

    def draw_channel(self, channel: Tensor, size: tuple[int, ...], longest: int) -> Image.Image:
        photo, box = self.scaled(longest)
        levels = map_functions.normalize_minmax(channel[None])[0].numpy()
        gray = colorize(to_bytes(self.view.to_photo(levels, (photo.height, photo.width))), "gray")
        image = photo.copy()
        image.paste(gray.crop(box), box[:2])
        return image


@final
@dataclass(frozen=True, eq=False)
class SignalBackground(Background):
    """The curves of a signal (C, L)."""

    signal: Floats
    tile_scale = 2.6  # a lane of curves needs more pixels than a photo

    def draw_overlay(self, heatmap: Heatmap, style: OverlayStyle, longest: int | None) -> Image.Image:
        return draw_signal(self.signal, heatmap.array(), style, longest or LONGEST)

    def draw_channel(self, channel: Tensor, size: tuple[int, ...], longest: int) -> Image.Image:
        return draw_signal(self.signal, channel_levels(channel, size), CHANNEL_STYLE, longest)


@final
@dataclass(frozen=True, eq=False)
class VolumeBackground(Background):
    """The slices of a volume: an input (C, D, H, W) and the preprocessing that made it, if known."""

    volume: Floats
    preprocess: Mapping[str, Any] | None = None
    tile_scale = 1.9

    def draw_overlay(self, heatmap: Heatmap, style: OverlayStyle, longest: int | None) -> Image.Image:
        pixels = volume_pixels(self.volume, self.preprocess)
        return draw_volume(pixels, heatmap.array(), style, longest or LONGEST)

    def draw_channel(self, channel: Tensor, size: tuple[int, ...], longest: int) -> Image.Image:
        pixels = volume_pixels(self.volume, self.preprocess)
        return draw_volume(pixels, channel_levels(channel, size), CHANNEL_STYLE, longest)


def channel_levels(channel: Tensor, size: tuple[int, ...]) -> Floats:
    """Return one channel (*grid) at the input's size, scaled to [0, 1]."""
    levels: Floats = map_functions.resize(map_functions.normalize_minmax(channel[None]), size)[0].float().cpu().numpy()
    return levels
