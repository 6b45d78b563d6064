"""Models with several inputs or extra arguments, and outputs of different types."""

from __future__ import annotations

import warnings
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError, UnknownName, UsageError
from seewhy.tracing.single_input import SingleInputModel, has_batch_axis

METHODS = ["gradcam", "hirescam", "layercam", "scorecam", "ablationcam", "occlusion(window=0.4)", "smooth(samples=2)"]


class Gated(nn.Module):
    """An image and a vector that scales its channels: the maps depend on both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, image: Tensor, gate: Tensor, scale: float = 1.0, *, shift: Tensor | None = None) -> Tensor:
        features = self.conv(image).relu() * gate[:, :, None, None] * scale
        scores: Tensor = self.head(features.flatten(1))
        return scores if shift is None else scores + shift


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


def bind_gate(net: Gated, gate: Tensor, scale: float = 1.0) -> nn.Module:
    """Return a wrapper with one gate, as a user would write it by hand."""

    class FixedGate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, image: Tensor) -> Tensor:
            scores: Tensor = self.net(image, gate.expand(len(image), -1), scale)
            return scores

    return FixedGate()


@pytest.mark.parametrize("form", ["tuple", "dict", "arguments", "mixed"])
def test_maps_equal_those_of_a_wrapper_with_bound_arguments(
    gated: Gated, images: Tensor, gates: Tensor, form: str
) -> None:
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
    e = seewhy.explain(gated, inputs, methods=METHODS, layers="conv", targets=1, **extra)
    for index in range(2):
        single = seewhy.explain(
            bind_gate(gated, gates[index], 2.0), images[index : index + 1], methods=METHODS,
            layers="net.conv", targets=1,
        )  # fmt: skip
        for method, other in zip(e.methods, single.methods, strict=True):
            if method.startswith("smooth"):
                continue  # its noise depends on the batch size
            torch.testing.assert_close(e.map(method)[index], single.map(other)[0], msg=f"{method} {index}")
    assert any("other arguments: " in note for note in e.notes) == (form != "arguments")


def test_suggestion_and_network_methods_leave_the_model_unchanged(gated: Gated, images: Tensor, gates: Tensor) -> None:
    before = {name: value.clone() for name, value in gated.state_dict().items()}
    e = seewhy.explain(gated, (images, gates), methods=["gradcam", "fullgrad", "rise(masks=4)"])
    assert e.layers[0] == "conv"
    torch.testing.assert_close(e.logits, gated(images, gates).detach())
    assert all(torch.equal(value, before[name]) for name, value in gated.state_dict().items())


class Stereo(nn.Module):
    """Two images of the same size, read by the same layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (self.conv(left) - 2 * self.conv(right).relu()).mean((2, 3))


def test_main_selects_one_of_two_images(images: Tensor) -> None:
    net = Stereo().double()
    both = {"left": images, "right": images.flip(3)}
    first = seewhy.explain(net, both, layers="conv#1", targets=0)
    assert "explained input: 'left'; other arguments: right (main='right' explains another)" in first.notes
    with pytest.raises(UsageError, match="choose one, for example main='left'"):  # of other sizes: not a pair
        seewhy.explain(net, {**both, "right": images[:, :, :4]})
    with pytest.raises(UnknownName, match="did you mean 'right'"):
        seewhy.explain(net, both, main="rigth")
    left, right = (seewhy.explain(net, both, main=main, layers=["conv#1", "conv#2"], targets=0) for main in both)
    assert left.layers == ("conv#1",) and right.layers == ("conv#2",)  # the other call shows the other image
    assert "layers skipped because they do not depend on the explained input: conv#1" in right.notes
    torch.testing.assert_close(left.map(), first.map())
    with pytest.raises(LayerError, match="it does not depend on the explained input; choose another input"):
        seewhy.explain(net, both, layers="conv#2", targets=0)
    assert torch.equal(left.inputs, images) and torch.equal(right.inputs, images.flip(3))  # type: ignore[arg-type]
    second = seewhy.explain(net, tuple(both.values()), main=1, layers="conv#2", targets=0)
    torch.testing.assert_close(second.map(), right.map(layer="conv#2"))


def test_invalid_inputs(gated: Gated, images: Tensor) -> None:
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


def test_has_batch_axis() -> None:
    assert has_batch_axis(torch.zeros(3, 2), 3) and has_batch_axis(torch.zeros(3), 3)
    assert has_batch_axis(torch.zeros(1, dtype=torch.long), 1) and not has_batch_axis(torch.zeros(1), 1)
    assert not has_batch_axis(torch.tensor(1.0), 1) and not has_batch_axis(torch.zeros(2, 2), 3)
    with pytest.raises(TypeError):
        SingleInputModel(nn.Identity(), (), {}, "missing", 1)(torch.zeros(1))


@dataclass
class Output:
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
def test_class_scores_are_found_in_nested_outputs(form: Any) -> None:
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
    for maps, expected in zip(e.maps.values(), other.maps.values(), strict=True):
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


def test_dataclass_output() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Output:
            y = self.conv(x)
            return Output(y, y.mean((2, 3)))

    e = seewhy.explain(Net(), torch.rand(1, 3, 8, 8), layers="conv", targets=lambda out: out.logits[:, 2])
    assert float(e.map().abs().sum()) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seewhy.explain(Net(), torch.rand(1, 3, 8, 8), layers="conv", targets=2).logits is not None


class Matching(nn.Module):
    """Scores of each image for each text, as CLIP returns them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.words = nn.Conv2d(3, 8, 3), nn.Embedding(20, 8)

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        return self.cnn(image).tanh().mean((2, 3)) @ self.words(ids).mean(1).T  # type: ignore[no-any-return]


@pytest.mark.parametrize("texts", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_texts_as_images(count: int, texts: int) -> None:
    """The texts belong to all images, whatever their number."""
    net = Matching().double().eval()
    inputs = torch.randn(count, 3, 12, 10, dtype=torch.float64)
    ids = torch.arange(texts * 4).reshape(texts, 4) % 20
    e = seewhy.explain(net, (inputs, ids), methods=["hirescam", "scorecam"], targets=0)
    features = net.cnn(inputs)
    scores = features.tanh().mean((2, 3)) @ net.words(ids).mean(1).T
    (gradient,) = torch.autograd.grad(scores[:, 0].sum(), features)
    assert torch.allclose(e.logits, scores.detach())  # type: ignore[arg-type]
    assert torch.allclose(e.map(method="hirescam"), (gradient * features).sum(1).detach())
