"""Invariances of every method of the catalog: channel order and units, scale of the logits, reflection and translation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.methods import (
    AblationCAM,
    GradCAMPlusPlus,
    ReciproCAM,
)
from support.catalog_networks import (
    CHANNEL_ORDER_DEPENDENT,
    CLASSES,
    CONVOLUTIONAL_METHODS,
    NAMES,
    SETTINGS,
    TOLERANCES,
    TRANSFORMER_METHODS,
    SmallConvNet,
    example_for,
    explain_maps,
    maps_of_example,
)
from support.identity_maps import assert_all_maps_close, assert_maps_close, maps_of, scale_maps
from support.identity_networks import (
    assert_close,
    class_scores,
    random_normal,
)


def permute_channels(net: SmallConvNet) -> SmallConvNet:
    """Return the same function with the channels of both layers in another order."""
    other, first, second = copy.deepcopy(net), [4, 0, 5, 2, 1, 3], [6, 2, 0, 5, 3, 1, 4]
    with torch.no_grad():
        other.first.weight.copy_(net.first.weight[first])
        other.first.bias.copy_(net.first.bias[first])
        other.second.weight.copy_(net.second.weight[second][:, first])
        other.second.bias.copy_(net.second.bias[second])
        other.head.weight.copy_(net.head.weight[:, second])
    return other


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL_METHODS if name not in CHANNEL_ORDER_DEPENDENT])
def test_channel_order_does_not_change_the_map(name: str) -> None:
    net, inputs, layers = example_for(name)
    assert isinstance(net, SmallConvNet)
    actual = explain_maps(permute_channels(net), inputs, SETTINGS.get(name, name), layers)
    assert_all_maps_close(actual, maps_of_example(name), TOLERANCES.get(name, 1e-8))


def rescale_channels(net: SmallConvNet, by: Tensor) -> SmallConvNet:
    """Return the same function with channel k of both layers divided by s_k and the following weights multiplied by s_k."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        for conv, s in ((other.first, by[:6]), (other.second, by[:7])):
            conv.weight /= s[:, None, None, None]
            conv.bias /= s
        other.second.weight *= by[:6][:, None, None]
        other.head.weight *= by[:7]
    return other


# Methods that read only A: the map scales with A (not that of KPCA-CAM, because its kernel is not linear).
ACTIVATION_ONLY = {
    "eigencam", "fem", "lafam", "randomcam", "deepfeaturefactorization", "scorecam", "sscam", "iscam", "opticam",
    "polycam", "ablationcam",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL_METHODS if name not in ACTIVATION_ONLY | {"kpcacam"}])
def test_channel_scale_does_not_change_the_map(name: str) -> None:
    """Dividing A_k by s_k and multiplying the next weights by s_k changes neither the function nor products of G and A.

    Includes Grad-CAM++: g S_k and g A_k do not depend on s_k.
    """
    net, inputs, layers = example_for(name)
    assert isinstance(net, SmallConvNet)
    other = rescale_channels(net, torch.tensor([0.3, 5.0, 1.0, 2.0, 0.7, 9.0, 0.1], dtype=torch.float64))
    assert_close(other(inputs), net(inputs), rtol=1e-10)
    assert_all_maps_close(
        explain_maps(other, inputs, SETTINGS.get(name, name), layers), maps_of_example(name), TOLERANCES.get(name, 1e-8)
    )


@pytest.mark.parametrize("name", sorted(ACTIVATION_ONLY))
def test_layer_scale_scales_activation_only_maps(name: str) -> None:
    """Dividing all channels by 4 keeps masks and scores, and the sum of the channels becomes a quarter.

    Includes Ablation-CAM: its weights are fractions of the score.
    """
    net, inputs, layers = example_for(name)
    assert isinstance(net, SmallConvNet)
    actual = explain_maps(rescale_channels(net, torch.full((7,), 4.0)), inputs, SETTINGS.get(name, name), layers)
    assert_all_maps_close(actual, maps_of_example(name), TOLERANCES.get(name, 1e-8), scale=0.25)


# The exponent of the scale of the logits in the scale of the map.
LOGIT_SCALE_EXPONENTS = {
    **dict.fromkeys(["gradcam", "hirescam", "layercam", "xgradcam", "gradcamelementwise", "eigengradcam"], 1),
    **dict.fromkeys(["segeigencam", "finercam", "cam", "smooth", "integrated", "augmented", "eigensmooth"], 1),
    **dict.fromkeys(["cameras", "occlusion", "gradeclip"], 1),
    "guidedgradcam": 2,  # a gradient in both factors
    **dict.fromkeys(["ablationcam", "fullgrad", "layercamfusion"], 0),  # fractions
    **dict.fromkeys(["eigencam", "kpcacam", "fem", "lafam", "randomcam", "deepfeaturefactorization"], 0),
    "attentionrollout": 0,
    "legrad": 1,
}


