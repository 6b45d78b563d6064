"""`seewhy.compat.captum`: attributions of layers, functions as models, targets, drawings and bad input."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.compat.captum.attr import (
    GuidedBackprop,
    GuidedGradCam,
    LayerActivation,
    LayerAttribution,
    LayerGradCam,
    LayerGradientXActivation,
)
from seewhy.compat.captum.function_model import as_module
from seewhy.errors import UnknownName, UsageError

INPUTS = torch.linspace(-2, 2, 2 * 3 * 12 * 12).sin().reshape(2, 3, 12, 12)


def network() -> nn.Sequential:
    layers = [nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)).eval()


NET = network()  # a global, as in a notebook


def call_of_global(inputs: Tensor) -> Tensor:
    result: Tensor = NET(inputs)
    return result


def doubled(inputs: Tensor, factor: float = 2.0) -> Tensor:
    """Call a function that calls the global."""
    return call_of_global(inputs) * factor


def terms_by_hand(net: nn.Sequential, classes: list[int], layer: int = 2) -> tuple[Tensor, Tensor]:
    """Return activations and gradients of a layer, in float64."""
    net.double()
    activations = net[: layer + 1](INPUTS.double()).detach().requires_grad_()
    scores = net[layer + 1 :](activations.clone())[range(2), classes]
    (gradients,) = torch.autograd.grad(scores.sum(), activations)
    net.float()
    return activations.detach(), gradients


def test_attributions_are_the_formulas() -> None:
    net = network()
    activations, gradients = terms_by_hand(net, [1, 2])
    terms = gradients.mean((2, 3), keepdim=True) * activations
    layer = LayerGradCam(net, net[2])
    for target in ([1, 2], torch.tensor([1, 2])):
        torch.testing.assert_close(
            layer.attribute(INPUTS, target).double(), terms.sum(1, keepdim=True), atol=1e-6, rtol=1e-5
        )
    rectified = layer.attribute(INPUTS, [1, 2], relu_attributions=True)
    torch.testing.assert_close(rectified.double(), terms.sum(1, keepdim=True).relu(), atol=1e-6, rtol=1e-5)
    channels = layer.attribute(INPUTS, [1, 2], attr_dim_summation=False)
    torch.testing.assert_close(channels.double(), terms, atol=1e-6, rtol=1e-5)
    products = LayerGradientXActivation(net, net[2]).attribute(INPUTS, [1, 2])
    torch.testing.assert_close(products.double(), gradients * activations, atol=1e-6, rtol=1e-5)
    outputs = LayerActivation(net, net[2]).attribute(INPUTS)
    torch.testing.assert_close(outputs.double(), activations, atol=1e-6, rtol=1e-5)


def test_guided_attributions() -> None:
    net = network()
    guided = GuidedBackprop(net).attribute(INPUTS, 1)
    base = LayerGradCam(net, net[2]).attribute(INPUTS, 1, relu_attributions=True)
    product = GuidedGradCam(net, net[2]).attribute(INPUTS, 1, interpolate_mode="bilinear")
    torch.testing.assert_close(product, guided * LayerAttribution.interpolate(base, (12, 12), "bilinear"))
    expected = seewhy.explain(net, INPUTS, methods="guidedgradcam", layers="2", targets=1).map()
    torch.testing.assert_close(product.sum(1), expected)


class Wrapper:
    """A plain object with a method that calls a model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def predict(self, inputs: Tensor) -> Any:
        return self.model(inputs)


class Features(nn.Sequential):
    def classify(self, inputs: Tensor) -> Tensor:
        return self(inputs) * 3


def test_functions_that_call_a_model() -> None:
    expected = LayerGradCam(NET, NET[2]).attribute(INPUTS, 1)
    local, layer = NET, NET[2]

    def through_closure(inputs: Tensor) -> Tensor:
        return torch.cat([local(part) for part in (inputs,)])

    for function in (call_of_global, through_closure, lambda inputs: local(inputs), NET.forward):
        torch.testing.assert_close(LayerGradCam(function, layer).attribute(INPUTS, 1), expected)
    for function, factor in ((doubled, 2), (functools.partial(doubled, factor=3.0), 3)):
        torch.testing.assert_close(LayerGradCam(function, layer).attribute(INPUTS, 1), factor * expected)
    extra = LayerGradCam(doubled, layer).attribute(INPUTS, 1, additional_forward_args=(4.0,))
    torch.testing.assert_close(extra, 4 * expected)
    features = Features(*NET)
    torch.testing.assert_close(LayerGradCam(features.classify, layer).attribute(INPUTS, 1), 3 * expected)
    assert not layer._forward_hooks and not NET._forward_hooks
    assert as_module(NET.forward) is NET


