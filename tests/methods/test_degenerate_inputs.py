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
    CHANNEL_ORDER_DEPENDENT,
    CONVOLUTIONAL_METHODS,
    NAMES,
    SETTINGS,
    TRANSFORMER_METHODS,
    SmallConvNet,
    example_for,
    explain_maps,
    maps_of_example,
)
from support.identity_maps import assert_all_maps_close, assert_maps_close
from support.identity_networks import (
    assert_close,
    identity_convolution,
    linear_layer,
    pooled_network,
    random_normal,
)

# Random masks and noise depend on the position; windows that are cut off at a border hide less.
POSITION_DEPENDENT = {"rise", "smooth", "occlusion"}


@pytest.mark.parametrize("value", [0.0, 0.7, -1.3])
@pytest.mark.parametrize("name", NAMES)
def test_constant_image_has_a_constant_map(name: str, value: float) -> None:
    """Convolutions are 1x1 and attention has no position embedding, so all cells are equal, and no map has a NaN."""
    net, inputs, layers = example_for(name)
    if name not in TRANSFORMER_METHODS:
        net = SmallConvNet(1, stride=2 if name == "polycam" else 1)  # PolyCAM requires two grids
    plain = torch.full_like(inputs, value)
    method = SETTINGS.get(name, name).replace(
        "block=-1", "block=-1,kernel=point"
    )  # a wider kernel is cut at the border
    for maps in explain_maps(net, plain, method, layers).values():
        assert bool(maps.isfinite().all())
        flat = maps.flatten(1)
        # how concepts divide a constant depends on their random initial values in each cell
        if name not in POSITION_DEPENDENT | {"deepfeaturefactorization"}:
            assert bool((flat.amax(1) - flat.amin(1) <= 1e-9 * flat.abs().amax(1) + 1e-12).all())


def test_single_concept_of_a_constant_image_is_constant() -> None:
    net, inputs, layers = SmallConvNet(1), torch.full((1, 2, 9, 13), 0.7).double(), ["end"]
    (maps,) = explain_maps(net, inputs, DeepFeatureFactorization(concepts=1), layers).values()
    assert_maps_close(maps, maps.mean((1, 2), keepdim=True).expand_as(maps), 1e-9)
    assert float(maps.min()) > 0


METHODS_WITHOUT_POSITIVE_EVIDENCE = (
    "gradcam", "hirescam", "xgradcam", "cam", "smooth", "integrated(rectified=false)", "augmented", "layercam",
    "gradcam++", "gradcamelementwise", "eigensmooth(centered=False)", "eigengradcam(centered=False)",
    "guidedgradcam", "smoothgradcam++",
)  # fmt: skip


@pytest.mark.parametrize("text", METHODS_WITHOUT_POSITIVE_EVIDENCE)
def test_map_without_positive_evidence_is_flagged(text: str) -> None:
    """Negative weights on positive activations: no positive evidence, an empty heatmap, and a flag."""
    net = nn.Sequential(nn.ReLU(), identity_convolution(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        linear_layer(torch.tensor([[-1.0, -2.0], [1.0, 1.0]]))).eval()  # fmt: skip
    inputs = random_normal(1, 2, 6, 7).abs() + 5
    (method,) = as_methods(text.replace("false", "False")).values()
    e = seewhy.explain(net, inputs, methods=method, layers="1", targets=0)
    assert "no_evidence" in e.flags()[0] and not e.heatmap().any()
    assert bool((e.map() <= 0).all())
    turned = seewhy.explain(net, inputs, methods=method, layers="1", targets=1)
    assert "no_evidence" not in turned.flags()[0] and float(turned.heatmap().amax()) == pytest.approx(1)


def test_flags_are_independent_between_methods() -> None:
    """A map without evidence does not change the flags of another method at the same layer."""
    net, activation = pooled_network(torch.tensor([[-1.0, -2.0], [1.0, 1.0]])), random_normal(2, 2, 5, 5).abs() + 0.1
    e = seewhy.explain(net, activation, methods=["gradcam", "layercam", "eigencam"], layers="0", targets=[0, 1])
    flags = {(m, t): e.flags(method=m, target=t)[0] for m in ("gradcam", "layercam", "eigencam") for t in ("0", "1")}
    assert flags["gradcam", "0"] == ("no_evidence",)
    assert flags["layercam", "0"] == ("no_evidence", "constant")
    assert all(not actual for key, actual in flags.items() if key[1] == "1" or key[0] == "eigencam")


@pytest.mark.parametrize(
    "name", [name for name in CONVOLUTIONAL_METHODS if name not in CHANNEL_ORDER_DEPENDENT | {"lafam", "kpcacam"}]
)
def test_zero_channel_does_not_change_the_map(name: str) -> None:
    """An additional channel that is 0 everywhere and has nonzero following weights changes no map (0 / 0 is weight 0)."""
    net, inputs, layers = example_for(name)
    assert isinstance(net, SmallConvNet)
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
    assert_close(wider(inputs), net(inputs), rtol=1e-12)
    actual, expected = explain_maps(wider, inputs, SETTINGS.get(name, name), layers), maps_of_example(name)
    if name == "opticam":  # the softmax includes the channel, so later steps of the optimizer differ
        assert all(bool(maps.isfinite().all()) for maps in actual.values())
        return
    assert_all_maps_close(actual, expected, 1e-9)
