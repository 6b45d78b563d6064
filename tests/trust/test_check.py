"""The check: its statistic against a direct implementation, its size on unrelated maps, and its verdicts on planted models."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy.errors import UsageError
from seewhy.explanation.checks import MapCheck, chance_confirmations
from seewhy.trust.map_checks.copies import FINE, SHIFT, covered_sums
from seewhy.trust.map_checks.statistic import check_maps, correlation, interval, judge, why_no_drops
from seewhy.trust.map_checks.windows import window_masks

Array = NDArray[np.float64]


def slow_copies(fine: Array) -> list[Array]:
    """Return the 63 copies of a map: turned, mirrored, and shifted with a repeated border."""
    copies = []
    for orientation in range(1, 8):
        turned = np.rot90(fine[:, ::-1] if orientation >= 4 else fine, orientation % 4)
        padded = np.pad(turned, SHIFT, mode="edge")
        copies += [padded[y : y + FINE, x : x + FINE] for y in (0, SHIFT, 2 * SHIFT) for x in (0, SHIFT, 2 * SHIFT)]
    return copies


def slow_sums(fine: Array) -> Array:
    """Return the sum of a map under each mask, cell by cell."""
    masks = F.adaptive_avg_pool2d(window_masks((4 * FINE, 4 * FINE))[:, None], FINE)[:, 0].numpy()
    return np.array([((fine - fine.mean()) * mask).sum() for mask in masks])


def random_map(seed: int, sigma: float = 6) -> Tensor:
    """Return a smooth random map with positive values and a location."""
    noise = np.random.default_rng(seed).normal(size=(FINE, FINE))
    return torch.from_numpy(np.maximum(ndimage.gaussian_filter(noise, sigma), 0))


def test_sums_of_copies_equal_those_of_a_direct_computation() -> None:
    """One multiplication and index permutations replace 63 turned and shifted maps."""
    one = random_map(0)
    own, copies = covered_sums(one[None])
    np.testing.assert_allclose(own[0], slow_sums(one.numpy()), atol=1e-9)
    expected = np.stack([slow_sums(copy) for copy in slow_copies(one.numpy())])
    distances = np.abs(copies[0][:, None] - expected).max(2)
    assert sorted(distances.argmin(1)) == list(range(63))  # each copy exists once, in another order
    assert distances.min(1).max() < 1e-9


def test_correlation_is_that_of_pearson_in_each_mode() -> None:
    random = np.random.default_rng(1)
    sums, drops = random.normal(size=27), random.normal(size=27)
    expected = np.mean([np.corrcoef(sums[at : at + 9], drops[at : at + 9])[0, 1] for at in (0, 9, 18)])
    assert correlation(sums, drops) == pytest.approx(expected)


def test_interval_equals_that_of_fisher() -> None:
    low, high = interval(0.57)
    assert (math.atanh(0.57) - math.atanh(low)) == pytest.approx(1.96 / math.sqrt(24))
    assert (math.atanh(high) - math.atanh(0.57)) == pytest.approx(1.96 / math.sqrt(24))


def test_a_map_that_predicts_the_drops_is_confirmed() -> None:
    one = random_map(2)
    drops = slow_sums(one.numpy())
    (check,) = check_maps(one[None], drops)
    assert check.verdict == "confirmed" and check.r == pytest.approx(1) and check.p == pytest.approx(1 / 64)
    (opposite,) = check_maps(one[None], -drops)
    assert opposite.verdict == "contradicted" and opposite.r == pytest.approx(-1)


def test_unrelated_maps_are_confirmed_at_the_level() -> None:
    """Smooth random maps against the drops of other random maps: 5 % within four standard errors."""
    maps = torch.stack([random_map(seed) for seed in range(400)])
    drops = [slow_sums(random_map(1000 + seed).numpy()) for seed in range(10)]
    confirmed = [check.verdict == "confirmed" for one in drops for check in check_maps(maps, one)]
    assert np.mean(confirmed) == pytest.approx(0.05, abs=0.015)


def test_a_blob_in_the_center_is_not_specific() -> None:
    """It predicts the drops of a centered object, and so do its copies."""
    y, x = np.mgrid[:FINE, :FINE] - (FINE - 1) / 2
    blob = np.exp(-(y**2 + x**2) / (2 * 10**2))
    (check,) = check_maps(torch.from_numpy(blob)[None], slow_sums(blob))
    assert check.verdict == "not specific" and check.r > 0.9


@pytest.mark.parametrize(
    ("r", "p", "verdict"),
    [
        (0.6, 0.04, "confirmed"),
        (0.6, 0.06, "not specific"),
        (0.2, 0.5, "inconclusive"),
        (-0.1, 0.04, "inconclusive"),
        (-0.6, 0.97, "contradicted"),
        (-0.6, 0.5, "inconclusive"),
    ],
)
def test_verdicts(r: float, p: float, verdict: str) -> None:
    assert judge(r, p).verdict == verdict


def test_each_verdict_has_a_sentence() -> None:
    for verdict in ("confirmed", "not specific", "inconclusive", "contradicted"):
        text = MapCheck(verdict, 0.57, 0.25, 0.78, 0.02).sentence("minibus")  # type: ignore[arg-type]
        assert (text.endswith(f"{verdict}.") and "minibus" in text) or verdict == "inconclusive"
        assert "0.57, 0.25 to 0.78" in text
    assert MapCheck("not checked", reason="the map is blank").sentence("x") == "Not checked: the map is blank."
    assert chance_confirmations(49) == pytest.approx(2.45)


class Corner(nn.Module):
    """Class 0 is the brightness of one part of the image; class 1 is constant."""

    def __init__(self, part: tuple[slice, slice]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        weights = torch.zeros(32, 32)
        weights[part] = 1 / weights[part].numel()
        self.register_buffer("weights", weights)

    def forward(self, image: Tensor) -> Tensor:
        score = (self.conv(image)[:, 0] * self.weights).sum((1, 2))
        return torch.stack([5 * score, 0 * score], dim=1)


@pytest.fixture
def image() -> Tensor:
    random = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    image = 0.2 * random
    image[..., 20:30, 3:11] += 3  # bright, so that blurring or hiding it matters
    return image


def test_a_map_of_the_part_that_counts_is_confirmed(image: Tensor) -> None:
    model = Corner((slice(20, 30), slice(3, 11)))
    e = seewhy.trust.check(model, seewhy.explain(model, image, layers="conv", methods="hirescam", targets=0))
    check = e[0].check()
    assert isinstance(check, MapCheck)
    assert check.verdict == "confirmed" and check.r > 0.8


def test_a_map_elsewhere_is_not_confirmed(image: Tensor) -> None:
    model = Corner((slice(20, 30), slice(3, 11)))
    e = seewhy.explain(model, image, layers="conv", methods="hirescam", targets=0)
    elsewhere = {key: one.flip(-1, -2) for key, one in e.maps.items()}
    check = seewhy.trust.check(model, dataclasses.replace(e, maps=elsewhere))[0].check()
    assert isinstance(check, MapCheck)
    assert check.verdict in ("inconclusive", "contradicted")


def test_reasons_why_a_map_is_not_checked(image: Tensor) -> None:
    model = Corner((slice(20, 30), slice(3, 11)))
    e = seewhy.explain(model, image, layers="conv", methods="hirescam", targets=0)

    def reason(**fields: object) -> str:
        check = seewhy.trust.check(model, dataclasses.replace(e, **fields))[0].check()  # type: ignore[arg-type]
        assert isinstance(check, MapCheck) and check.verdict == "not checked" and math.isnan(check.r)
        return check.reason

    def changed(one: Tensor) -> dict[str, object]:
        return {"maps": {key: one for key in e.maps}}

    one = next(iter(e.maps.values()))
    assert reason(**changed(-one)) == "the map has no positive evidence"
    assert reason(**changed(torch.ones_like(one))) == "the map has the same value everywhere"
    assert "not finite" in reason(**changed(one.masked_fill(one > 0, torch.nan)))
    assert (
        reason(has_gradient={(e.targets[0], "conv"): torch.tensor([False])})
        == "the score does not depend on this layer"
    )


def test_a_score_that_covering_does_not_change_gives_no_verdict() -> None:
    model = Corner((slice(20, 30), slice(3, 11)))
    e = seewhy.explain(model, torch.rand(1, 1, 32, 32), layers="conv", methods="hirescam", targets=1)
    check = seewhy.trust.check(model, e)[0].check()
    assert isinstance(check, MapCheck) and check.verdict == "not checked"
    assert why_no_drops(np.zeros(27)) == "the score does not change when parts of the image are covered"
    assert "not a finite number" in why_no_drops(np.array([math.inf, *[0.0] * 26]))


@pytest.mark.parametrize("size", [(6, 6), (32,), (9, 16, 16)], ids=str)
def test_inputs_without_windows_are_not_checked(size: tuple[int, ...]) -> None:
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(size)]
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[len(size)]
    model = nn.Sequential(kind(1, 3, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(3, 2))
    e = seewhy.trust.check(model, seewhy.explain(model, torch.rand(1, 1, *size), layers="0"))
    check = e[0].check()
    assert isinstance(check, MapCheck) and check.verdict == "not checked"
    assert ("images only" in check.reason) == (len(size) != 2)


def test_batches_targets_and_single_images_agree() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).double()
    images = torch.rand(3, 3, 40, 48, dtype=torch.double)
    settings = {"layers": "every", "methods": ["gradcam", "hirescam"], "targets": ["top1", 2]}
    e = seewhy.trust.check(model, seewhy.explain(model, images, **settings))  # type: ignore[arg-type]
    assert e.checks.keys() == e.maps.keys()
    for number in range(3):
        one = seewhy.trust.check(model, seewhy.explain(model, images[number][None], **settings))  # type: ignore[arg-type]
        for key, checks in e[number].checks.items():
            expected = one[0].checks[key]
            assert [check.verdict for check in checks] == [check.verdict for check in expected]
            assert checks[0].r == pytest.approx(expected[0].r, abs=1e-9, nan_ok=True)


def test_the_model_is_run_28_times_per_image_and_once_for_the_scores() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    rows = []

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> Tensor:
            rows.append(len(image))
            return self.model(image)

    counted = Counted()
    e = seewhy.explain(counted, torch.rand(1, 3, 32, 32), layers="every", methods=["gradcam", "layercam", "hirescam"])
    rows.clear()
    done: list[tuple[int, int]] = []
    seewhy.trust.check(counted, e, progress=lambda *values: done.append(values))
    assert sum(rows) <= 32
    assert done[0] == (0, 28) and done[-1] == (28, 28)


def test_another_model_is_an_error() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()) for _ in range(2)]
    e = seewhy.explain(models[0], torch.rand(1, 3, 16, 16), layers="0", targets=0)
    with pytest.raises(UsageError, match="Pass the model that was explained"):
        seewhy.trust.check(models[1], e)
    with pytest.raises(UsageError, match="were not checked"):
        e.check()


def test_checks_are_saved_and_loaded(tmp_path: Path, image: Tensor) -> None:
    model = Corner((slice(20, 30), slice(3, 11)))
    e = seewhy.trust.check(model, seewhy.explain(model, image, layers="conv", methods="hirescam", targets=0))
    folder = tmp_path / "run"
    e[0].save(folder)
    loaded = seewhy.load_explanation(folder)
    assert loaded.checks == e[0].checks
    record = json.loads(Path(folder, "explanation.json").read_text())
    assert record["maps"][0]["check"]["verdict"] == "confirmed"
    with pytest.raises(UsageError, match="does not contain the model's input"):
        seewhy.trust.check(model, loaded)


def test_the_model_is_not_changed(image: Tensor) -> None:
    model = Corner((slice(20, 30), slice(3, 11))).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seewhy.trust.check(model, seewhy.explain(model, image, layers="conv", methods="hirescam", targets=0))
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
