"""Methods of pixels and of several layers, compared with independent float64 references."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import MethodError
from support import reference_network_methods as network_references
from support.network_method_cases import (
    ATTENTION,
    NETWORK,
    TINY_NETWORKS,
    assert_informative,
    assert_maps_equal,
    explain_network,
    method_of,
    reference_network_for,
    stack_maps,
    transformer_case,
)
from support.reference import ReferenceNetwork


class DenseOutputNet(nn.Module):
    """A network with dense output and therefore without class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


TWO_NETWORKS = ("ThreeGridNet", "InplaceNet")


ALL_NETWORKS = tuple(TINY_NETWORKS)


NETWORK_METHOD_SETTINGS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("Occlusion", {}, TWO_NETWORKS),
    ("Occlusion", {"window": 0.4, "stride": 0.15, "baseline": 0.7}, ALL_NETWORKS),
    ("Occlusion", {"window": 1.0, "stride": 1.0}, ("Conv1dNet",)),  # one window that covers the image
    ("RISE", {"masks": 40}, ALL_NETWORKS),
    ("RISE", {"masks": 60, "grid": 3, "p": 0.3, "seed": 5}, ALL_NETWORKS),
    ("PolyCAM", {"variant": "+"}, ALL_NETWORKS),
    ("PolyCAM", {"variant": "-"}, ALL_NETWORKS),
    ("PolyCAM", {"variant": "+-"}, ALL_NETWORKS),
    ("FullGrad", {}, (*ALL_NETWORKS, "resnet18", "mobilenet_v2", "squeezenet1_1")),
    ("FullGrad", {"biases": False}, (*ALL_NETWORKS, "resnet18")),
    ("RefineCAM", {}, (*ALL_NETWORKS, "resnet18")),
    ("RefineCAM", {"base": "LayerCAM"}, TWO_NETWORKS),
    ("LayerCAMFusion", {}, (*ALL_NETWORKS, "resnet18")),
    ("LayerCAMFusion", {"gamma": 0.5, "base": "GradCAM"}, TWO_NETWORKS),
]


CNN_CASES = [(name, settings, net) for name, settings, nets in NETWORK_METHOD_SETTINGS for net in nets]


# In a deep network the product over all layers is 0 everywhere, because each cell is 0 in one of them.
SELECTED_LAYERS = {"resnet18": ("layer2.1.conv2", "layer3.1.conv2", "layer4.1.conv2")}


def layers_of(net: str) -> list[str]:
    return list(SELECTED_LAYERS.get(net, reference_network_for(net).layers))


def reference(name: str, settings: dict[str, Any], reference_network: ReferenceNetwork, layers: list[str]) -> Tensor:
    settings = {key: value.lower() if key == "base" else value for key, value in settings.items()}
    maps = []
    for image, class_index in enumerate(reference_network.classes.tolist()):
        x = reference_network.inputs[image].numpy()
        by_layers = {
            "PolyCAM": network_references.polycam,
            "RefineCAM": network_references.refinecam,
            "LayerCAMFusion": network_references.layercam_fusion,
        }
        if name in by_layers:
            maps.append(by_layers[name](reference_network, image, layers, **settings))
        else:
            by_pixels = {
                "Occlusion": network_references.occlusion,
                "RISE": network_references.rise,
                "FullGrad": network_references.fullgrad,
            }
            maps.append(by_pixels[name](reference_network.net, x, class_index, **settings))
    return stack_maps(maps)


@pytest.mark.parametrize(("name", "settings", "net"), CNN_CASES)
def test_pixels_and_layers_equal_the_reference(name: str, settings: dict[str, Any], net: str) -> None:
    reference_network = reference_network_for(net)
    expected = reference(name, settings, reference_network, layers_of(net))
    if settings.get("window") != 1.0:
        assert_informative(expected)
    assert_maps_equal(
        explain_network(
            reference_network.net,
            reference_network.inputs,
            method_of(name, settings),
            layers_of(net),
            reference_network.classes,
        ),
        expected,
    )


def test_only_selected_layers_count_in_network_order() -> None:
    """Layers are combined in the order of the network, not in the order of the list."""
    reference_network = reference_network_for("ThreeGridNet")
    layers = ["second", "fourth", "sixth"]
    for name in ("PolyCAM", "RefineCAM", "LayerCAMFusion"):
        function = getattr(network_references, {"LayerCAMFusion": "layercam_fusion"}.get(name, name.lower()))
        expected = stack_maps([function(reference_network, image, layers) for image in range(2)])
        for order in (layers, layers[::-1]):
            assert_maps_equal(
                explain_network(
                    reference_network.net,
                    reference_network.inputs,
                    method_of(name, {}),
                    order,
                    reference_network.classes,
                ),
                expected,
            )


@pytest.mark.parametrize("name", ["PolyCAM", "RISE"])
def test_methods_of_probabilities_require_class_scores(name: str) -> None:
    net, inputs = DenseOutputNet().double(), torch.randn(2, 3, 12, 14, dtype=torch.float64)
    with pytest.raises(MethodError, match=r"\S"):
        seewhy.explain(
            net, inputs, methods=[method_of(name, {})], layers="every", targets=lambda output: output[:, 1].mean((1, 2))
        )


def test_methods_of_scores_accept_a_target_function() -> None:
    """Occlusion and FullGrad require only a score."""
    net, inputs = DenseOutputNet().double(), torch.randn(2, 3, 12, 14, dtype=torch.float64)

    def corner(output: Tensor) -> Tensor:
        return output[:, 1, :4, :4].sum((1, 2))

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return corner(net(x))[:, None]

    for name in ("Occlusion", "FullGrad"):
        e = seewhy.explain(net, inputs, methods=[method_of(name, {})], layers="every", targets=corner)
        function = getattr(network_references, name.lower())
        reads = Reads()
        reads.net = net
        expected = stack_maps([function(reads, x.numpy(), 0) for x in inputs])
        assert_maps_equal(e.map(method=name.lower(), layer=NETWORK), expected)


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
def test_invalid_settings_raise(name: str, settings: dict[str, Any]) -> None:
    case, reference_network = transformer_case("timm class fused"), reference_network_for("ThreeGridNet")
    with pytest.raises(MethodError, match=r"\S"):
        method = method_of(name, settings)
        if name in ATTENTION:
            explain_network(case.net, case.inputs, method, [case.layer])
        else:
            explain_network(reference_network.net, reference_network.inputs, method, "every")
