"""Grids of an earlier pass through a prepared model: fewer hooks, and the same grids in every case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import seewhy
from seewhy.tracing import grid_tracker
from seewhy.tracing.known_grids import KNOWN_GRIDS, KnownGrids
from support.small_architectures import ARCHITECTURES, small_architecture

CASES = [*((name, "all") for name in ARCHITECTURES), ("ResNet", "suggested"), ("ViT", "suggested")]


def images(batch: int = 1, size: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)


def known_grids(prepared: Any) -> dict[Any, KnownGrids]:
    return prepared.fast._module.__dict__.get(KNOWN_GRIDS, {})  # type: ignore[no-any-return]


@pytest.fixture
def inferred(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers whose grid was inferred."""
    names: list[str] = []
    infer = grid_tracker.GridTracker.infer_grid

    def counted(self: Any, name: str, *args: Any) -> Any:
        names.append(name)
        return infer(self, name, *args)

    monkeypatch.setattr(grid_tracker.GridTracker, "infer_grid", counted)
    return names


@pytest.mark.parametrize(("name", "layers"), CASES)
def test_second_call_gives_the_same_grids_without_inference(name: str, layers: str, inferred: list[str]) -> None:
    prepared = seewhy.prepare(small_architecture(name))
    first = seewhy.explain(prepared, images(), layers=layers)
    assert inferred
    inferred.clear()
    again = seewhy.explain(prepared, images(), layers=layers)
    assert not inferred
    assert first.layer_info == again.layer_info and first.notes == again.notes
    assert all(torch.equal(maps, again.maps[key]) for key, maps in first.maps.items())


def test_grids_are_kept_for_layers_shape_and_statement(inferred: list[str]) -> None:
    prepared = seewhy.prepare(small_architecture("ResNet"))
    calls: list[dict[str, Any]] = [
        {"inputs": images()},
        {"inputs": images(2)},
        {"inputs": images(size=96)},
        {"inputs": images(), "layers": "layer1"},
        {"inputs": images(), "layers": ["layer1", "layer2"]},
    ]
    for call in calls:
        inferred.clear()
        seewhy.explain(prepared, **{"layers": "layer4", **call})
        assert inferred, call
    inferred.clear()
    for call in calls:
        seewhy.explain(prepared, **{"layers": "layer4", **call})
    assert not inferred


def test_stated_grid_is_not_that_of_the_call_before() -> None:
    prepared = seewhy.prepare(small_architecture("ViT"))
    layer = seewhy.explain(prepared, images(), layers="blocks").layers[0]
    usual = seewhy.explain(prepared, images(), layers=layer)
    rows, columns = usual.map().shape[-2:]
    stated = seewhy.explain(prepared, images(), layers=layer, grid=(rows // 2, columns * 2))
    assert stated.map().shape[-2:] == (rows // 2, columns * 2)
    assert seewhy.explain(prepared, images(), layers=layer).map().shape == usual.map().shape


class TwoPaths(nn.Module):
    """The layer after the convolution has another output for bright images, although their shape is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.AvgPool2d(2), nn.Hardtanh()
        self.fc = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x) if x.mean() < 1 else self.pool(self.conv(x))
        return self.fc(self.norm(x).mean((2, 3)))  # type: ignore[no-any-return]


def test_another_path_with_the_same_input_shape() -> None:
    torch.manual_seed(0)
    net = TwoPaths().double().eval()
    prepared = seewhy.prepare(net)
    dark, bright = images(size=16), images(size=16) + 5
    for one in (dark, bright, dark, bright):
        own, other = (seewhy.explain(model, one, layers="norm") for model in (prepared, net))
        assert torch.allclose(own.map(), other.map())
        assert own.layer_info == other.layer_info


def test_new_weights_and_modules_start_anew(inferred: list[str]) -> None:
    net = small_architecture("ResNet")
    prepared = seewhy.prepare(net)
    seewhy.explain(prepared, images(), layers="layer4")
    inferred.clear()
    net.maxpool = nn.Identity()
    shape = seewhy.explain(prepared, images(), layers="layer4").map().shape
    assert inferred and shape == seewhy.explain(net, images(), layers="layer4").map().shape


def test_number_of_kept_recordings_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = seewhy.prepare(small_architecture("ResNet"))
    monkeypatch.setattr("seewhy.tracing.known_grids.MAX_KEPT", 3)
    for batch in range(1, 6):
        seewhy.explain(prepared, images(batch, 32), layers="layer1")
    assert len(known_grids(prepared)) == 3


def test_the_model_itself_keeps_nothing() -> None:
    net = small_architecture("ResNet")
    before = set(net.__dict__)
    seewhy.explain(net, images(), layers="layer1")
    seewhy.explain(seewhy.prepare(net), images(), layers="layer1")
    assert set(net.__dict__) == before
