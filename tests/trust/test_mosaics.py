"""Mosaics: evidence in foreign cells, for methods that can separate cells and for those that cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.trust.mosaics import CellTail, cell_fractions, make_mosaic, split_mosaic

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
