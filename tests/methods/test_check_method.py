"""Every method of the catalog keeps its contract on every network that it supports, and `check_method` detects violations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.methods.base import Method
from seewhy.methods.catalog import METHODS
from seewhy.signals.layer import Need, Signals
from seewhy.testing import NETWORKS, check_method

# Fewer samples than by default: the tests run each method several hundred times.
SETTINGS = {
    "sscam": "sscam(samples=2)",
    "opticam": "opticam(steps=3)",
    "occlusion": "occlusion(window=0.5,stride=0.25)",
    "rise": "rise(masks=40,grid=3)",
    "smooth": "smooth(samples=3)",
    "smoothgradcam++": "smoothgradcam++(samples=3)",
    "integrated": "integrated(steps=3)",
    "cameras": "cameras(sizes=2)",
    "sess": "sess(scales=3)",
    "vitreciprocam": "vitreciprocam(block=-1)",
}
# The result depends on the order of the channels: groups of consecutive channels, random weights, noise per channel.
ORDERED = {"groupcam", "randomcam", "sscam", "deepfeaturefactorization"}

ALL = frozenset(NETWORKS)
TRANSFORMER = frozenset({"transformer"})
# The networks that each method must support. Methods that are not listed support all of them.
SUPPORTED = {
    "cam": {"last_layer"},
    "refinecam": ALL - {"last_layer"},  # needs two layers
    "layercamfusion": ALL - {"last_layer"},
    "polycam": ALL - {"last_layer", "transformer"},  # needs two grids
    "cameras": ALL - {"flat", "transformer"},  # needs a model that accepts any input size
    "attentionrollout": TRANSFORMER,
    "attentionrelevance": TRANSFORMER,
    "legrad": TRANSFORMER,
    "gradeclip": TRANSFORMER,
    "vitreciprocam": TRANSFORMER,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", [entry.name for entry in METHODS])
def test_catalog_method_keeps_the_contract(name: str) -> None:
    supports = SUPPORTED.get(name, ALL)
    checks = check_method(SETTINGS.get(name, name), supports=supports, ordered_channels=name in ORDERED)
    assert len(checks) == (7 if name in ORDERED else 8)


def test_table_of_supported_networks_names_existing_methods_and_networks() -> None:
    assert set(SUPPORTED) <= {entry.name for entry in METHODS}
    assert all(networks <= ALL for networks in SUPPORTED.values())


@dataclass(frozen=True)
class CustomMethod(Method):
    """A method with one selectable violation of the contract."""

    kind: str = "correct"

    def __call__(self, signals: Signals) -> Tensor:
        maps = signals.contributions.sum(1)
        match self.kind:
            case "batch":
                return maps - maps.mean()
            case "shape":
                return maps.flatten(1)
            case "infinite":
                return maps / 0
            case "random":
                return maps * torch.rand(())
            case "order":
                positions = torch.arange(signals.activations.shape[1]).reshape(-1, *[1] * (maps.dim() - 1))
                return (signals.contributions * positions).sum(1)
        return maps


@dataclass(frozen=True)
class TwoAxesOnly(Method):
    """A method that silently supports only five of the six networks: it rejects 3-D grids."""

    def __call__(self, signals: Signals) -> Tensor:
        if signals.activations.dim() > 4:
            raise MethodError("", "the grid has more than two axes.")
        return signals.contributions.sum(1)


@dataclass(frozen=True)
class UndeclaredGradients(Method):
    """A method that reads gradients without declaring them."""

    needs = Need.NOTHING

    def __call__(self, signals: Signals) -> Tensor:
        return signals.gradients.sum(1)


def test_custom_method_passes() -> None:
    assert "The model is unchanged, bit for bit" in check_method(CustomMethod(), supports=ALL)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("batch", "A batch gives the maps of its images"),
        ("shape", "on the grid"),
        ("infinite", "not finite"),
        ("random", "second time"),
        ("order", "channels reversed"),
    ],
)
def test_violation_is_named(kind: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_method(CustomMethod(kind))


def test_lost_support_for_a_network_fails() -> None:
    """A method that stops supporting one of six networks passes without `supports` and fails with it."""
    assert check_method(TwoAxesOnly())
    assert check_method(TwoAxesOnly(), supports=ALL - {"volumes"})
    with pytest.raises(AssertionError, match="must support network 'volumes', but: the grid has more than two axes"):
        check_method(TwoAxesOnly(), supports=ALL)


def test_unknown_network_in_supports_fails() -> None:
    with pytest.raises(AssertionError, match="the networks are pooled, last_layer"):
        check_method(CustomMethod(), supports=["volume"])


def test_undeclared_need_supports_no_network() -> None:
    with pytest.raises(AssertionError, match="it supports no network"):
        check_method(UndeclaredGradients())
