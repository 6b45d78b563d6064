"""Statistics, regions and stored maps, compared with loops in double precision that follow the documentation."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from seewhy.bulk.input_regions import from_boxes, from_mask, overlaps, read_mask
from seewhy.bulk.map_codec import decode_bytes, encode_maps
from seewhy.bulk.statistics import NAMES, UNIFORM, fraction_inside, statistics
from seewhy.errors import ImageError
from seewhy.images.preprocess import Preprocess
from seewhy.images.view import View
from seewhy.tensors.map_functions import resize

Floats = NDArray[Any]
# Grids and inputs with different height and width, so that mixed-up axes are detected.
GRIDS = [
    ((3, 5), (24, 40)),
    ((7, 7), (224, 224)),
    ((2, 9), (31, 50)),
    ((1, 4), (17, 9)),
    ((5, 1), (6, 23)),
    ((8, 3), (5, 3)),
]
VIEWS = {
    "crop": View((60, 90), (28, 20), (20.5, 3.0, 60.25, 58.5)),
    "pad": View((60, 90), (32, 32), (0.0, -15.0, 90.0, 75.0)),
    "squash": View((61, 33), (16, 40), (0.0, 0.0, 33.0, 61.0)),
    "beyond": View((10, 12), (9, 14), (-3.5, -2.25, 17.0, 11.5)),
    "identity": View.identity((9, 13)),
    "larger": View((4, 5), (40, 30), (1.0, 0.5, 4.5, 3.75)),
}


def generator() -> np.random.Generator:
    return np.random.default_rng(5)


def drawn(signed: Floats, size: tuple[int, int]) -> Floats:
    """Return the heatmap: the positive part, resized with bilinear interpolation (align_corners=False), pixel by pixel."""
    height, width = size
    rows, columns = signed.shape
    positive = np.array(
        [[max(0.0, value) if math.isfinite(value) else 0.0 for value in row] for row in signed.tolist()]
    )
    heatmap = np.zeros(size)
    for i in range(height):
        y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
        top = int(y)
        below = min(top + 1, rows - 1)
        for j in range(width):
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            left = int(x)
            right = min(left + 1, columns - 1)
            a, b = y - top, x - left
            heatmap[i, j] = (1 - a) * ((1 - b) * positive[top, left] + b * positive[top, right])
            heatmap[i, j] += a * ((1 - b) * positive[below, left] + b * positive[below, right])
    return heatmap


def fraction(low: float, high: float, start: float, end: float) -> float:
    """Return the fraction of [low, high] inside [start, end]."""
    return max(0.0, min(high, end) - max(low, start)) / (high - low)


def slow_statistics(signed: Floats, size: tuple[int, int]) -> dict[str, float]:
    """Return the statistics as documented in `statistics`, with positions as fractions of the sides."""
    height, width = size
    finite = np.where(np.isfinite(signed), signed, 0).astype(float)
    expected_values = {"positive": finite[finite > 0].sum() / abs(finite).sum() if finite.any() else math.nan}
    heatmap = drawn(signed, size)
    total = heatmap.sum()
    if total == 0:
        return {**dict.fromkeys(NAMES, math.nan), **expected_values}
    best = max(range(finite.size), key=lambda place: (finite.flat[place], -place))
    expected_values["peak_x"] = (best % signed.shape[1] + 0.5) / signed.shape[1]
    expected_values["peak_y"] = (best // signed.shape[1] + 0.5) / signed.shape[0]
    places = [(i, j, (j + 0.5) / width, (i + 0.5) / height) for i in range(height) for j in range(width)]
    x = expected_values["center_x"] = sum(heatmap[i, j] * x for i, j, x, _ in places) / total
    y = expected_values["center_y"] = sum(heatmap[i, j] * y for i, j, _, y in places) / total
    far = sum(heatmap[i, j] * ((own_x - x) ** 2 + (own_y - y) ** 2) for i, j, own_x, own_y in places) / total
    expected_values["spread"] = math.sqrt(far)
    inner, corners = 0.0, [0.0] * 4
    for i, j, _, _ in places:
        across, down = (j / width, (j + 1) / width), (i / height, (i + 1) / height)
        inner += heatmap[i, j] * fraction(*across, 0.125, 0.875) * fraction(*down, 0.125, 0.875)
        for place, (left, top) in enumerate(((0, 0), (0.75, 0), (0, 0.75), (0.75, 0.75))):
            corners[place] += heatmap[i, j] * fraction(*across, left, left + 0.25) * fraction(*down, top, top + 0.25)
    expected_values["border"] = 1 - inner / total
    expected_values["corner"] = max(corners) / total
    return expected_values


def slow_region(boxes: list[tuple[float, ...]], view: View) -> Floats:
    """Return the fraction of each input pixel inside a box, the largest of all boxes."""
    height, width = view.input_size
    left, top, right, bottom = view.box
    region = np.zeros((height, width))
    for i in range(height):
        down = (top + (bottom - top) * i / height, top + (bottom - top) * (i + 1) / height)
        for j in range(width):
            across = (left + (right - left) * j / width, left + (right - left) * (j + 1) / width)
            region[i, j] = max(fraction(*across, box[0], box[2]) * fraction(*down, box[1], box[3]) for box in boxes)
    return region


def slow_mask(mask: Floats, view: View) -> Floats:
    """Return the same for a mask: the sum over its pixels, each of which is a box."""
    region = np.zeros(view.input_size)
    for i, j in np.argwhere(mask).tolist():
        region += slow_region([(j, i, j + 1, i + 1)], view)
    return region


def maps_of(grid: tuple[int, int], count: int = 6) -> Floats:
    """Return signed maps; in some of them almost all values have one sign, or one cell dominates."""
    maps = generator().normal(size=(count, *grid)).astype(np.float32)
    maps[1] -= 1
    maps[:, 0, -1] = abs(maps[:, 0, -1]) + 0.1  # positive evidence in each map
    maps[2] = 0
    maps[2, -1, 0] = 4
    maps[3] += np.linspace(0, 9, grid[1], dtype=np.float32)
    return maps


# Statistics


@pytest.mark.parametrize(("grid", "size"), GRIDS)
def test_statistics_match_their_documentation(grid: tuple[int, int], size: tuple[int, int]) -> None:
    maps = maps_of(grid) if size != (224, 224) else maps_of(grid, 4)
    found = statistics(maps, size)
    assert tuple(found) == NAMES
    for place, signed in enumerate(maps):
        expected = slow_statistics(signed, size)
        for name in NAMES:
            np.testing.assert_allclose(
                found[name][place], expected[name], rtol=1e-5, atol=2e-6, err_msg=f"{name} {place}"
            )


def test_constant_heatmap_has_the_documented_values() -> None:
    for level in (1e-9, 1.0, 1e9):
        found = {
            name: float(values[0])
            for name, values in statistics(np.full((1, 7, 9), level, np.float32), (320, 480)).items()
        }
        assert (
            found["positive"] == 1
            and found["center_x"] == pytest.approx(0.5)
            and found["center_y"] == pytest.approx(0.5)
        )
        assert found["spread"] == pytest.approx(UNIFORM["spread"], abs=1e-4) and round(UNIFORM["spread"], 2) == 0.41
        assert found["border"] == pytest.approx(UNIFORM["border"], abs=1e-6) and round(UNIFORM["border"], 2) == 0.44
        assert found["corner"] == pytest.approx(UNIFORM["corner"], abs=1e-6) and round(UNIFORM["corner"], 2) == 0.06
        assert (found["peak_x"], found["peak_y"]) == (pytest.approx(0.5 / 9), pytest.approx(0.5 / 7))  # the first cell


@pytest.mark.parametrize(
    ("cell", "corner"), [((0, 0), "left top"), ((0, 8), "right top"), ((8, 0), "left bottom"), ((8, 8), "right bottom")]
)
def test_heatmap_in_a_corner(cell: tuple[int, int], corner: str) -> None:
    signed = np.zeros((1, 9, 9), np.float32)
    signed[0][cell] = 2
    found = {name: float(values[0]) for name, values in statistics(signed, (36, 72)).items()}
    assert found["corner"] == pytest.approx(1) and found["border"] > 0.9 and found["spread"] < 0.1
    assert (found["center_x"] > 0.9) == ("right" in corner) and (found["center_x"] < 0.1) == ("left" in corner)
    assert (found["center_y"] > 0.9) == ("bottom" in corner) and (found["center_y"] < 0.1) == ("top" in corner)
    assert found["peak_x"] == (cell[1] + 0.5) / 9 and found["peak_y"] == (cell[0] + 0.5) / 9


def test_heatmap_in_the_center_and_at_one_side() -> None:
    maps = np.zeros((2, 9, 9), np.float32)
    maps[0, 4, 4] = 1
    maps[1, :, 0] = 1
    found = statistics(maps, (72, 36))
    assert found["border"][0] == 0 and found["corner"][0] == 0
    assert found["border"][1] == pytest.approx(1, abs=0.1) and found["center_y"][1] == pytest.approx(0.5)
    assert found["corner"][1] == pytest.approx(0.25, abs=0.01)


def test_maps_without_positive_evidence() -> None:
    maps = np.zeros((3, 4, 5), np.float32)
    maps[1] = -1
    maps[2] = np.nan
    found = statistics(maps, (20, 30))
    np.testing.assert_array_equal(found["positive"], [np.nan, 0, np.nan])
    for name in NAMES[1:]:
        assert np.isnan(found[name]).all(), name
    assert np.isnan(fraction_inside(maps, np.ones((3, 20, 30)))).all()


def test_non_finite_values_count_as_zero() -> None:
    maps = maps_of((4, 5), 4)
    damaged = np.array(maps)
    damaged[:, 1, 2] = [np.nan, np.inf, -np.inf, np.nan]
    maps[:, 1, 2] = 0
    expected, found = statistics(maps, (20, 31)), statistics(damaged, (20, 31))
    for name in NAMES:
        np.testing.assert_array_equal(found[name], expected[name])
    regions = generator().random((4, 20, 31))
    np.testing.assert_array_equal(fraction_inside(damaged, regions), fraction_inside(maps, regions))


def test_statistics_do_not_depend_on_units() -> None:
    maps = maps_of((4, 5))
    for factor in (1e-30, 1e-9, 1e30):
        scaled = statistics((maps * np.float32(factor)).astype(np.float32), (20, 31))
        for name, values in statistics(maps, (20, 31)).items():
            np.testing.assert_allclose(scaled[name], values, rtol=1e-5, atol=1e-7)


def test_statistics_of_a_map_do_not_depend_on_other_maps() -> None:
    maps = maps_of((4, 5))
    together = statistics(maps, (20, 31))
    for place in range(len(maps)):
        for name, values in statistics(maps[place : place + 1], (20, 31)).items():
            np.testing.assert_allclose(values[0], together[name][place], rtol=1e-12)


# Fraction in a region


@pytest.mark.parametrize(("grid", "size"), GRIDS)
def test_fraction_inside_is_a_sum_over_the_heatmap(grid: tuple[int, int], size: tuple[int, int]) -> None:
    maps = maps_of(grid)
    regions = generator().random((len(maps), *size))
    regions[0] = 0
    regions[1] = 1
    regions[2, : size[0] // 2] = 0
    found = fraction_inside(maps, regions)
    heatmap = resize(torch.from_numpy(maps).double().clamp(min=0), size).numpy()
    expected = (heatmap * regions).sum((1, 2)) / heatmap.sum((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[0] == 0 and found[1] == pytest.approx(1) and found.max() <= 1
    assert drawn(maps[3], size) == pytest.approx(
        heatmap[3], rel=1e-6, abs=1e-7
    )  # the loops above give the same heatmap


def test_fractions_of_a_region_and_its_complement_sum_to_one() -> None:
    maps = maps_of((5, 3))
    regions = generator().random((len(maps), 30, 20))
    np.testing.assert_allclose(fraction_inside(maps, regions) + fraction_inside(maps, 1 - regions), 1, rtol=1e-9)


# Regions

BOXES: dict[str, list[tuple[float, ...]]] = {
    "inside": [(3.2, 2.7, 4.4, 8.1)],
    "partly outside": [(-50, -50, 5.5, 6.25), (7.5, 3, 500, 4)],
    "outside": [(200, 5, 300, 50), (-9, -9, -5, -5)],
    "overlapping": [(2, 2, 8.5, 7), (4.3, 1, 9, 9), (5, 5, 6, 6)],
    "thin": [(5.01, 0, 5.02, 100)],
    "all": [(-1e6, -1e6, 1e6, 1e6)],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES)
def test_regions_of_boxes(boxes: Any, view: View) -> None:
    found = from_boxes(boxes, view)
    assert found.shape == view.input_size and found.dtype == np.float32 and 0 <= found.min() <= found.max() <= 1
    np.testing.assert_allclose(found, slow_region(boxes, view), atol=1e-6)


def test_region_without_boxes() -> None:
    assert not from_boxes([], VIEWS["crop"]).any()


@pytest.mark.parametrize("view", [VIEWS[name] for name in ("beyond", "identity", "larger")])
def test_regions_of_masks(view: View) -> None:
    mask = generator().random(view.photo_size) > 0.6
    found = from_mask(mask, view)
    assert found.shape == view.input_size and 0 <= found.min() <= found.max() <= 1 + 1e-6
    np.testing.assert_allclose(found, slow_mask(mask, view), atol=1e-6)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_box_of_integer_pixels_equals_a_mask(view: View) -> None:
    mask = np.zeros(view.photo_size, bool)
    mask[1:3, 2:5] = True
    np.testing.assert_allclose(from_mask(mask, view), from_boxes([(2, 1, 5, 3)], view), atol=1e-6)
    everywhere = from_mask(np.ones(view.photo_size, bool), view)
    np.testing.assert_allclose(
        everywhere, from_boxes([(0, 0, view.photo_size[1], view.photo_size[0])], view), atol=1e-6
    )
    assert not from_mask(np.zeros(view.photo_size, bool), view).any()


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_region_matches_the_preprocessed_image(fit: Any) -> None:
    """A white box on black, preprocessed with Pillow, equals its region except for the filter at the edges."""
    photo = np.zeros((240, 400, 3), np.uint8)
    photo[60:150, 110:300] = 255
    preprocess = Preprocess((64, 64), (0.0,) * 3, (1.0,) * 3, "box", 72, fit=fit)
    inputs, view = preprocess(photo)
    region = from_boxes([(110, 60, 300, 150)], view)
    np.testing.assert_allclose(region, from_mask(photo[..., 0] > 0, view), atol=1e-6)
    assert abs(region - inputs[0, 0].numpy()).mean() < 0.01 and region.mean() > 0.1


def test_overlaps_sum_to_the_total() -> None:
    found = overlaps(7, -3.0, 11.0, np.array([-3, 0, 1, 8, 11]))
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(found.sum(0), np.array([3, 1, 7, 3]) / 2, rtol=1e-6)


# Masks


def saved(path: Path, values: Any, mode: str | None = None) -> str:
    image = Image.fromarray(np.array(values))
    (image if mode is None else image.convert(mode)).save(path)
    return str(path)


LEVELS = [[0, 1, 2], [255, 2, 0]]
MODES: dict[str, Callable[[Path], str]] = {
    "gray": lambda folder: saved(folder / "m.png", np.array(LEVELS, np.uint8)),
    "16 bits": lambda folder: saved(folder / "m.png", np.array(LEVELS, np.uint16)),
    "16 bits tiff": lambda folder: saved(folder / "m.tif", np.array(LEVELS, np.uint16)),
    "32 bits": lambda folder: saved(folder / "m.tif", np.array(LEVELS, np.int32)),
    "real": lambda folder: saved(folder / "m.tif", np.array(LEVELS, np.float32)),
    "color": lambda folder: saved(folder / "m.png", np.repeat(np.array(LEVELS, np.uint8)[..., None], 3, 2)),
}


@pytest.mark.parametrize("make", MODES.values(), ids=MODES)
def test_masks_of_every_mode(make: Callable[[Path], str], tmp_path: Path) -> None:
    path = make(tmp_path)
    levels = np.array(LEVELS)
    np.testing.assert_array_equal(read_mask(path, None, (2, 3)), levels != 0)
    for value in (0, 1, 2, 255, 300, 10**17):
        found = read_mask(path, value, (2, 3))
        assert found.dtype == bool
        np.testing.assert_array_equal(found, levels == value)


def test_masks_with_palette_one_bit_and_colors(tmp_path: Path) -> None:
    image = Image.new("P", (3, 2))
    image.putpalette([255, 255, 255] * 256)  # only the palette indices differ
    for place, level in enumerate(np.ravel(LEVELS).tolist()):
        image.putpixel((place % 3, place // 3), level)
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_mask(str(tmp_path / "p.png"), 2, (2, 3)), np.array(LEVELS) == 2)
    one_bit = saved(tmp_path / "one.png", np.array(LEVELS, np.uint8) > 1, "1")
    np.testing.assert_array_equal(read_mask(one_bit, None, (2, 3)), np.array(LEVELS) > 1)
    np.testing.assert_array_equal(read_mask(one_bit, 1, (2, 3)), np.array(LEVELS) > 1)
    real = saved(tmp_path / "real.tif", np.array([[0, 0.25], [1, 0]], np.float32))
    np.testing.assert_array_equal(read_mask(real, None, (2, 2)), [[False, True], [True, False]])


def test_dark_color_is_not_zero(tmp_path: Path) -> None:
    colors = np.array([[[0, 0, 0], [0, 0, 1]], [[2, 0, 0], [0, 1, 0]]], np.uint8)
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "c.png", colors), None, (2, 2)), [[0, 1], [1, 1]])


def test_unusable_masks(tmp_path: Path) -> None:
    good = saved(tmp_path / "m.png", np.array(LEVELS, np.uint8))
    for photo in ((3, 2), (2, 4), (4, 6)):
        with pytest.raises(ImageError, match=rf"m\.png is 3 x 2, but the photo is {photo[1]} x {photo[0]}"):
            read_mask(good, None, photo)
    (tmp_path / "broken.png").write_bytes(Path(good).read_bytes()[:40])
    (tmp_path / "empty.png").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {
        "broken.png": "corrupt",
        "empty.png": "empty",
        "none.png": "no such file",
        "pipe.png": "not a regular file",
        ".": "not a regular file",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason) as caught:
            read_mask(str(tmp_path / name), None, (2, 3))
        assert "the mask" in caught.value.reason


def test_size_of_a_mask_is_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.png", np.zeros((50, 60), np.uint8))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match="is 60 x 50, but the photo is 3 x 2"):
        read_mask(path, None, (2, 3))


# Stored maps


def round_trip(maps: Floats, store: str) -> Floats:
    cells, lo, hi = encode_maps(maps, store)
    assert lo.shape == hi.shape == (len(maps),) and (lo <= 0).all() and (hi >= 0).all()
    shape = maps.shape[1:]
    return np.stack(
        [decode_bytes(*args, store) for args in zip(cells, [shape] * len(maps), lo.tolist(), hi.tolist(), strict=True)]
    )


@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1.0, 1e30])
def test_uint8_error_is_at_most_half_a_level_per_sign(factor: float) -> None:
    maps = (maps_of((4, 9), 40).astype(float) * [[[factor]]]).astype(np.float32)
    maps[0] = np.where(maps[0] > 0, maps[0], maps[0] * 1000)  # weak positive evidence next to strong negative evidence
    found = round_trip(maps, "uint8")
    cells, lo, hi = encode_maps(maps, "uint8")
    for place, signed in enumerate(maps.astype(float)):
        assert lo[place] == min(0, signed.min()) and hi[place] == max(0, signed.max())
        error = abs(found[place] - signed)
        up, down = signed > 0, signed < 0
        assert (error[up] <= float(hi[place]) / 127 / 2 * 1.0001).all()
        assert (error[down] <= -float(lo[place]) / 128 / 2 * 1.0001).all()
        assert (found[place][signed == 0] == 0).all()
        assert (found[place][up] >= 0).all() and (found[place][down] <= 0).all()
        assert found[place].max() == hi[place] and found[place].min() == lo[place]  # the extremes are exact
        slow = [
            128 + (round(127 * v / hi[place]) if v > 0 else round(128 * v / -lo[place]) if v < 0 else 0)
            for v in signed.ravel()
        ]
        assert max(abs(a - b) for a, b in zip(cells[place], slow, strict=True)) <= (0 if factor == 1 else 1)


def test_uint8_levels_row_by_row() -> None:
    maps = np.array([[[0, 1, 2], [3, 4, 127]], [[0, -1, -2], [-3, -4, -128]], [[0] * 3] * 2], np.float32)
    cells, lo, hi = encode_maps(maps, "uint8")
    assert [list(one) for one in cells] == [[128, 129, 130, 131, 132, 255], [128, 127, 126, 125, 124, 0], [128] * 6]
    assert (lo.tolist(), hi.tolist()) == ([0, -128, 0], [127, 0, 0])
    np.testing.assert_array_equal(round_trip(maps, "uint8"), maps)


@pytest.mark.parametrize("store", ["uint8", "float16"])
def test_zeros_stay_zero(store: str) -> None:
    maps = maps_of((3, 7), 8)
    maps[:, 1] = 0
    maps[5] = 0
    found = round_trip(maps, store)
    assert (found[:, 1] == 0).all() and not found[5].any() and found.dtype == np.float32


@pytest.mark.parametrize("store", ["uint8", "float16"])
def test_non_finite_values_are_stored_as_zero(store: str) -> None:
    maps = maps_of((3, 4), 4)
    maps[:, 0, 0] = [np.nan, np.inf, -np.inf, np.nan]
    plain = np.array(maps)
    plain[:, 0, 0] = 0
    assert encode_maps(maps, store)[0] == encode_maps(plain, store)[0]
    np.testing.assert_array_equal(encode_maps(maps, store)[1:], encode_maps(plain, store)[1:])
    all_nan = np.full((1, 2, 2), np.nan, np.float32)
    assert not round_trip(all_nan, store).any()


@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1.0, 1e9, 1e37])
def test_float16_keeps_three_digits_in_any_unit(factor: float) -> None:
    maps = np.clip(maps_of((4, 9), 20).astype(float), -3, 5) * factor
    found = round_trip(maps.astype(np.float32), "float16")
    top = abs(maps).max((1, 2), keepdims=True)
    large = abs(maps) > 1e-3 * top
    assert (abs(found - maps)[large] <= 5e-4 * abs(maps)[large]).all() and large.mean() > 0.5
    assert (abs(found - maps) <= 5e-4 * abs(maps) + 1e-7 * top).all()


def test_float16_values_are_relative_to_the_larger_extreme() -> None:
    cells, lo, hi = encode_maps(np.array([[[1.0, -50.0, 25.0, 0.0]]], np.float32), "float16")
    assert np.frombuffer(cells[0], "<f2").tolist() == [np.float16(0.02), -1, 0.5, 0] and (lo[0], hi[0]) == (-50, 25)


@pytest.mark.parametrize("store", ["uint8", "float16"])
def test_largest_and_smallest_float32_numbers(store: str) -> None:
    large, small = float(np.finfo(np.float32).max), float(np.finfo(np.float32).smallest_subnormal)
    maps = np.array([[[large, -large, 0, 1]], [[small * 9, -small, 0, 0]], [[large, -small, 0, 0]]], np.float32)
    found = round_trip(maps, store)
    assert np.isfinite(found).all() and found[0, 0, :2].tolist() == [large, -large] and found[1, 0, 0] == maps[1, 0, 0]
