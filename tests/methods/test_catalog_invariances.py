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
    CLASSES,
    CONVOLUTIONAL,
    LOOSE,
    NAMES,
    ORDERED,
    SETTINGS,
    TRANSFORMERS,
    Small,
    as_it_is,
    explained,
    stage,
)
from support.identity_maps import alike, maps_of, near, times
from support.identity_networks import (
    close,
    random,
    score,
)


def permuted(net: Small) -> Small:
    """The same function, with the channels of both layers in another order."""
    other, first, second = copy.deepcopy(net), [4, 0, 5, 2, 1, 3], [6, 2, 0, 5, 3, 1, 4]
    with torch.no_grad():
        other.first.weight.copy_(net.first.weight[first])
        other.first.bias.copy_(net.first.bias[first])
        other.second.weight.copy_(net.second.weight[second][:, first])
        other.second.bias.copy_(net.second.bias[second])
        other.head.weight.copy_(net.head.weight[:, second])
    return other


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name not in ORDERED])
def test_channels_have_no_order(name: str) -> None:
    net, inputs, layers = stage(name)
    assert isinstance(net, Small)
    found = explained(permuted(net), inputs, SETTINGS.get(name, name), layers)
    alike(found, as_it_is(name), LOOSE.get(name, 1e-8))


def rescaled(net: Small, by: Tensor) -> Small:
    """The same function, with each channel k of both layers divided by s_k and the next weights multiplied by it."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        for conv, s in ((other.first, by[:6]), (other.second, by[:7])):
            conv.weight /= s[:, None, None, None]
            conv.bias /= s
        other.second.weight *= by[:6][:, None, None]
        other.head.weight *= by[:7]
    return other


# Methods that take A alone: its scale is that of the map (and the kernel of KPCA-CAM bends with it).
OF_A = {
    "eigencam", "fem", "lafam", "randomcam", "deepfeaturefactorization", "scorecam", "sscam", "iscam", "opticam",
    "polycam", "ablationcam",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name not in OF_A | {"kpcacam"}])
def test_the_units_of_a_channel_are_no_matter(name: str) -> None:
    """A_k / s_k with the next weights times s_k: the net is the same, and so is each map made of G times A.

    Grad-CAM++ too: g S_k has no units, and g A_k neither.
    """
    net, inputs, layers = stage(name)
    assert isinstance(net, Small)
    other = rescaled(net, torch.tensor([0.3, 5.0, 1.0, 2.0, 0.7, 9.0, 0.1], dtype=torch.float64))
    close(other(inputs), net(inputs), rtol=1e-10)
    alike(explained(other, inputs, SETTINGS.get(name, name), layers), as_it_is(name), LOOSE.get(name, 1e-8))


@pytest.mark.parametrize("name", sorted(OF_A))
def test_the_units_of_a_layer_are_those_of_its_map(name: str) -> None:
    """All channels divided by 4: the masks and their scores are the same, and what is summed up is a quarter.

    Ablation-CAM too: its weights are shares of the score.
    """
    net, inputs, layers = stage(name)
    assert isinstance(net, Small)
    found = explained(rescaled(net, torch.full((7,), 4.0)), inputs, SETTINGS.get(name, name), layers)
    alike(found, as_it_is(name), LOOSE.get(name, 1e-8), scale=0.25)


# How many times the logit's scale is in a map.
DEGREES = {
    **dict.fromkeys(["gradcam", "hirescam", "layercam", "xgradcam", "gradcamelementwise", "eigengradcam"], 1),
    **dict.fromkeys(["segeigencam", "finercam", "cam", "smooth", "integrated", "augmented", "eigensmooth"], 1),
    **dict.fromkeys(["cameras", "occlusion", "gradeclip"], 1),
    "guidedgradcam": 2,  # a gradient in both factors
    **dict.fromkeys(["ablationcam", "fullgrad", "layercamfusion"], 0),  # shares
    **dict.fromkeys(["eigencam", "kpcacam", "fem", "lafam", "randomcam", "deepfeaturefactorization"], 0),
    "attentionrollout": 0,
    "legrad": 1,
}


def louder(net: Any, by: float) -> nn.Module:
    """The logits times a number."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.weight *= by
        other.head.bias *= by
    return other


@pytest.mark.parametrize("name", list(DEGREES))
def test_the_scale_of_the_logits_is_a_factor(name: str) -> None:
    net, inputs, layers = stage(name)
    found = explained(louder(net, 3.0), inputs, SETTINGS.get(name, name), layers)
    alike(found, as_it_is(name), 1e-9, scale=3.0 ** DEGREES[name])


