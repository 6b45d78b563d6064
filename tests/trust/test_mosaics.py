"""Mosaics: evidence in foreign cells, for methods that can separate cells and for those that cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import UsageError
from seewhy.trust.metrics.mosaic_scores import difull, grid_pg
from seewhy.trust.metrics.mosaics import CellTail, cell_fractions, make_mosaic, split_mosaic

SIDE = 2


@pytest.fixture
def tail() -> nn.Module:
    """A random tail with two layers."""
    torch.manual_seed(0)
    parts = nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    return nn.Sequential(*parts).double()


def activations(seed: int) -> Tensor:
    """Return the stitched activations of four random cells."""
    generator = torch.Generator().manual_seed(seed)
    return make_mosaic(torch.randn(4, 16, 4, 4, dtype=torch.double, generator=generator).relu())


def test_mosaics_are_split_into_their_images() -> None:
    images = torch.rand(9, 3, 4, 5)
    mosaic = make_mosaic(images)
    assert mosaic.shape == (1, 3, 12, 15)
    assert torch.equal(split_mosaic(mosaic, 3), images)
    assert torch.equal(mosaic[0, :, 4:8, 10:15], images[5])
    both = split_mosaic(torch.cat([mosaic, mosaic + 1]), 3)
    assert torch.equal(both[9:], images + 1)
    with pytest.raises(ValueError, match="not 5"):
        make_mosaic(images[:5])


def test_the_score_depends_on_one_cell(tail: nn.Module) -> None:
    mosaic = activations(0)
    model = CellTail(tail, SIDE, 3)
    torch.testing.assert_close(model(mosaic), tail(mosaic[..., 4:, 4:]))
    changed = mosaic.clone()
    changed[..., :4, :] += 1
    torch.testing.assert_close(model(changed), model(mosaic))


def slow_fractions(one: Tensor, side: int) -> list[float]:
    sums = [0.0] * side**2
    height, width = one.shape
    for y in range(height):
        for x in range(width):
            sums[y * side // height * side + x * side // width] += max(float(one[y, x]), 0)
    return [value / sum(sums) for value in sums]


def test_fractions_equal_those_of_a_loop() -> None:
    one = torch.randn(6, 9, generator=torch.Generator().manual_seed(1)).double()
    assert cell_fractions(one, 3).tolist() == pytest.approx(slow_fractions(one, 3))
    assert cell_fractions(torch.ones(4, 4), 2).tolist() == [0.25] * 4
    assert cell_fractions(-torch.ones(4, 4), 2).isnan().all()
    with pytest.raises(ValueError, match="no equal parts"):
        cell_fractions(torch.ones(7, 7), 2)


def test_elementwise_methods_stay_in_the_cell_and_channel_weights_leak(tail: nn.Module) -> None:
    """The gradient is 0 in foreign cells; a weight per channel also applies to the activations there."""
    own: dict[str, list[float]] = {"hirescam": [], "layercam": [], "gradcam": [], "xgradcam": []}
    model = CellTail(tail, SIDE, 3)
    for seed in range(40):
        e = seewhy.explain(model, activations(seed), layers="stitched", methods=list(own), targets=0)
        for method, values in own.items():
            values.append(float(cell_fractions(e[0].map(method=method), SIDE)[3]))
    means = {method: torch.tensor(values).nanmean().item() for method, values in own.items()}
    assert means["hirescam"] == means["layercam"] == 1
    assert means["gradcam"] == pytest.approx(0.25, abs=0.04)
    assert means["xgradcam"] == pytest.approx(0.25, abs=0.06)


class Halves(nn.Module):
    """Class 0 is red, class 1 green: the score of a class depends on its color only, wherever it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.conv(x).relu().mean((2, 3))
        return scores


def test_grid_pg_finds_the_cells_of_each_class() -> None:
    """One red image among green ones: all evidence for red is there; that for green is spread over three cells."""
    images = torch.zeros(4, 3, 4, 4)
    images[0, 0] = 1
    images[1:, 1] = 1
    found = grid_pg(Halves(), images, [0, 1, 1, 1], methods=["gradcam", "hirescam"], layer="conv")
    for values in found.values():
        np.testing.assert_allclose(values, [1, 1 / 3, 1 / 3, 1 / 3], atol=1e-6)


def test_difull_equals_the_map_of_the_tail(tail: nn.Module) -> None:
    images = torch.randn(4, 16, 4, 4, dtype=torch.double, generator=torch.Generator().manual_seed(3)).relu()
    found = difull(nn.Identity(), tail, images, 2, cell=1, methods=["gradcam", "hirescam", "layercam"])
    e = seewhy.explain(CellTail(tail, SIDE, 1), make_mosaic(images), layers="stitched", methods="gradcam", targets=2)
    assert found["gradcam"] == pytest.approx(slow_fractions(e.map()[0], SIDE)[1])
    assert found["hirescam"] == pytest.approx(1) and found["layercam"] == pytest.approx(1)
    assert found["gradcam"] < 0.6


@pytest.mark.parametrize(
    ("count", "classes", "message"),
    [(5, [0] * 5, "not 5"), (1, [0], "not 1"), (4, [0, 1], "2 classes for 4 images")],
)
def test_mosaics_of_another_number_are_refused(count: int, classes: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grid_pg(Halves(), torch.rand(count, 3, 4, 4), classes, layer="conv")


def test_difull_refuses_a_cell_that_does_not_exist(tail: nn.Module) -> None:
    with pytest.raises(UsageError, match="cells 0 to 3"):
        difull(nn.Identity(), tail, torch.rand(4, 16, 4, 4).double(), 0, cell=4)


def test_difull_does_not_change_the_model(tail: nn.Module) -> None:
    first = nn.Sequential(nn.BatchNorm2d(16)).double().train()
    before = {name: value.clone() for name, value in first.state_dict().items()}
    difull(first, tail, torch.rand(4, 16, 4, 4).double(), 0, cell=0, methods="hirescam")
    assert first.training and all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
