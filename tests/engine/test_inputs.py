"""Models of several inputs, extra arguments, and outputs of every shape: explained as if there were one of each."""

from __future__ import annotations

import warnings
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import UnknownName, UsageError
from seewhy.tracing.single_input import SingleInputModel, has_batch_axis

GRADIENT = ["gradcam", "hirescam", "layercam"]
ASKING = ["scorecam", "ablationcam", "occlusion(window=0.4)", "smooth(samples=2)"]


class Gated(nn.Module):
    """A picture and a vector that gates its channels: the maps depend on both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, image: Tensor, gate: Tensor, scale: float = 1.0, *, shift: Tensor | None = None) -> Tensor:
        features = self.conv(image).relu() * gate[:, :, None, None] * scale
        found: Tensor = self.head(features.flatten(1))
        return found if shift is None else found + shift


@pytest.fixture
def gated() -> Gated:
    torch.manual_seed(0)
    return Gated().double()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def gates() -> Tensor:
    return torch.tensor([[1.0, 0.0, 2.0, 0.5], [0.0, 1.0, 1.0, 3.0]], dtype=torch.float64)


def closed(net: Gated, gate: Tensor, scale: float = 1.0) -> nn.Module:
    """The same for one gate, as a user would have to write it by hand."""

    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, image: Tensor) -> Tensor:
            found: Tensor = self.net(image, gate.expand(len(image), -1), scale)
            return found

    return Closed()


@pytest.mark.parametrize("form", ["tuple", "dict", "arguments", "mixed"])
def test_every_method_sees_the_other_inputs(gated: Gated, images: Tensor, gates: Tensor, form: str) -> None:
    extra: dict[str, Any] = {}
    inputs: Any = images
    match form:
        case "tuple":
            inputs = (images, gates, 2.0)
        case "dict":
            inputs = {"gate": gates, "image": images, "scale": 2.0}
        case "arguments":
            extra = {"arguments": {"gate": gates, "scale": 2.0}}
        case "mixed":
            inputs, extra = (images, gates), {"arguments": {"scale": 2.0}}
    e = seewhy.explain(gated, inputs, methods=GRADIENT + ASKING, layers="conv", targets=1, **extra)
    for picture in range(2):
        alone = seewhy.explain(
            closed(gated, gates[picture], 2.0), images[picture : picture + 1], methods=GRADIENT + ASKING,
            layers="net.conv", targets=1,
        )  # fmt: skip
        for method, other in zip(e.methods, alone.methods, strict=True):
            if method.startswith("smooth"):
                continue  # noise is drawn for the batch
            torch.testing.assert_close(e.map(method)[picture], alone.map(other)[0], msg=f"{method} {picture}")
    assert any("other arguments: " in note for note in e.notes) == (form != "arguments")


def test_suggestion_network_methods_and_the_model_itself(gated: Gated, images: Tensor, gates: Tensor) -> None:
    before = {name: value.clone() for name, value in gated.state_dict().items()}
    e = seewhy.explain(gated, (images, gates), methods=["gradcam", "fullgrad", "rise(masks=4)"])
    assert e.layers[0] == "conv"
    torch.testing.assert_close(e.logits, gated(images, gates).detach())
    assert all(torch.equal(value, before[name]) for name, value in gated.state_dict().items())


class Stereo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (self.conv(left) - 2 * self.conv(right).relu()).mean((2, 3))


def test_of_two_pictures_one_must_be_named(images: Tensor) -> None:
    net = Stereo().double()
    both = {"left": images, "right": images.flip(3)}
    with pytest.raises(UsageError, match="choose one, for example main='left'"):
        seewhy.explain(net, both)
    with pytest.raises(UnknownName, match="did you mean 'right'"):
        seewhy.explain(net, both, main="rigth")
    left, right = (seewhy.explain(net, both, main=main, layers=["conv#1", "conv#2"], targets=0) for main in both)
    torch.testing.assert_close(left.map(layer="conv#1"), right.map(layer="conv#1"))
    assert torch.equal(left.inputs, images) and torch.equal(right.inputs, images.flip(3))  # type: ignore[arg-type]
    second = seewhy.explain(net, tuple(both.values()), main=1, layers="conv#2", targets=0)
    torch.testing.assert_close(second.map(), right.map(layer="conv#2"))


def test_wrong_inputs(gated: Gated, images: Tensor) -> None:
    with pytest.raises(UsageError, match="there is only one input"):
        seewhy.explain(gated, images, main="image")
    with pytest.raises(UsageError, match="none is a float tensor"):
        seewhy.explain(gated, {"ids": torch.zeros(2, 5, dtype=torch.long)})
    with pytest.raises(UsageError, match="with different shapes"):
        seewhy.explain(gated, [torch.rand(3, 8, 8), torch.rand(3, 9, 8)])


def test_a_list_of_tensors_is_a_batch() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inputs = torch.rand(2, 3, 8, 8)
    e = seewhy.explain(net, list(inputs), layers="0", targets=1)
    torch.testing.assert_close(e.map(), seewhy.explain(net, inputs, layers="0", targets=1).map())


def test_rows_are_told_from_settings() -> None:
    assert has_batch_axis(torch.zeros(3, 2), 3) and has_batch_axis(torch.zeros(3), 3)
    assert has_batch_axis(torch.zeros(1, dtype=torch.long), 1) and not has_batch_axis(torch.zeros(1), 1)
    assert not has_batch_axis(torch.tensor(1.0), 1) and not has_batch_axis(torch.zeros(2, 2), 3)
    with pytest.raises(TypeError):
        SingleInputModel(nn.Identity(), (), {}, "missing", 1)(torch.zeros(1))


@dataclass
class Found:
    hidden: Tensor
    logits: Tensor


Pair = namedtuple("Pair", "scores extra")


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y,
        lambda y: (y, None),
        lambda y: [y],
        lambda y: {"out": y, "aux": y * 2},
        lambda y: {"hidden": y * 2, "logits": y},
        lambda y: Pair(y, 3),
        lambda y: {"nested": {"deep": (y,)}},
    ],
)
def test_outputs_of_every_shape(form: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return form(self.head(self.conv(x).relu().mean((2, 3))))

    net, inputs = Net(), torch.rand(2, 3, 8, 8)
    e = seewhy.explain(net, inputs, methods=["gradcam", "scorecam", "ablationcam"], layers="conv", targets=[0, "top1"])
    plain = nn.Sequential(net.conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.head)
    other = seewhy.explain(
        plain, inputs, methods=["gradcam", "scorecam", "ablationcam"], layers="0", targets=[0, "top1"]
    )
    for mine, its in zip(e.maps.values(), other.maps.values(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-6)


def test_a_dataclass_as_output() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Found:
            y = self.conv(x)
            return Found(y, y.mean((2, 3)))

    e = seewhy.explain(Net(), torch.rand(1, 3, 8, 8), layers="conv", targets=lambda out: out.logits[:, 2])
    assert float(e.map().abs().sum()) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seewhy.explain(Net(), torch.rand(1, 3, 8, 8), layers="conv", targets=2).logits is not None