def scale_logits(net: Any, by: float) -> nn.Module:
    """Return the network with its logits multiplied by a number."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.weight *= by
        other.head.bias *= by
    return other


@pytest.mark.parametrize("name", list(LOGIT_SCALE_EXPONENTS))
def test_logit_scale_is_a_factor_of_the_map(name: str) -> None:
    net, inputs, layers = example_for(name)
    actual = explain_maps(scale_logits(net, 3.0), inputs, SETTINGS.get(name, name), layers)
    assert_all_maps_close(actual, maps_of_example(name), 1e-9, scale=3.0 ** LOGIT_SCALE_EXPONENTS[name])


def test_logit_scale_is_a_factor_for_normalized_alphas() -> None:
    net, inputs, layers = example_for("gradcam++")
    method = GradCAMPlusPlus(alphas="normalized")
    plain = explain_maps(net, inputs, method, ["end"])
    for by in (1e-4, 1e4):  # before the mean the gradient is constant, so g S_k cancels
        assert_all_maps_close(explain_maps(scale_logits(net, by), inputs, method, ["end"]), plain, 1e-9, scale=by)
    assert layers == ["first", "end"]


NONLINEAR_IN_LOGIT_SCALE = {
    "gradcam++", "smoothgradcam++", "refinecam", "shapleycam", "scorecam", "sscam", "iscam", "groupcam", "reciprocam",
    "polycam", "rise", "sess", "attentionrelevance", "vitreciprocam",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(NONLINEAR_IN_LOGIT_SCALE))
def test_logit_scale_changes_nonlinear_methods(name: str) -> None:
    """Probabilities, 1 / (2 + g S) and products of layers: the scaled map is not a multiple of the original."""
    net, inputs, layers = example_for(name)
    actual = explain_maps(scale_logits(net, 3.0), inputs, SETTINGS.get(name, name), layers)
    difference = []
    for key, maps in maps_of_example(name).items():
        one, other = maps.flatten(1), actual[key].flatten(1)
        factor = (one * other).sum(1) / (one * one).sum(1).clamp(min=1e-300)
        difference.append(
            float(((other - factor[:, None] * one).abs().amax(1) / other.abs().amax(1)).nan_to_num(0).amax())
        )
    assert max(difference) > 1e-4


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ablationcam"])
def test_constant_added_to_all_logits_does_not_change_the_map(name: str) -> None:
    """Gradients, probabilities and differences do not change; only Ablation-CAM divides by the score."""
    net, inputs, layers = example_for(name)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.bias += 2.5
    assert_all_maps_close(
        explain_maps(other, inputs, SETTINGS.get(name, name), layers), maps_of_example(name), TOLERANCES.get(name, 1e-9)
    )


def test_constant_added_to_all_logits_in_ablation_and_reciprocam() -> None:
    """Ablation-CAM times y does not change; Recipro-CAM of a logit increases by the constant."""
    net, inputs, layers = example_for("ablationcam")
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.bias += 2.5
    y = class_scores(net, inputs, CLASSES)
    for layer in layers or ():
        before, after = (maps_of(which, inputs, AblationCAM(), CLASSES, layer) for which in (net, other))
        assert_maps_close(scale_maps(y + 2.5, after), scale_maps(y, before), 1e-8)
        before, after = (maps_of(which, inputs, ReciproCAM(score="logit"), CLASSES, layer) for which in (net, other))
        assert_close(after - before, torch.full_like(before, 2.5), rtol=1e-9)


# Noise, random masks and random initial values are not symmetric.
NOT_REFLECTION_EQUIVARIANT = {"rise", "smooth", "smoothgradcam++", "sscam", "deepfeaturefactorization"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_REFLECTION_EQUIVARIANT])
def test_map_of_a_reflected_image_is_reflected(name: str) -> None:
    """The kernels are symmetric, and attention has no position embedding."""
    net, inputs, layers = example_for(name)
    if name in TRANSFORMER_METHODS:
        with torch.no_grad():
            net.patches.weight.copy_((net.patches.weight + net.patches.weight.flip(-1)) / 2)
    plain, mirrored = (explain_maps(net, x, SETTINGS.get(name, name), layers) for x in (inputs, inputs.flip(-1)))
    assert_all_maps_close({key: maps.flip(-1) for key, maps in mirrored.items()}, plain, TOLERANCES.get(name, 1e-8))


# Methods without resized masks and windows: they treat all cells equally.
TRANSLATION_EQUIVARIANT = [
    "gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "gradcamelementwise", "eigengradcam", "segeigencam",
    "shapleycam", "finercam", "eigencam", "kpcacam", "fem", "lafam", "randomcam", "ablationcam", "reciprocam",
    "integrated", "eigensmooth",
]  # fmt: skip


@pytest.mark.parametrize("name", TRANSLATION_EQUIVARIANT)
def test_map_of_an_image_shifted_by_the_stride_shifts_by_one_cell(name: str) -> None:
    """Padding is circular, so nothing is lost at a border."""
    net = SmallConvNet(border="circular")
    inputs = random_normal(3, 2, 8, 12, seed=1) + 0.3
    plain, moved = (explain_maps(net, x, name, ["first", "end"]) for x in (inputs, inputs.roll((2, 4), (2, 3))))
    for (method, layer), maps in plain.items():
        cells = (2, 4) if layer == "first" else (1, 2)
        assert_maps_close(moved[method, layer], maps.roll(cells, (1, 2)), 1e-8)
