"""Sheets of many or large tiles: bounded in pixels and sides, so that they fit in memory and in a JPEG file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy import storage
from seewhy.images.preprocess import Preprocess
from seewhy.rendering import contact_sheets
from seewhy.rendering.contact_sheets import MAX_PIXELS, MAX_SIDE, Tile, contact_sheet, sheet_capacity, table_capacity
from seewhy.rendering.overlays import fit_size
from support.factories import classifier


@pytest.mark.parametrize("size", [(220, 165), (1, 220), (220, 1), (400, 400), (8, 8)])
@pytest.mark.parametrize("rows", [1, 50, 300, 5000])
def test_capacities_stay_below_the_limits_of_jpeg_files(size: tuple[int, int], rows: int) -> None:
    tile = Image.new("RGB", size)
    across, down = contact_sheets.cell_size(tile)
    drawn, columns = table_capacity(tile, rows)
    assert 1 <= drawn <= rows and columns >= 2
    assert (
        drawn * down + 72 <= MAX_SIDE
        and columns * across + 12 <= MAX_SIDE
        and drawn * down * columns * across <= MAX_PIXELS
    )
    count = sheet_capacity(tile, 6)
    assert -(-count // 6) * down + 72 <= MAX_SIDE


def test_features_of_5000_channels_draw_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheets, "MAX_PIXELS", 150_000)
    e = seewhy.explain(classifier(), torch.rand(1, 3, 16, 16), layers="every", channels=5000)
    sheet = e.features_sheet(side=16)
    assert sheet.width * sheet.height < 200_000
    monkeypatch.setattr(contact_sheets, "MAX_PIXELS", 10_000)
    assert e.features_sheet(side=16).width == 12 + 2 * 60  # the class map and one channel
    assert e.features("0").maps.shape[1] > 1


def test_sheets_of_more_layers_and_targets_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    e = seewhy.explain(classifier(), torch.rand(1, 3, 16, 16), layers="all", targets=[0, 1, 2, 3])
    full = e.contact_sheet(target=0, side=16).size, e.comparison(e.layers[0], side=16).size
    monkeypatch.setattr(contact_sheets, "MAX_PIXELS", 4_000)
    cut = e.contact_sheet(target=0, side=16).size, e.comparison(e.layers[0], side=16).size
    assert cut[0] < full[0] and cut[1] < full[1]


@pytest.mark.parametrize("shape", [(50_000, 1), (1, 50_000)])
def test_sheets_of_narrow_photos_keep_their_captions_apart(shape: tuple[int, int]) -> None:
    loaded = seewhy.LoadedModel(classifier(), Preprocess.imagenet(16))
    e = seewhy.explain(loaded, np.zeros((*shape, 3), np.uint8), fit="squash", layers="every")
    sheet = e.contact_sheet()
    assert sheet.width >= 12 + 60 and storage.encode_jpeg(sheet)
    assert max(e.overlay().size) <= 1024


def test_overlays_in_the_size_of_the_photo_fit_in_a_jpeg_file() -> None:
    assert fit_size((70_000, 700), None) == (65_000, 650) and fit_size((640, 480), None) == (640, 480)
    assert storage.encode_jpeg(Image.new("RGB", fit_size((70_000, 2), None)))


def test_captions_of_wide_tiles_are_unchanged() -> None:
    assert contact_sheet([Tile("a", "b", Image.new("RGB", (100, 60)))] * 2, "t").size == (12 + 2 * 112, 72 + 110)
