"""Layers whose output a later operation overwrites, in torchvision and timm: maps are those of a network that copies them."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy.tracing.model_properties import cached_properties

SHORT = ["torchvision/resnet18", "timm/test_efficientnet"]
NETWORKS = [
    "torchvision/alexnet",
    "torchvision/vgg11_bn",
    "torchvision/squeezenet1_1",
    "torchvision/resnet50",
    "torchvision/resnext50_32x4d",
    "torchvision/densenet121",
    "torchvision/googlenet",
    "torchvision/mobilenet_v2",
    "torchvision/mobilenet_v3_small",
    "torchvision/efficientnet_b0",
    "torchvision/regnet_y_400mf",
    "torchvision/shufflenet_v2_x1_0",
    "torchvision/mnasnet1_0",
    "timm/resnet26",
    "timm/seresnet50",
    "timm/ecaresnet26t",
    "timm/res2net50_26w_4s",
    "timm/hrnet_w18_small",
    "timm/dla34",
    "timm/regnety_002",
    "timm/rexnet_100",
    "timm/ghostnet_100",
    "timm/mobilenetv3_small_100",
    "timm/tf_efficientnet_lite0",
    "timm/dpn48b",
    "timm/skresnet18",
]
MOST = 24  # layers per network
CORRELATION = 0.99999


def create(name: str) -> tuple[nn.Module, Tensor]:
    source, _, short = name.partition("/")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if source == "timm":
            net = timm.create_model(short, pretrained=False, num_classes=10)
        else:
            net = torchvision.models.get_model(short, num_classes=10)
    noise = [nn.functional.interpolate(torch.randn(1, 3, n, n), (96, 96), mode="bicubic") for n in (4, 16, 96)]
    return net.double().eval(), torch.stack(noise).mean(0).double()


def with_copies(net: nn.Module, image: Tensor, layers: list[str], target: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the output, and the Grad-CAM of layers, of a network where these layers pass on copies of their output."""
    net, kept = copy.deepcopy(net), dict[str, Tensor]()

    def copying(name: str, forward: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            kept[name] = forward(*args, **kwargs)
            return kept[name].clone()

        return call

    for name in layers:
        module = net.get_submodule(name)
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
        module.forward = copying(name, module.forward)  # type: ignore[method-assign]
    output = net(image)
    gradients = torch.autograd.grad(output[0, target], list(kept.values()))
    maps = {
        name: (gradient.mean((2, 3), keepdim=True) * value).sum(1)[0].detach()
        for (name, value), gradient in zip(kept.items(), gradients, strict=True)
    }
    return output.detach(), maps


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def compare(name: str) -> int:
    """Return the number of compared layers."""
    net, image = create(name)
    with torch.no_grad():
        answer = net(image)
    target = int(answer.argmax())
    every = [layer for layer, module in net.named_modules() if not list(module.children())]
    e = seewhy.explain(net, image, layers="all", targets=target)
    assert torch.allclose(e.logits, answer, rtol=1e-9, atol=1e-12)
    overwritten = cached_properties(net).overwritten
    layers = [layer for layer in every if layer in overwritten and layer in e.layers]
    layers = layers[:: max(1, len(layers) // MOST)]
    assert layers, "this network overwrites nothing, so it does not belong here"
    output, maps = with_copies(net, image, layers, target)
    assert torch.allclose(output, answer, rtol=1e-9, atol=1e-12), "copies change this network"
    for layer, expected in maps.items():
        found = e.map(layer=layer)[0]
        if float(expected.std()) > 1e-12 * float(expected.abs().max()):
            assert correlation(found, expected) >= CORRELATION, layer
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max())), layer
    alone = layers[len(layers) // 2]
    only = seewhy.explain(net, image, layers=alone, targets=target).map()[0]
    assert torch.allclose(only, maps[alone], rtol=1e-6, atol=1e-9 * float(maps[alone].abs().max()))
    return len(maps)


@pytest.mark.parametrize("name", SHORT)
def test_overwritten_layers_have_the_maps_of_copies(name: str) -> None:
    assert compare(name) >= 5


@pytest.mark.full
def test_at_least_250_overwritten_layers_have_the_maps_of_copies() -> None:
    counts = {name: compare(name) for name in NETWORKS}
    assert sum(counts.values()) >= 250, counts
