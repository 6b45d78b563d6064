"""Methods of pixels and of several layers, compared with independent float64 references."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import MethodError
from support import reference_network_methods as slow_network
from support.network_method_cases import (
    ATTENTION,
    NETWORK,
    TINY_NETWORKS,
    assert_equal,
    assert_healthy,
    found_map,
    method_of,
    slow_of,
    stacked,
    vit,
)
from support.reference import Slow


class Everywhere(nn.Module):
    """Answers a score at each place, so that there are no class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


DENSE = ("Stages", "InplaceNet")


EVERY = tuple(TINY_NETWORKS)


PIXELS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("Occlusion", {}, DENSE),
    ("Occlusion", {"window": 0.4, "stride": 0.15, "baseline": 0.7}, EVERY),
    ("Occlusion", {"window": 1.0, "stride": 1.0}, ("Conv1dNet",)),  # one window, everything
    ("RISE", {"masks": 40}, EVERY),
    ("RISE", {"masks": 60, "grid": 3, "p": 0.3, "seed": 5}, EVERY),
    ("PolyCAM", {"variant": "+"}, EVERY),
    ("PolyCAM", {"variant": "-"}, EVERY),
    ("PolyCAM", {"variant": "+-"}, EVERY),
    ("FullGrad", {}, (*EVERY, "resnet18", "mobilenet_v2", "squeezenet1_1")),
    ("FullGrad", {"biases": False}, (*EVERY, "resnet18")),
    ("RefineCAM", {}, (*EVERY, "resnet18")),
    ("RefineCAM", {"base": "LayerCAM"}, DENSE),
    ("LayerCAMFusion", {}, (*EVERY, "resnet18")),
    ("LayerCAMFusion", {"gamma": 0.5, "base": "GradCAM"}, DENSE),
]


CNN_CASES = [(name, settings, net) for name, settings, nets in PIXELS for net in nets]


# In a deep net the product over every layer is 0 everywhere: somewhere one of them is.
CHOSEN = {"resnet18": ("layer2.1.conv2", "layer3.1.conv2", "layer4.1.conv2")}


def layers_of(net: str) -> list[str]:
    return list(CHOSEN.get(net, slow_of(net).layers))


def reference(name: str, settings: dict[str, Any], slow: Slow, layers: list[str]) -> Tensor:
    settings = {key: value.lower() if key == "base" else value for key, value in settings.items()}
    maps = []
    for image, chosen in enumerate(slow.classes.tolist()):
        x = slow.inputs[image].numpy()
        by_layers = {
            "PolyCAM": slow_network.polycam,
            "RefineCAM": slow_network.refinecam,
            "LayerCAMFusion": slow_network.layercam_fusion,
        }
        if name in by_layers:
            maps.append(by_layers[name](slow, image, layers, **settings))
        else:
            by_pixels = {
                "Occlusion": slow_network.occlusion,
                "RISE": slow_network.rise,
                "FullGrad": slow_network.fullgrad,
            }
            maps.append(by_pixels[name](slow.net, x, chosen, **settings))
    return stacked(maps)


@pytest.mark.parametrize(("name", "settings", "net"), CNN_CASES)
def test_pixels_and_layers_equal_the_reference(name: str, settings: dict[str, Any], net: str) -> None:
    slow = slow_of(net)
    expected = reference(name, settings, slow, layers_of(net))
    if settings.get("window") != 1.0:
        assert_healthy(expected)
    assert_equal(found_map(slow.net, slow.inputs, method_of(name, settings), layers_of(net), slow.classes), expected)


def test_only_the_chosen_layers_count() -> None:
    """And their order is the network's, not that of the list."""
    slow = slow_of("Stages")
    layers = ["second", "fourth", "sixth"]
    for name in ("PolyCAM", "RefineCAM", "LayerCAMFusion"):
        function = getattr(slow_network, {"LayerCAMFusion": "layercam_fusion"}.get(name, name.lower()))
        expected = stacked([function(slow, image, layers) for image in range(2)])
        for order in (layers, layers[::-1]):
            assert_equal(found_map(slow.net, slow.inputs, method_of(name, {}), order, slow.classes), expected)


@pytest.mark.parametrize("name", ["PolyCAM", "RISE"])
def test_probabilities_need_class_scores(name: str) -> None:
    net, inputs = Everywhere().double(), torch.randn(2, 3, 12, 14, dtype=torch.float64)
    with pytest.raises(MethodError, match=r"\S"):
        seewhy.explain(
            net, inputs, methods=[method_of(name, {})], layers="every", targets=lambda output: output[:, 1].mean((1, 2))
        )


def test_a_function_of_the_output_can_be_explained_by_its_score() -> None:
    """Occlusion, FullGrad and the fusions ask for a score only."""
    net, inputs = Everywhere().double(), torch.randn(2, 3, 12, 14, dtype=torch.float64)

    def corner(output: Tensor) -> Tensor:
        return output[:, 1, :4, :4].sum((1, 2))

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return corner(net(x))[:, None]

    for name in ("Occlusion", "FullGrad"):
        e = seewhy.explain(net, inputs, methods=[method_of(name, {})], layers="every", targets=corner)
        function = getattr(slow_network, name.lower())
        reads = Reads()
        reads.net = net
        expected = stacked([function(reads, x.numpy(), 0) for x in inputs])
        assert_equal(e.map(method=name.lower(), layer=NETWORK), expected)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("PolyCAM", {"variant": "++"}),
        ("Occlusion", {"window": 0.0}),
        ("Occlusion", {"window": 1.5}),
        ("Occlusion", {"stride": 0.0}),
        ("Occlusion", {"window": 0.1, "stride": 0.3}),  # pixels that no window hides
        ("RISE", {"masks": 0}),
        ("RISE", {"grid": 0}),
        ("RISE", {"p": 0.0}),
        ("AttentionRollout", {"heads": "median"}),
        ("AttentionRollout", {"discard": 1.0}),
        ("AttentionRollout", {"discard": -0.1}),
        ("LeGrad", {"last": 0}),
        ("ViTReciproCAM", {"block": 3}),
        ("ViTReciproCAM", {"block": -4}),
        ("ViTReciproCAM", {"kernel": "box"}),
        ("ViTReciproCAM", {"score": "energy"}),
    ],
)
def test_settings_that_make_no_sense(name: str, settings: dict[str, Any]) -> None:
    case, slow = vit("timm class fused"), slow_of("Stages")
    with pytest.raises(MethodError, match=r"\S"):
        method = method_of(name, settings)
        if name in ATTENTION:
            found_map(case.net, case.inputs, method, [case.layer])
        else:
            found_map(slow.net, slow.inputs, method, "every")
