"""Maps are exact for in-place layers, repeated modules, several targets, threads and low precision."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy import ClassScore
from seewhy.errors import LayerError, TargetError, UsageError
from seewhy.methods.parsing import as_methods
from support.layers import small_network
from support.maps import assert_equal_maps
from support.networks import (
    Conv1dNet,
    Conv3dNet,
    DictNet,
    InplaceNet,
    SkipOfInplaceNet,
    TupleNet,
    TwiceNet,
    tiny_network,
)

METHODS = ["gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "gradcamelementwise"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_mode_of_the_caller_does_not_matter(mode: type) -> None:
    net, inputs = tiny_network(InplaceNet)
    expected = seewhy.explain(net, inputs, methods=METHODS, layers="every", targets=1)
    with mode():
        e = seewhy.explain(net, inputs, methods=METHODS, layers="every", targets=1)
    assert_equal_maps(e, expected)
    with torch.inference_mode():
        e = seewhy.explain(net, inputs.clone(), methods=METHODS, layers="every", targets=1)
    assert_equal_maps(e, expected)


def test_single_layer_has_the_same_maps_as_among_all_layers() -> None:
    for kind in (InplaceNet, SkipOfInplaceNet, TwiceNet):
        net, inputs = tiny_network(kind, dtype=torch.float64)
        every = seewhy.explain(net, inputs, methods=METHODS, layers="every", targets=2)
        for layer in every.layers:
            single = seewhy.explain(net, inputs, methods=METHODS, layers=layer, targets=2)
            for method in METHODS:
                torch.testing.assert_close(single.map(method=method), every.map(method=method, layer=layer))


def test_overwritten_outputs_are_detected_in_the_first_call_only() -> None:
    calls: list[int] = []
    net, inputs = tiny_network(InplaceNet)
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    first = seewhy.explain(net, inputs, layers="every", targets=1)
    # One pass ends at the first convolution, one detects overwritten outputs, one copies them, one checks a row.
    assert len(calls) == 4
    assert_equal_maps(seewhy.explain(net, inputs, layers="every", targets=1), first)
    assert len(calls) == 5


def test_several_targets_and_images_have_the_same_maps_as_single_calls() -> None:
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    together = seewhy.explain(net, inputs, methods=METHODS, layers="every", targets=[0, 3])
    for target in (0, 3):
        single = seewhy.explain(net, inputs, methods=METHODS, layers="every", targets=target)
        for method in METHODS:
            for layer in single.layers:
                torch.testing.assert_close(
                    together.map(method=method, target=target, layer=layer), single.map(method=method, layer=layer)
                )
    mixed = seewhy.explain(net, inputs, methods=METHODS, layers="every", targets=ClassScore(torch.tensor([0, 3])))
    for index, target in enumerate((0, 3)):
        single = seewhy.explain(net, inputs[index : index + 1], methods=METHODS, layers="every", targets=target)
        for method in METHODS:
            for layer in single.layers:
                torch.testing.assert_close(
                    mixed.map(method=method, layer=layer)[index], single.map(method=method, layer=layer)[0]
                )
        assert mixed[index].targets == (str(target),)


def test_module_called_twice() -> None:
    net, inputs = tiny_network(TwiceNet)
    every = seewhy.explain(net, inputs, layers="every", targets=1)
    assert every.layers == ("first", "twice#1", "twice#2", "last")
    last = seewhy.explain(net, inputs, layers="twice", targets=1)
    assert last.layers == ("twice#2",)
    assert "call 2 of 2" in last.layer_info["twice#2"].note
    assert torch.equal(last.map(), every.map(layer="twice#2"))
    assert torch.equal(seewhy.explain(net, inputs, layers="twice#1", targets=1).map(), every.map(layer="twice#1"))
    with pytest.raises(LayerError, match="called 2 times"):
        seewhy.explain(net, inputs, layers="twice#3", targets=1)


@pytest.mark.parametrize("kind", [TupleNet, DictNet])
def test_tuple_and_dict_outputs(kind: type[nn.Module]) -> None:
    net, inputs = tiny_network(kind)
    e = seewhy.explain(net, inputs, layers="every", targets=1)
    assert len(e.layers) == 3 and all(e.map(layer=layer).abs().max() > 0 for layer in e.layers)
    name = "pair" if kind is TupleNet else "named.pair"
    assert torch.equal(seewhy.explain(net, inputs, layers=name, targets=1).map(), e.map(layer=f"{name}.fine"))
    assert seewhy.explain(net, inputs).logits.shape == (2, 5)


@pytest.mark.parametrize(("kind", "grids"), [(Conv1dNet, [(32,), (15,)]), (Conv3dNet, [(5, 8, 7), (3, 6, 5)])])
def test_signals_and_volumes(kind: type[nn.Module], grids: list[tuple[int, ...]]) -> None:
    net, inputs = tiny_network(kind)
    e = seewhy.explain(net, inputs, methods=METHODS, layers="every", targets=1)
    assert [info.grid for info in e.layer_info.values()] == grids
    assert e.heatmap(method="gradcam", layer="first").shape == inputs.shape[:1] + inputs.shape[2:]


def test_threads_can_share_a_model() -> None:
    net, _ = tiny_network(InplaceNet)
    images = torch.randn(8, 1, *net.shape)
    expected = [
        seewhy.explain(net, image, methods=METHODS, layers="every", targets=k % 5) for k, image in enumerate(images)
    ]
    failures: list[int] = []
    barrier = threading.Barrier(8)

    def work(index: int) -> None:
        barrier.wait()
        for step in range(10):
            k = (index + step) % 8
            e = seewhy.explain(net, images[k], methods=METHODS, layers="every", targets=k % 5)
            if any(not torch.allclose(e.maps[key], expected[k].maps[key], atol=1e-6) for key in e.maps):
                failures.append(k)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert not failures


def test_errors_in_methods_are_not_wrapped() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Broken(seewhy.methods.Method):
        def __call__(self, at: object) -> Tensor:
            raise ZeroDivisionError("in the method")

    model = small_network().eval()
    with pytest.raises(ZeroDivisionError, match="in the method"):
        seewhy.explain(model, torch.rand(1, 3, 16, 16), methods=Broken(), layers="every")
    assert seewhy.explain(model, torch.rand(1, 3, 16, 16), layers="every").layers


class TwoHeads(nn.Module):
    """Two independent outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = (nn.Conv2d(3, 3, 3) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.left(x).mean((2, 3)), self.right(x).mean((2, 3))


def test_layers_without_influence_on_the_target_are_skipped() -> None:
    model, inputs = TwoHeads(), torch.rand(2, 3, 8, 8)
    e = seewhy.explain(model, inputs, layers="every", targets=0)
    assert e.layers == ("stem", "left")
    assert any("right" in note for note in e.notes)
    with pytest.raises(LayerError, match=r"'right'.*no gradient reaches"):
        seewhy.explain(model, inputs, layers="right", targets=0)
    e = seewhy.explain(model, inputs, layers="every", targets=[0, lambda output: output[1].sum(1)])
    assert e.layers == ("stem", "left", "right")
    assert ("gradcam", "0", "right") not in e.maps


def test_zero_gradient_is_flagged() -> None:
    model = small_network()
    nn.init.zeros_(model[8].weight)
    e = seewhy.explain(model, torch.rand(1, 3, 16, 16), layers="0", targets=1)[0]
    assert e.flags() == ("no_gradient",)


def test_convolution_after_global_pooling_has_no_grid() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Flatten())
    inputs = torch.rand(1, 3, 8, 8)
    assert seewhy.explain(model, inputs, layers="every").layers == ("0",)
    e = seewhy.explain(model, inputs, layers="2")[0]
    assert e.map().shape == (1, 1) and "no_grid" in e.flags()


