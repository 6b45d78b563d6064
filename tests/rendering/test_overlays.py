"""Overlays: bytes of heatmaps, and a heatmap drawn inside the visible box only."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from seewhy.rendering.colors import table
from seewhy.rendering.overlays import OverlayStyle, draw_overlay, to_bytes

NOISE = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_are_rounded_and_clipped(dtype: type[np.floating]) -> None:
    values = np.array([[-np.inf, -1, -0.0, np.nan], [0.5, 1, 1.5, np.inf]], dtype)
    before = values.copy()
    assert to_bytes(values).tolist() == [[0, 0, 0, 0], [128, 255, 255, 255]]
    assert np.array_equal(values, before, equal_nan=True)
    levels = (np.arange(256) / 255).astype(dtype)[None]
    assert to_bytes(levels).tolist() == [list(range(256))]


@pytest.mark.parametrize("mode", ["fade", "blend"])
def test_overlay_changes_the_visible_box_only(mode: str) -> None:
    photo = NOISE.integers(0, 256, (40, 60, 3), np.uint8)
    heatmap = NOISE.random((40, 60), np.float32)
    drawn = np.array(draw_overlay(Image.fromarray(photo), heatmap, OverlayStyle(mode), (10, 5, 50, 35)))
    levels = to_bytes(heatmap)
    opacity = 0.85 * (np.clip(1.6 * levels / 255, 0, 1) if mode == "fade" else np.ones(levels.shape))[..., None]
    gray = (photo @ [0.299, 0.587, 0.114])[..., None]
    faded = photo + (opacity if mode == "fade" else 0) * (gray - photo)
    expected = faded + opacity * (table("inferno")[levels].astype(float) - faded)
    inside = np.zeros((40, 60), bool)
    inside[5:35, 10:50] = True
    assert np.array_equal(drawn[~inside], photo[~inside])
    assert np.abs(drawn[inside] - expected[inside]).max() <= 1.5  # Pillow rounds the opacity and the result