def test_functions_without_a_model() -> None:
    for function in (len, Wrapper(NET).predict, lambda inputs: inputs.sum(), functools.partial(len)):
        with pytest.raises(UsageError, match="refers to no module; pass the model, or a function"):
            LayerGradCam(function, NET[2])


def test_targets() -> None:
    net = network()
    expected = LayerGradCam(net, net[2]).attribute(INPUTS, [1, 2])
    dense = nn.Sequential(*net, nn.Unflatten(1, (2, 2)))
    layer = LayerGradCam(dense, dense[2])
    torch.testing.assert_close(layer.attribute(INPUTS, [(0, 1), (1, 0)]), expected)
    torch.testing.assert_close(layer.attribute(INPUTS, (0, 1))[0], expected[0])
    one = nn.Sequential(*net[:-1], nn.Linear(24, 1))
    torch.testing.assert_close(
        LayerGradCam(one, one[2]).attribute(INPUTS), LayerGradCam(one, one[2]).attribute(INPUTS, 0)
    )
    torch.testing.assert_close(LayerGradCam(net, net[2]).attribute(INPUTS, torch.tensor([1]))[0], expected[0])


def test_several_inputs() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            result: Tensor = self.net(one + other)
            return result

    net = Sum()
    expected = LayerGradCam(net.net, net.net[2]).attribute(INPUTS, 1)
    torch.testing.assert_close(LayerGradCam(net, net.net[2]).attribute((INPUTS / 2, INPUTS / 2), 1), expected)


def test_bad_input_is_one_clear_line() -> None:
    net = network()
    layer = LayerGradCam(net, net[2])
    with pytest.raises(UsageError, match="is not a module of the model"):
        LayerGradCam(net, nn.ReLU())
    with pytest.raises(UsageError, match="attribute_to_layer_input=True is not supported; pass the module before"):
        layer.attribute(INPUTS, 1, attribute_to_layer_input=True)
    with pytest.raises(UsageError, match="target has 3 entries for 2 images"):
        layer.attribute(INPUTS, [1, 2, 3])
    with pytest.raises(UsageError, match="target='cat'"):
        layer.attribute(INPUTS, "cat")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="it must return a tensor with one element"):
        layer.attribute(INPUTS)
    with pytest.raises(UsageError, match="inputs is of type list"):
        layer.attribute([INPUTS], 1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="LayerActivation supports models with one input"):
        LayerActivation(net, net[2]).attribute((INPUTS, INPUTS))
    with pytest.raises(ImportError, match="methods='occlusion'"):
        from seewhy.compat.captum.attr import Occlusion  # noqa: F401
    with pytest.raises(ImportError, match="both can be used in one program"):
        from seewhy.compat.captum.attr import DeepLift  # noqa: F401


def test_drawings() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    from seewhy.compat.captum.attr.visualization import visualize_image_attr, visualize_image_attr_multiple

    attribution = np.zeros((4, 4))
    attribution[0, 0], attribution[1, 1] = 3.0, -1.5
    image = np.full((4, 4, 3), 0.5)
    _, axes = visualize_image_attr(attribution, sign="all", outlier_perc=0, use_pyplot=False, show_colorbar=True)
    assert axes.images[0].get_array()[[0, 1], [0, 1]].tolist() == [1.0, -0.5]
    _, axes = visualize_image_attr(
        np.stack([attribution] * 2, 2), image, "blended_heat_map", "negative", use_pyplot=False, title="negative"
    )
    assert axes.get_title() == "negative" and axes.images[1].get_array()[1, 1] == 1.0
    figure, panels = visualize_image_attr_multiple(
        attribution,
        image,
        ["original_image", "masked_image", "alpha_scaling"],
        ["all", "positive", "positive"],
        use_pyplot=False,
    )
    assert len(panels) == len(figure.axes) == 3
    figure, axes = visualize_image_attr(attribution, fig_size=(2, 2))
    assert figure.get_size_inches().tolist() == [2, 2]
    for arguments, message in (
        ((attribution, None, "masked_image"), "method='masked_image' needs original_image"),
        ((attribution, image, "masked_image", "all"), "cannot show both signs"),
        ((attribution * 0,), "the attribution has no values for sign='absolute_value'"),
    ):
        with pytest.raises(UsageError, match=message):
            visualize_image_attr(*arguments, use_pyplot=False)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="no sign 'plus'"):
        visualize_image_attr(attribution, sign="plus", use_pyplot=False)
    with pytest.raises(UsageError, match="need the same number of entries"):
        visualize_image_attr_multiple(attribution, image, ["heat_map"], ["all", "all"])
