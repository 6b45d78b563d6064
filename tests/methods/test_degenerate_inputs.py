"""Every method of the catalog on constant inputs, on channels of zeros and without positive evidence."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import seewhy
from seewhy.methods import (
    DeepFeatureFactorization,
)
from seewhy.methods.parsing import as_methods
from support.catalog_networks import (
    CONVOLUTIONAL,
    NAMES,
    ORDERED,
    SETTINGS,
    TRANSFORMERS,
    Small,
    as_it_is,
    explained,
    stage,
)
from support.identity_maps import alike, near
from support.identity_networks import (
    close,
    linear,
    passing,
    pooled,
    random,
)

# Random masks and noise have places of their own, windows that are cut off at a border hide less.
UNEVEN = {"rise", "smooth", "occlusion"}


@pytest.mark.parametrize("value", [0.0, 0.7, -1.3])
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_of_one_colour_has_a_map_of_one_value(name: str, value: float) -> None:
    """Convolutions of one cell, attention without places: no cell knows where it is. And 0 / 0 is nowhere."""
    net, inputs, layers = stage(name)
    if name not in TRANSFORMERS:
        net = Small(1, stride=2 if name == "polycam" else 1)  # which needs two grids, but no gradient
    plain = torch.full_like(inputs, value)
    method = SETTINGS.get(name, name).replace("block=-1", "block=-1,kernel=point")  # a wider one is cut at the border
    for maps in explained(net, plain, method, layers).values():
        assert bool(maps.isfinite().all())
        flat = maps.flatten(1)
        # how one color is shared out between concepts hangs on their start at random, cell by cell
        if name not in UNEVEN | {"deepfeaturefactorization"}:
            assert bool((flat.amax(1) - flat.amin(1) <= 1e-9 * flat.abs().amax(1) + 1e-12).all())


def test_the_concepts_of_one_colour_add_up_to_one_value() -> None:
    net, inputs, layers = Small(1), torch.full((1, 2, 9, 13), 0.7).double(), ["end"]
    (maps,) = explained(net, inputs, DeepFeatureFactorization(concepts=1), layers).values()
    near(maps, maps.mean((1, 2), keepdim=True).expand_as(maps), 1e-9)
    assert float(maps.min()) > 0


AGAINST = ("gradcam", "hirescam", "xgradcam", "cam", "smooth", "integrated(rectified=false)", "augmented", "layercam",
           "gradcam++", "gradcamelementwise", "eigensmooth(centered=False)", "eigengradcam(centered=False)",
           "guidedgradcam", "smoothgradcam++")  # fmt: skip


@pytest.mark.parametrize("text", AGAINST)
def test_what_speaks_only_against_the_class_is_flagged(text: str) -> None:
    """Weights below 0 on activations above 0: nothing is positive, the heat map is blank, and it says so."""
    net = nn.Sequential(nn.ReLU(), passing(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        linear(torch.tensor([[-1.0, -2.0], [1.0, 1.0]]))).eval()  # fmt: skip
    inputs = random(1, 2, 6, 7).abs() + 5
    (method,) = as_methods(text.replace("false", "False")).values()
    e = seewhy.explain(net, inputs, methods=method, layers="1", targets=0)
    assert "no_evidence" in e.flags()[0] and not e.heatmap().any()
    assert bool((e.map() <= 0).all())
    turned = seewhy.explain(net, inputs, methods=method, layers="1", targets=1)
    assert "no_evidence" not in turned.flags()[0] and float(turned.heatmap().amax()) == pytest.approx(1)


def test_methods_together_flag_each_for_itself() -> None:
    """A blank map of one method is no matter to another at the same layer."""
    net, activation = pooled(torch.tensor([[-1.0, -2.0], [1.0, 1.0]])), random(2, 2, 5, 5).abs() + 0.1
    e = seewhy.explain(net, activation, methods=["gradcam", "layercam", "eigencam"], layers="0", targets=[0, 1])
    flags = {(m, t): e.flags(method=m, target=t)[0] for m in ("gradcam", "layercam", "eigencam") for t in ("0", "1")}
    assert flags["gradcam", "0"] == ("no_evidence",)
    assert flags["layercam", "0"] == ("no_evidence", "constant")
    assert all(not found for key, found in flags.items() if key[1] == "1" or key[0] == "eigencam")


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name not in ORDERED | {"lafam", "kpcacam"}])
def test_a_channel_of_zeros_says_nothing(name: str) -> None:
    """One more channel in both layers, 0 everywhere but with weights after it: no map changes (0 / 0 is no weight)."""
    net, inputs, layers = stage(name)
    assert isinstance(net, Small)
    wider = copy.deepcopy(net)
    wider.first, wider.second, wider.head = nn.Conv2d(2, 7, 3, padding=1), nn.Conv2d(7, 8, 3, 2, 1), nn.Linear(8, 4)
    wider.double()
    with torch.no_grad():
        for own, old in ((wider.first, net.first), (wider.second, net.second)):
            own.weight.zero_()
            own.bias.zero_()
            own.weight[: old.out_channels, : old.in_channels] = old.weight
            own.bias[: old.out_channels] = old.bias
        wider.second.weight[:7, 6] = 1.7
        wider.head.weight[:, :7], wider.head.weight[:, 7] = net.head.weight, 2.3
        wider.head.bias.copy_(net.head.bias)
    close(wider(inputs), net(inputs), rtol=1e-12)
    found, expected = explained(wider, inputs, SETTINGS.get(name, name), layers), as_it_is(name)
    if name == "opticam":  # the softmax shares with it; what is left is in the same proportions at the first step only
        assert all(bool(maps.isfinite().all()) for maps in found.values())
        return
    alike(found, expected, 1e-9)
