"""The hottest place of an overlay looks hottest: its color is that of the color table, for every photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import seewhy
from seewhy.rendering.colors import table, tables
from seewhy.rendering.overlays import OverlayStyle, draw_overlay
from support.lab import distance, to_lab
from support.paths import DATA

LIMIT = 17.0  # CIELAB (CIE76) at the maximum of a map; without desaturation, it is 40 at opacity 0.8 and 30 at 0.85
PHOTOS = sorted((DATA / "pictures").glob("*"))


def every_color() -> NDArray[np.uint8]:
    """Return a photo of 729 colors from all over the RGB cube."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)


def draw(photo: NDArray[np.uint8], heatmap: NDArray[np.float32], style: OverlayStyle) -> NDArray[np.uint8]:
    height, width = heatmap.shape
    return np.asarray(draw_overlay(Image.fromarray(photo), heatmap, style, (0, 0, width, height)))


@pytest.mark.parametrize("colors", tables())
def test_no_photo_changes_the_color_of_the_maximum_much(colors: str) -> None:
    drawn = draw(every_color(), np.ones((27, 27), np.float32), OverlayStyle(colors=colors))
    assert distance(drawn, table(colors)[255]).max() < LIMIT


def test_a_blue_photo_does_not_turn_the_maximum_green() -> None:
    blue = np.full((8, 8, 3), (10, 60, 220), np.uint8)
    hottest = to_lab(table("inferno")[255])
    hues = {}
    for mode in ("fade", "blend"):
        found = to_lab(draw(blue, np.ones((8, 8), np.float32), OverlayStyle(mode, opacity=0.8))[0, 0])
        hues[mode] = abs(np.degrees(np.arctan2(*found[:0:-1]) - np.arctan2(*hottest[:0:-1])))
    assert hues["fade"] < 3 < 10 < hues["blend"]  # degrees


def test_the_photo_stays_visible_at_the_maximum() -> None:
    drawn = draw(every_color(), np.ones((27, 27), np.float32), OverlayStyle())
    lightness = to_lab(drawn)[..., 0]
    assert lightness.max() - lightness.min() > 10


def test_opacity_0_shows_the_photo() -> None:
    photo = every_color()
    assert np.array_equal(draw(photo, np.ones((27, 27), np.float32), OverlayStyle(opacity=0.0)), photo)


@pytest.mark.parametrize("photo", [*map(seewhy.sample, ("cat_espresso", "chelsea", "coffee")), *PHOTOS], ids=str)
def test_the_limit_holds_on_photos(photo: Path, embedded: seewhy.LoadedModel) -> None:
    e = seewhy.explain(embedded, photo)
    heatmap = e.on_photo(size=e.view.photo_size)
    drawn = np.asarray(e.overlay(longest=None))
    peak = np.unravel_index(heatmap.argmax(), heatmap.shape)
    level = int(np.rint(255 * heatmap[peak]))
    assert distance(drawn[peak], table("inferno")[level]) < LIMIT