class ChannelAttention(nn.Module):
    """ECA: a 1-D convolution along the channels, whose axis is not a position in the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.eca = nn.Conv2d(3, 4, 3), nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return (x * self.eca(x.mean((2, 3))[:, None])[:, 0, :, None, None].sigmoid()).mean((2, 3))


def test_convolutions_along_channels_are_not_selected() -> None:
    inputs = torch.rand(2, 3, 8, 8)
    assert seewhy.explain(ChannelAttention(), inputs, layers="every").layers == ("conv",)
    with pytest.raises(LayerError, match="no grid"):
        seewhy.explain(ChannelAttention(), inputs, layers="eca")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_have_float32_maps(dtype: torch.dtype) -> None:
    net, inputs = tiny_network(InplaceNet)
    expected = seewhy.explain(net, inputs, layers="fourth", targets=1).map()
    half = seewhy.explain(net.to(dtype), inputs.to(dtype), layers="fourth", targets=1).map()
    assert half.dtype == torch.float32
    assert (half - expected).abs().max() < 0.05 * expected.abs().max()


def test_autocast_and_channels_last() -> None:
    net, inputs = tiny_network(InplaceNet)
    expected = seewhy.explain(net, inputs, methods=METHODS, layers="every", targets=1)
    last = seewhy.explain(net.to(memory_format=torch.channels_last), inputs, methods=METHODS, layers="every", targets=1)
    assert_equal_maps(last, expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        e = seewhy.explain(net, inputs, layers="fourth", targets=1)
    assert (e.map() - expected.map("gradcam", layer="fourth")).abs().max() < 0.05 * e.map().abs().max()


def test_invalid_tensors() -> None:
    net, _ = tiny_network(InplaceNet)
    for tensor in (torch.zeros(3, 12, dtype=torch.float32), torch.zeros(1, 3, 12, 12, dtype=torch.uint8)):
        with pytest.raises(UsageError, match="inputs of shape"):
            seewhy.explain(net, tensor)
    with pytest.raises(UsageError, match="has no preprocessing"):
        seewhy.explain(net, seewhy.sample("coffee"))
    with pytest.raises(TargetError, match="3 classes for 2 images"):
        seewhy.explain(net, torch.rand(2, *net.shape), targets=ClassScore(torch.tensor([1, 2, 3])))


def test_methods_are_hashable_values() -> None:
    for name in METHODS:
        (method,) = as_methods(name).values()
        (other,) = as_methods(type(method).__name__).values()
        assert method == other and hash(method) == hash(other)
        assert eval(repr(method), {type(method).__name__: type(method)}) == method


def test_functional_in_place_layers_keep_the_output() -> None:
    """The skip connection of SkipOfInplaceNet is rectified only because its ReLU works in place."""
    net, inputs = tiny_network(SkipOfInplaceNet)
    with torch.no_grad():
        expected = net(inputs)
    assert torch.equal(seewhy.explain(net, inputs, layers="every").logits, expected)
    assert not torch.allclose(F.relu(net.first(inputs)), net.first(inputs))
