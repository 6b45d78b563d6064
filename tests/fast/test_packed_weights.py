"""Weights packed for the processor: the same values in float32, and no packed weights where they do not fit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import seewhy
from seewhy.fast import layer_forward
from seewhy.fast.layer_forward import FAST_WEIGHTS, FastWeights, store_fast_weights
from seewhy.fast.packed_weight import MAX_KEPT, PackedConvolution, PackedLinear
from seewhy.tracing.torch_private import can_pack_weights
from support.small_architectures import ARCHITECTURES, small_architecture

needs_packing = pytest.mark.skipif(not can_pack_weights(), reason="this PyTorch was built without oneDNN")
# Grad-CAM++ divides by sums near 0, so float32 differs from float64 anyway.
METHODS = ["gradcam", "hirescam", "layercam"]


def images(batch: int, size: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))


def packed_layers(model: nn.Module) -> list[PackedConvolution | PackedLinear]:
    """Return the layers of a model whose packed weights were used."""
    fast = [module.__dict__.get(FAST_WEIGHTS) for module in model.modules()]
    found = [one.packed for one in fast if isinstance(one, FastWeights) and one.packed is not None]
    assert all(isinstance(one, (PackedConvolution, PackedLinear)) for one in found)
    return [one for one in found if one.weights.kept]  # type: ignore[attr-defined, misc]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_maps_are_those_of_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_forward, "MIN_WEIGHTS", 0)  # with a graph as well
    net, inputs = small_architecture(name).float(), images(2)
    prepared = seewhy.prepare(net)
    plain = seewhy.explain(net.double(), inputs.double(), methods=METHODS, layers="every", targets=3)
    net.float()
    fast = seewhy.explain(prepared, inputs, methods=METHODS, layers="every", targets=3)
    assert bool(packed_layers(prepared.fast._module)) == can_pack_weights()  # type: ignore[arg-type]
    for key, maps in plain.maps.items():
        assert float((maps - fast.maps[key]).abs().max()) < 1e-3 * float(maps.abs().max().clamp(min=1e-4)), key


CONVOLUTIONS = [
    {},
    {"kernel_size": 1},
    {"padding": 1},
    {"padding": 4},  # more than the kernel reaches, so the gradient is not a convolution
    {"stride": 2, "padding": 1},
    {"dilation": 2, "groups": 4},
    {"padding": (2, 0), "dilation": (1, 3), "kernel_size": (5, 3)},
    {"groups": 8, "padding": 1},
    {"groups": 2, "out_channels": 6},
    {"bias": False},
]
LINEAR = [(30, 40), (3, 30, 40), (3, 2, 5, 40)]


def compare(plain: nn.Module, inputs: torch.Tensor, *, has_half_gradients: bool = False) -> None:
    """Compare the values and gradients of a layer with packed weights with those of the same layer without."""
    packed = copy.deepcopy(plain)
    store_fast_weights(packed, is_packed=True, has_half_gradients=has_half_gradients)
    packed.requires_grad_(False)
    inputs.requires_grad_()
    with torch.no_grad():
        assert torch.allclose(packed(inputs), plain(inputs), atol=1e-5)
    assert len(packed_layers(packed)) == 1
    tolerance = {"rtol": 2e-2, "atol": 2e-1} if has_half_gradients else {"rtol": 1e-4, "atol": 1e-5}
    for own in (packed, layer_with_graph(packed)):
        (gradient,) = torch.autograd.grad(own(inputs).square().sum(), inputs)
        (expected,) = torch.autograd.grad(plain(inputs).square().sum(), inputs)
        assert gradient.dtype == torch.float32
        assert torch.allclose(gradient, expected, **tolerance)
        if has_half_gradients:
            assert not torch.allclose(gradient, expected, rtol=1e-5, atol=1e-5)
        else:  # the gradient of a sum is one number, expanded to the shape of the output
            (gradient,) = torch.autograd.grad(own(inputs).sum(), inputs)
            (expected,) = torch.autograd.grad(plain(inputs).sum(), inputs)
            assert torch.allclose(gradient, expected, **tolerance)


@needs_packing
@pytest.mark.parametrize("settings", CONVOLUTIONS)
def test_values_and_gradients_of_one_convolution(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(**{"in_channels": 8, "out_channels": 16, "kernel_size": 3, **settings})
    compare(layer, torch.randn(2, 8, 20, 21))
    compare(layer, torch.randn(2, 8, 20, 21).contiguous(memory_format=torch.channels_last))


@needs_packing
@pytest.mark.parametrize("shape", LINEAR)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_of_one_linear_layer(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(40, 24, bias=bias)
    compare(layer, torch.randn(shape))
    compare(layer, torch.randn(40, *shape[:-1]).movedim(0, -1))


@needs_packing
@pytest.mark.parametrize("layer", [nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3, stride=2), nn.Linear(64, 64)], ids=str)
def test_gradients_in_bfloat16(layer: nn.Module) -> None:
    torch.manual_seed(0)
    compare(layer, torch.randn(3, 64, 20, 64), has_half_gradients=True)


@needs_packing
@pytest.mark.parametrize("layer", [nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 8)], ids=str)
def test_second_derivatives(layer: nn.Module) -> None:
    packed = copy.deepcopy(layer)
    store_fast_weights(packed, is_packed=True, has_half_gradients=False)
    inputs = torch.randn(2, 8, 8, 8, requires_grad=True)

    def second(own: nn.Module) -> torch.Tensor:
        (first,) = torch.autograd.grad(own(inputs).pow(3).sum(), inputs, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), inputs)[0]

    assert torch.allclose(second(layer_with_graph(packed)), second(layer), rtol=1e-3, atol=1e-3)


def layer_with_graph(layer: nn.Module) -> nn.Module:
    """Let a layer use its packed weights although a graph is recorded."""
    fast: FastWeights = layer.__dict__[FAST_WEIGHTS]
    layer.__dict__[FAST_WEIGHTS] = FastWeights(fast.half, fast.packed, is_large=True)
    return layer


@needs_packing
@pytest.mark.parametrize("layer", [nn.Conv2d(3, 8, 3), nn.Linear(64, 8)], ids=str)
def test_other_types_and_autocast_use_the_weights_themselves(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    store_fast_weights(layer, is_packed=True, has_half_gradients=False)
    packed = type(layer.__dict__[FAST_WEIGHTS].packed)
    runs: list[torch.Size] = []
    run = packed.output
    monkeypatch.setattr(packed, "output", lambda *args: runs.append(args[2].shape) or run(*args))
    with torch.no_grad():
        layer(images(1))
        layer(images(1))
        assert len(runs) == 2
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(images(1)).dtype == torch.bfloat16
        with pytest.raises(RuntimeError):
            layer(images(1).double())
    assert len(runs) == 2


class ChangesPadding(nn.Module):
    """Pads bright inputs more than dark ones, by a setting of its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.first.padding = (1, 1) if x.mean() < 1 else (2, 2)
        return self.fc(self.second(self.first(x).relu()).mean((2, 3)))  # type: ignore[no-any-return]


