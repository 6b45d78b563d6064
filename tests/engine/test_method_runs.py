"""Several methods in one call: shared passes, methods that do not fit, memory budget, progress and channel features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import seewhy
from seewhy.errors import MethodError, UnknownName, UsageError
from seewhy.methods.base import NetworkMethod
from seewhy.methods.catalog import METHODS
from seewhy.methods.parsing import as_methods
from support.networks import TwiceNet, tiny_network

COFFEE = str(seewhy.sample("coffee"))


# Methods that do not fit


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("attentionrollout", "no self-attention by softmax or sdpa was found. Use gradcam."),
        ("gradeclip", "no self-attention by softmax or sdpa was found. Use gradcam."),
        ("cam", "the class scores must be one linear layer of this layer's mean, and other operations or layers lie in "
         "between. Use hirescam."),
        ("refinecam", "it combines layers, and 1 is selected. Select several, or layers='every'."),
        ("guidedgradcam", "it is defined for ReLU networks, but this model has silu. Use gradcam."),
        ("cameras", "the model does not accept inputs of size"),
    ],
)  # fmt: skip
def test_a_method_that_does_not_fit_is_an_error(method: str, message: str) -> None:
    net, inputs = tiny_network(TwiceNet)
    with pytest.raises(MethodError) as error:
        seewhy.explain(net, inputs, methods=method, layers="last", targets=0)
    assert message in str(error.value) and error.value.method == method


def test_a_method_is_skipped_at_layers_of_a_pattern_that_it_does_not_fit(embedded: seewhy.LoadedModel) -> None:
    e = seewhy.explain(embedded, COFFEE, methods=["gradcam", "cam"], layers=["Conv2d", "BatchNormAct2d"])
    assert e.layers_of("cam") == ("bn2",) and len(e.layers_of("gradcam")) > 90
    assert any(note.startswith("cam is skipped at") for note in e.notes)


def test_all_skips_methods_that_do_not_fit() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip
    e = seewhy.explain(net, torch.rand(1, 3, 12, 12), methods="all", layers=["0", "3"], targets=1)
    methods = {name.partition("#")[0] for name in e.methods}
    transformers = {"attentionrollout", "attentionrelevance", "legrad", "gradeclip", "vitreciprocam"}
    assert methods == {entry.name for entry in METHODS} - transformers
    assert {note.split()[0] for note in e.notes if "is skipped" in note} == {*transformers, "cam"}
    assert e.layers_of("cam") == ("3",) and e.layers_of("fullgrad") == ("network",)


def test_fast_runs_no_extra_forward_passes() -> None:
    net, inputs = tiny_network(TwiceNet)
    rows: list[tuple[int, int]] = []
    seewhy.explain(net, inputs, methods="fast", layers="last", progress=lambda *row: rows.append(row))
    assert rows[0] == (0, 0)


# Shared passes


def test_maps_of_several_methods_equal_those_of_single_calls(embedded: seewhy.LoadedModel) -> None:
    methods = ["gradcam", "shapleycam", "finercam", "eigencam", "smooth(samples=2)", "smooth(layercam,samples=2)"]
    layers = ["blocks.5.2.conv_pwl", "bn2"]
    e = seewhy.explain(embedded, COFFEE, methods=methods, layers=layers, targets=[967, 504])
    for (method, target, layer), maps in e.maps.items():
        single = seewhy.explain(embedded, COFFEE, methods=method, layers=layer, targets=int(target))
        torch.testing.assert_close(single.map(), maps[0], rtol=1e-4, atol=1e-5 * float(maps.abs().max()))


def test_several_targets_share_the_forward_passes() -> None:
    net, inputs = tiny_network(TwiceNet, dtype=torch.float64)
    batch_sizes: list[int] = []
    net.first.register_forward_hook(lambda module, args, output: batch_sizes.append(len(output)))
    methods = ["scorecam", "iscam(steps=2)", "sscam(samples=2)", "rise(masks=8)", "occlusion(window=0.5,stride=0.25)"]
    rows: list[int] = []
    seewhy.explain(net, inputs)  # the first call checks that rows do not depend on each other
    for targets in ([0], [0, 1, 2]):
        batch_sizes.clear()
        e = seewhy.explain(net, inputs, methods=methods, layers="last", targets=targets)
        rows.append(sum(batch_sizes))
    assert rows[0] == rows[1] > 50
    for name, method in zip(e.methods, methods, strict=True):
        single = seewhy.explain(net, inputs, methods=method, layers="last", targets=2)
        torch.testing.assert_close(single.map(), e.map(method=name, target=2), rtol=0, atol=0)


# Methods of the entire model


def test_a_network_method_has_one_map_for_all_layers(embedded: seewhy.LoadedModel) -> None:
    (method,) = as_methods("refinecam").values()
    assert isinstance(method, NetworkMethod)
    e = seewhy.explain(embedded, COFFEE, methods=["gradcam", "refinecam"], layers="every")
    assert e.map(method="refinecam").shape == (224, 224) and len(e.layers_of("gradcam")) == 49


def test_network_methods_do_not_read_the_suggested_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for layers in ("suggested", ["suggested"], [None], None):
        e = seewhy.explain(net, torch.rand(1, 3, 8, 8), methods="rise(masks=4)", layers=layers)
        assert e.layers == ("network",)
    with pytest.raises(UnknownName, match="no layer 'sugested'"):
        seewhy.explain(net, torch.rand(1, 3, 8, 8), methods="rise(masks=4)", layers=["suggested", "sugested"])


def test_models_without_a_grid_support_methods_that_read_no_layer() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    e = seewhy.explain(net, torch.rand(2, 3, 8, 8), methods=["rise(masks=20)", "occlusion"], targets=1)
    assert e.layers == ("network",) and e.map(method="occlusion").shape == (2, 8, 8)


# Memory and progress


def test_memory_limits_the_batch_size_but_not_the_maps() -> None:
    net, inputs = tiny_network(TwiceNet, dtype=torch.float64)
    batch_sizes: list[int] = []
    net.first.register_forward_hook(lambda module, args, output: batch_sizes.append(len(output)))
    limited = seewhy.explain(net, inputs[:1], methods="scorecam", layers="last", targets=0, memory=0.03)
    assert max(batch_sizes) < 6
    batch_sizes.clear()
    unlimited = seewhy.explain(net, inputs[:1], methods="scorecam", layers="last", targets=0)
    assert max(batch_sizes) == 6
    torch.testing.assert_close(limited.map(), unlimited.map(), rtol=1e-12, atol=0)


def test_progress_ends_at_the_announced_number_of_rows() -> None:
    net, inputs = tiny_network(TwiceNet)
    rows: list[tuple[int, int]] = []
    methods = ["scorecam", "ablationcam", "smooth(samples=4)"]
    seewhy.explain(net, inputs, methods=methods, layers="last", targets=0, progress=lambda *row: rows.append(row))
    assert rows[0] == (0, 2 * (6 + 6 + 12)) and rows[-1] == (48, 48)


# Channel features


def test_strongest_channels_are_those_with_the_largest_variation() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([0.0, 3.0, 1.0, 4.0, 2.0])[:, None, None, None].expand(5, 3, 1, 1))
    e = seewhy.explain(net, torch.rand(2, 3, 6, 6), layers="0", channels=3)
    features = e.features("0")
    assert features.channels.tolist() == [[3, 1, 4], [3, 1, 4]] and features.maps.shape == (2, 3, 6, 6)
    torch.testing.assert_close(features.maps[:, 0], 4 / 3 * features.maps[:, 1])
    assert e[1].features().maps.shape == (1, 3, 6, 6)
    with pytest.raises(UsageError, match=r"call explain\(\.\.\., channels=8\)"):
        seewhy.explain(net, torch.rand(1, 3, 6, 6), layers="0").features()
