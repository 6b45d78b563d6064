"""Every method of the catalog keeps the contract, and `check_method` sees one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from seewhy.methods.base import Method
from seewhy.methods.catalog import METHODS
from seewhy.signals.layer import Need, Signals
from seewhy.testing import check_method

# Fewer samples, or the smaller networks would be asked a hundred thousand times.
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
# Groups of consecutive channels, random weights and starts, a noise for each channel: there the order is a part of it.
ORDERED = {"groupcam", "randomcam", "sscam", "deepfeaturefactorization"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", [entry.name for entry in METHODS])
def test_every_method_keeps_the_contract(name: str) -> None:
    checked = check_method(SETTINGS.get(name, name), ordered_channels=name in ORDERED)
    assert len(checked) == (7 if name in ORDERED else 8) or name in TRANSFORMERS


TRANSFORMERS = {"attentionrollout", "attentionrelevance", "legrad", "gradeclip", "vitreciprocam"}


@dataclass(frozen=True)
class Own(Method):
    """A method that someone else wrote."""

    kind: str = "right"

    def __call__(self, at: Signals) -> Tensor:
        maps = at.contributions.sum(1)
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
                return (
                    at.contributions * torch.arange(at.activations.shape[1]).reshape(-1, *[1] * (maps.dim() - 1))
                ).sum(1)
        return maps


@dataclass(frozen=True)
class Greedy(Method):
    """Reads gradients without asking for them."""

    needs = Need.NOTHING

    def __call__(self, at: Signals) -> Tensor:
        return at.gradients.sum(1)


def test_a_method_of_ones_own_is_checked_in_one_line() -> None:
    assert "the model comes back bit for bit" in [line.lower() for line in check_method(Own())]


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("batch", "one by one"),
        ("shape", "on the grid"),
        ("infinite", "not finite"),
        ("random", "second time"),
        ("order", "channels reversed"),
    ],
)
def test_what_breaks_the_contract_is_named(kind: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_method(Own(kind))


def test_a_method_that_does_not_say_what_it_needs_fits_nothing() -> None:
    with pytest.raises(AssertionError, match="it fits none"):
        check_method(Greedy())