@needs_packing
def test_settings_that_change_in_the_forward_pass() -> None:
    torch.manual_seed(0)
    net = ChangesPadding().eval()
    prepared = seewhy.prepare(net)
    for inputs in (images(1), images(1) + 5, images(1)):
        own, other = (seewhy.explain(model, inputs, layers="second").map() for model in (prepared, net))
        assert own.shape == other.shape and torch.allclose(own, other, rtol=1e-4, atol=1e-6)


@needs_packing
@pytest.mark.parametrize("has_half_gradients", [False, True])
def test_settings_that_change_between_two_calls(has_half_gradients: bool) -> None:
    """The backward pass of the first call runs after the second one, with the settings of the first."""
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 64, 3, stride=2, padding=1)  # a stride: there is no packed gradient
    packed = copy.deepcopy(plain)
    store_fast_weights(packed, is_packed=True, has_half_gradients=has_half_gradients)
    packed.requires_grad_(False)
    inputs = torch.randn(1, 64, 12, 12, requires_grad=True)

    def gradient(layer: nn.Module) -> torch.Tensor:
        layer.padding = (1, 1)  # type: ignore[assignment]
        first = layer(inputs)
        layer.padding = (0, 0)  # type: ignore[assignment]
        (result,) = torch.autograd.grad(first.square().sum() + layer(inputs).square().sum(), inputs)
        return result

    assert torch.allclose(gradient(layer_with_graph(packed)), gradient(plain), rtol=2e-2, atol=0.3)


@needs_packing
def test_results_do_not_depend_on_the_shapes_before() -> None:
    """A bulk job that resumes starts with another batch, and must write the same bits."""
    nets = [small_architecture("ResNet").float(), small_architecture("ResNet").float()]
    prepared = [seewhy.prepare(net) for net in nets]
    seewhy.explain(prepared[1], images(3))
    seewhy.explain(prepared[1], images(1))
    for batch in (1, 2, 3):
        one, other = (seewhy.explain(model, images(batch), layers="layer1") for model in prepared)
        assert torch.equal(one.map(), other.map())
    used = packed_layers(prepared[0].fast._module)  # type: ignore[arg-type]
    assert all(len(one.weights.kept) == MAX_KEPT for one in used if isinstance(one, PackedConvolution))


@needs_packing
def test_new_weights_are_packed_again() -> None:
    net, inputs = small_architecture("ResNet").float(), images(1)
    prepared = seewhy.prepare(net)
    before = seewhy.explain(prepared, inputs, layers="layer4").map()
    with torch.no_grad():
        net.get_parameter("layer3.0.conv1.weight").mul_(-1)
    after = seewhy.explain(prepared, inputs, layers="layer4").map()
    assert not torch.allclose(before, after, rtol=1e-2)
    assert torch.allclose(after, seewhy.explain(net, inputs, layers="layer4").map(), rtol=1e-3, atol=1e-4)


def test_a_pytorch_that_cannot_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.fast.packed_weight.can_pack_weights", lambda: False)
    net, inputs = small_architecture("VGG").float(), images(1)
    prepared = seewhy.prepare(net)
    plain = seewhy.explain(net, inputs, layers="features.3").map()
    assert torch.allclose(seewhy.explain(prepared, inputs, layers="features.3").map(), plain, rtol=1e-3, atol=1e-4)
    assert not packed_layers(prepared.fast._module)  # type: ignore[arg-type]


@needs_packing
def test_wrong_packed_results_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of the prepared model is compared with that of the model before it is used."""
    monkeypatch.setattr(PackedConvolution, "output", lambda self, layer, inputs: 2 * type(layer).forward(layer, inputs))
    net, inputs = small_architecture("VGG").float(), images(1)
    prepared = seewhy.prepare(net)
    seewhy.explain(prepared, inputs)
    assert prepared.fast.recipe is not None and not prepared.fast.recipe.is_packed
