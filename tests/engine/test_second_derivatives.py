"""Networks with an operation of which PyTorch has no second derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import MethodError
from seewhy.methods.base import Method
from seewhy.signals.layer import Need, Signals
from seewhy.signals.scoring import LogitPlusLogProbability, Scoring

REASON = "it needs second derivatives, and PyTorch has none for hardsigmoid, which the model uses"


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.Hardsigmoid(), nn.Conv2d(4, 4, 3)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


@pytest.mark.parametrize("prepare", [lambda net: net, seewhy.prepare], ids=["plain", "prepared"])
@pytest.mark.parametrize("methods", ["shapleycam", ["gradcam", "shapleycam"], "smooth(shapleycam,samples=2)"])
def test_a_named_method_is_an_error(net: nn.Module, methods: list[str], prepare: Callable[[nn.Module], object]) -> None:
    with pytest.raises(MethodError, match=REASON):
        seewhy.explain(prepare(net), torch.rand(1, 3, 16, 16), methods=methods, layers="0")  # type: ignore[arg-type]


def test_other_methods_of_a_group_keep_their_maps(net: nn.Module) -> None:
    inputs = torch.rand(2, 3, 16, 16)
    together = seewhy.explain(net, inputs, methods="fast", layers=["0", "2"], targets=[0, 1])
    alone = seewhy.explain(net, inputs, methods="gradcam", layers=["0", "2"], targets=[0, 1])
    assert f"shapleycam is skipped: {REASON}." in together.notes
    assert all(torch.equal(maps, together.maps[key]) for key, maps in alone.maps.items())
    assert "shapleycam" not in together.methods


@dataclass(frozen=True)
class Refusing(Method):
    """A method that supports no layer."""

    needs = Need.GRADIENTS

    @property
    def scoring(self) -> Scoring:
        return LogitPlusLogProbability()  # as shapleycam, which then shares its backward pass

    def __call__(self, signals: Signals) -> Tensor:
        raise MethodError("", "not at this layer")


def test_the_error_of_another_method_keeps_its_name(net: nn.Module) -> None:
    net[1] = nn.Tanh()  # has a second derivative
    with pytest.raises(MethodError, match=r"^method refusing.*: not at this layer"):
        seewhy.explain(net, torch.rand(1, 3, 16, 16), methods=["shapleycam", Refusing()], layers="0")