def test_the_scale_of_the_logits_is_a_factor_for_normalized_alphas() -> None:
    net, inputs, layers = stage("gradcam++")
    method = GradCAMPlusPlus(alphas="normalized")
    plain = explained(net, inputs, method, ["end"])
    for by in (1e-4, 1e4):  # before the mean the gradient is one value, and g S_k then cancels
        alike(explained(louder(net, by), inputs, method, ["end"]), plain, 1e-9, scale=by)
    assert layers == ["first", "end"]


SCALED = {
    "gradcam++", "smoothgradcam++", "refinecam", "shapleycam", "scorecam", "sscam", "iscam", "groupcam", "reciprocam",
    "polycam", "rise", "sess", "attentionrelevance", "vitreciprocam",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SCALED))
def test_the_scale_of_the_logits_changes_these(name: str) -> None:
    """Probabilities, 1 / (2 + g S), products of layers: no factor takes the map back."""
    net, inputs, layers = stage(name)
    found = explained(louder(net, 3.0), inputs, SETTINGS.get(name, name), layers)
    apart = []
    for key, maps in as_it_is(name).items():
        one, other = maps.flatten(1), found[key].flatten(1)
        factor = (one * other).sum(1) / (one * one).sum(1).clamp(min=1e-300)
        apart.append(float(((other - factor[:, None] * one).abs().amax(1) / other.abs().amax(1)).nan_to_num(0).amax()))
    assert max(apart) > 1e-4


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ablationcam"])
def test_a_constant_added_to_all_logits_is_no_evidence(name: str) -> None:
    """Neither gradients nor probabilities nor differences see it; only Ablation-CAM divides by the score."""
    net, inputs, layers = stage(name)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.bias += 2.5
    alike(explained(other, inputs, SETTINGS.get(name, name), layers), as_it_is(name), LOOSE.get(name, 1e-9))


def test_a_constant_added_to_all_logits_where_it_is_seen() -> None:
    """Ablation-CAM times y is unchanged; Recipro-CAM of a logit moves by the constant."""
    net, inputs, layers = stage("ablationcam")
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.bias += 2.5
    y = score(net, inputs, CLASSES)
    for layer in layers or ():
        before, after = (maps_of(which, inputs, AblationCAM(), CLASSES, layer) for which in (net, other))
        near(times(y + 2.5, after), times(y, before), 1e-8)
        before, after = (maps_of(which, inputs, ReciproCAM(score="logit"), CLASSES, layer) for which in (net, other))
        close(after - before, torch.full_like(before, 2.5), rtol=1e-9)


# Noise and random masks know left from right, a random start cells.
SIDED = {"rise", "smooth", "smoothgradcam++", "sscam", "deepfeaturefactorization"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SIDED])
def test_a_mirrored_picture_has_a_mirrored_map(name: str) -> None:
    """For kernels whose left is as their right (or none, in attention without places)."""
    net, inputs, layers = stage(name)
    if name in TRANSFORMERS:
        with torch.no_grad():
            net.patches.weight.copy_((net.patches.weight + net.patches.weight.flip(-1)) / 2)
    plain, mirrored = (explained(net, x, SETTINGS.get(name, name), layers) for x in (inputs, inputs.flip(-1)))
    alike({key: maps.flip(-1) for key, maps in mirrored.items()}, plain, LOOSE.get(name, 1e-8))


# Methods that resize no mask and ask for no window: what they do to one cell they do to all.
SHIFTED = [
    "gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "gradcamelementwise", "eigengradcam", "segeigencam",
    "shapleycam", "finercam", "eigencam", "kpcacam", "fem", "lafam", "randomcam", "ablationcam", "reciprocam",
    "integrated", "eigensmooth",
]  # fmt: skip


@pytest.mark.parametrize("name", SHIFTED)
def test_a_picture_moved_by_the_stride_has_its_map_moved_by_a_cell(name: str) -> None:
    """On a torus, where nothing gets lost at a border."""
    net = Small(border="circular")
    inputs = random(3, 2, 8, 12, seed=1) + 0.3
    plain, moved = (explained(net, x, name, ["first", "end"]) for x in (inputs, inputs.roll((2, 4), (2, 3))))
    for (method, layer), maps in plain.items():
        cells = (2, 4) if layer == "first" else (1, 2)
        near(moved[method, layer], maps.roll(cells, (1, 2)), 1e-8)
