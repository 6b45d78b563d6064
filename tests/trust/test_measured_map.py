"""The measured map: its matrix against a slow reference, planted regions, storage, and why there is none."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy.errors import ChoiceError, UsageError
from seewhy.explanation.window_fit import GRID, fit_map, fit_matrix, hidden_parts
from seewhy.explanation.windows import MASKS, MODES, Array, WindowDrops
from seewhy.trust.map_checks.windows import window_masks

PIXELS = 224  # windows of 1/2 and 3/8 end between two of these pixels


def slow_masks() -> list[Array]:
    """Return the hidden part of each mask on the grid, from windows that are drawn pixel by pixel."""
    masks = []
    for keeps, side in ((True, 112), (True, 84), (False, 84)):
        for row in range(3):
            for column in range(3):
                top, left = row * (PIXELS - side) // 2, column * (PIXELS - side) // 2
                image = np.full((PIXELS, PIXELS), float(keeps))
                image[top : top + side, left : left + side] = float(not keeps)
                cell = PIXELS // GRID
                masks.append(image.reshape(GRID, cell, GRID, cell).mean((1, 3)))
    return masks


def slow_map(drops: Array) -> Array:
    """Return the posterior mean of the process, cell by cell, by solving for the drops of one image."""
    count = GRID * GRID
    covariance = np.zeros((count, count))
    for a in range(count):
        for b in range(count):
            down, right = (a // GRID - b // GRID) / GRID, (a % GRID - b % GRID) / GRID
            covariance[a, b] = math.exp(-(down * down + right * right) / (2 * 0.15**2))
    weights, values = [], []
    masks = slow_masks()
    for start in (0, 9, 18):
        part = [mask.ravel() / count for mask in masks[start : start + 9]]
        centered = [one - sum(part) / 9 for one in part]
        expected = math.sqrt(sum(float(one @ covariance @ one) for one in centered))
        weights += [one / expected for one in centered]
        own = drops[start : start + 9] - drops[start : start + 9].mean()
        values += list(own / math.sqrt(float(own @ own)))
    known = np.array([[float(a @ covariance @ b) for b in weights] for a in weights]) + 0.09 * np.eye(27)
    solved = np.linalg.solve(known, np.array(values))
    cells = [
        float(sum(s * covariance[cell] @ w for s, w in zip(solved, weights, strict=True))) for cell in range(count)
    ]
    return np.array(cells).reshape(GRID, GRID)


def test_the_map_equals_a_slow_reference() -> None:
    for seed in range(2):
        drops = np.random.default_rng(seed).normal(size=MASKS)
        found = fit_map(WindowDrops(tuple(drops.tolist())))
        np.testing.assert_allclose(found, slow_map(drops), atol=1e-10)
        # Each mode is centered and scaled: neither its mean nor its size counts.
        other = drops * np.repeat([2.0, 0.5, 7.0], 9) + np.repeat([3.0, -1.0, 0.0], 9)
        np.testing.assert_allclose(fit_map(WindowDrops(tuple(other.tolist()))), found, atol=1e-10)
    assert fit_matrix().shape == (GRID**2, MASKS)


@pytest.mark.parametrize("size", [(224, 224), (96, 160)], ids=str)
def test_the_windows_of_the_fit_are_those_of_the_check(size: tuple[int, int]) -> None:
    """The masks of the check have soft edges and end at pixels; cells at the edges change by less than 0.15."""
    masks = F.adaptive_avg_pool2d(window_masks(size)[:, None], GRID)[:, 0].flatten(1).numpy()
    parts = np.concatenate([hidden_parts(mode) for mode in MODES])
    np.testing.assert_allclose(parts.reshape(MASKS, GRID, GRID), slow_masks(), atol=1e-12)
    assert np.abs(masks - parts).max() < 0.15 and np.abs(masks - parts).mean() < 0.01


class Region(nn.Module):
    """Class 0 is the brightness of one part of the image; class 1 is 0."""

    def __init__(self, box: tuple[float, float, float, float], size: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        weights = torch.zeros(size)
        top, left, bottom, right = (round(edge * length) for edge, length in zip(box, size * 2, strict=True))
        weights[top:bottom, left:right] = 20 / ((bottom - top) * (right - left))
        self.register_buffer("weights", weights)

    def forward(self, image: Tensor) -> Tensor:
        score = (self.conv(image)[:, 0] * self.weights).sum((1, 2))
        return torch.stack([score, 0 * score], dim=1)


BOXES = [
    (0.1, 0.1, 0.3, 0.3),
    (0.4, 0.4, 0.6, 0.6),
    (0.65, 0.15, 0.85, 0.35),
    (0.7, 0.7, 0.95, 0.95),
    (0.4, 0.7, 0.6, 0.95),
]


def explain_region(
    box: tuple[float, float, float, float], size: tuple[int, int], target: int = 0
) -> seewhy.Explanation:
    """Explain and check a network that reads one part of an image with fine structure, which blurring removes."""
    model = Region(box, size).double()
    image = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    top, left, bottom, right = (round(edge * length) for edge, length in zip(box, size * 2, strict=True))
    image[..., top:bottom, left:right] += 3  # blurring moves a part of it to the dark surroundings
    return seewhy.trust.check(model, seewhy.explain(model, image, layers="conv", methods="hirescam", targets=target))


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (120, 56)], ids=str)
@pytest.mark.parametrize("box", BOXES, ids=str)
def test_the_maximum_lies_in_the_region_that_counts(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> None:
    one = explain_region(box, size)[0].measured_map()
    assert one.shape == (GRID, GRID) and float(one.min()) < 0 < float(one.max())
    row, column = divmod(int(one.argmax()), GRID)
    assert box[0] <= (row + 0.5) / GRID <= box[2] and box[1] <= (column + 0.5) / GRID <= box[3]


def test_heatmap_and_overlay_are_drawn_as_others() -> None:
    e = explain_region(BOXES[2], (48, 96))[0]
    heatmap = e.measured_heatmap()
    assert heatmap.shape == (48, 96) and float(heatmap.max()) == 1 and float(heatmap.min()) == 0
    row, column = divmod(int(heatmap.argmax()), 96)
    assert 0.65 <= row / 48 <= 0.85 and 0.15 <= column / 96 <= 0.35
    overlay = e.measured_overlay(longest=None)
    assert isinstance(overlay, Image.Image) and overlay.size == e.overlay(longest=None).size
    assert np.abs(np.array(overlay).astype(int) - np.array(e.overlay(longest=None))).max() > 30
    assert len(e.maps) == 1  # the measured map is no method


def test_batches_and_targets() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 3, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    images = torch.rand(3, 3, 32, 40)
    images[..., 8:20, 5:17] *= 4
    e = seewhy.trust.check(model, seewhy.explain(model, images, layers="0", targets=["top1", 2]))
    assert set(e.drops) == set(e.targets) and all(len(found) == 3 for found in e.drops.values())
    usable = [image for image in range(3) if not e.drops["2"][image].reason]
    assert len(usable) == 2  # the third image has another class, so covering it raises the log-odds of class 2
    for image in usable:
        one = e[image]
        assert one.drops["2"] == (e.drops["2"][image],)
        assert one.measured_map(2).shape == (GRID, GRID)
    with pytest.raises(ChoiceError, match="2 targets"):
        e.measured_map()
    repeated = dataclasses.replace(e, drops={"2": tuple(e.drops["2"][usable[0]] for _ in range(3))})
    assert repeated.measured_map(2).shape == (3, GRID, GRID) and repeated.measured_heatmap(2).shape == (3, 32, 40)
    with pytest.raises(ChoiceError, match=r"use e\[0\]"):
        repeated.measured_overlay(2)


def test_a_score_that_does_not_depend_on_the_image_has_no_map() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    nn.init.zeros_(model[3].weight)  # type: ignore[arg-type]
    e = seewhy.explain(model, torch.rand(2, 1, 32, 32), layers="0", targets=1)
    with pytest.raises(UsageError, match=r"nothing was measured: call e = seewhy.trust.check\(model, e\) first"):
        e.measured_map()
    e = seewhy.trust.check(model, e)
    assert e.drops["1"][0] == WindowDrops(
        (0.0,) * MASKS, 0.0, "the score does not drop when the entire image is blurred"
    )
    with pytest.raises(
        UsageError, match="there is no measured map for class 1 in image 0: the score does not drop when"
    ):
        e.measured_map()
    with pytest.raises(UsageError, match="there is no measured map for class 1: the score does not drop when"):
        e[1].measured_overlay()


def test_drops_are_saved_and_loaded(tmp_path: Path) -> None:
    e = explain_region(BOXES[1], (64, 64))
    e[0].save(tmp_path / "run")
    loaded = seewhy.load_explanation(tmp_path / "run")
    assert loaded.drops == e[0].drops and loaded.drops["0"][0].everything > 0
    assert torch.equal(loaded.measured_map(0), e[0].measured_map())
    record = json.loads((tmp_path / "run" / "explanation.json").read_text())
    assert len(record["drops"]["0"]["values"]) == MASKS and "reason" not in record["drops"]["0"]
    del record["drops"]  # as in files of earlier versions
    (tmp_path / "run" / "explanation.json").write_text(json.dumps(record))
    assert seewhy.load_explanation(tmp_path / "run").drops == {}
    for damaged in ({"values": [0.5] * 26}, {}, {"values": [1e200] * 13 + [-1e300] * 14}):
        record["drops"] = {"0": damaged}
        (tmp_path / "run" / "explanation.json").write_text(json.dumps(record))
        if len(damaged.get("values", [])) == MASKS:
            assert seewhy.load_explanation(tmp_path / "run").measured_map().isfinite().all()
            continue
        with pytest.raises(UsageError, match=r"drops\['0'\]\.values: \d+ drops instead of 27"):
            seewhy.load_explanation(tmp_path / "run")


def test_reasons_are_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    e = seewhy.trust.check(model, seewhy.explain(model, torch.rand(1, 1, 6, 6), layers="0", targets=0))
    assert e.drops["0"][0] == WindowDrops(reason="the image is smaller than 8 pixels")
    e[0].save(tmp_path / "run")
    assert seewhy.load_explanation(tmp_path / "run").drops == e[0].drops
