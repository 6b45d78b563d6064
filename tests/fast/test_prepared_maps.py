"""Maps of prepared models are those of the model: every method, real architectures, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.methods.catalog import METHODS
from support.catalog_networks import SETTINGS
from support.small_architectures import ARCHITECTURES, small_architecture

GRADIENT_METHODS = [
    "gradcam",
    "hirescam",
    "layercam",
    "xgradcam",
    "gradcam++",
    "eigencam",
    "eigengradcam",
    "shapleycam",
]
QUICK = ["VGG", "DenseNet", "pre-activation"]  # for all methods
WITH_NORMS = [name for name in ARCHITECTURES if name not in ("ConvNeXt", "ViT")]
SLOW = {"reciprocam", "iscam", "sscam"}  # a forward pass for each cell or channel
# SESS divides by the number of positive values, and counts 1e-16 where the model itself has 0. The weights of Ablation-CAM are
# differences of nearly equal scores, and Opti-CAM follows gradients: their maps change as much if the input changes by 1e-14.
TOLERANCES = {"sess": 0.1, "ablationcam": 1e-7, "opticam": 1e-6}


def inputs_for(batch: int) -> Tensor:
    return torch.randn(batch, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def largest_difference(plain: seewhy.Explanation, fast: seewhy.Explanation) -> dict[str, float]:
    """Return the largest difference by method, as a fraction of the map's maximum or of rounding errors."""
    assert plain.maps.keys() == fast.maps.keys()
    result: dict[str, float] = {}
    for key, maps in plain.maps.items():
        size = maps.abs().max().clamp(min=1e-7)  # HiResCAM is 0 before a LayerNorm, up to rounding
        result[key[0]] = max(result.get(key[0], 0), float((maps - fast.maps[key]).abs().max() / size))
    return result


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradient_methods(name: str) -> None:
    net, inputs = small_architecture(name), inputs_for(2)
    methods = GRADIENT_METHODS[:-1]  # the curvature of 60 layers takes a minute
    prepared = seewhy.prepare(net)
    plain = seewhy.explain(net, inputs, methods=methods, layers="every", targets=3)
    fast = seewhy.explain(prepared, inputs, methods=methods, layers="every", targets=3)
    assert fast.provenance["prepared"] == "exact"
    assert prepared.fast.recipe is not None
    assert bool(prepared.fast.recipe.pairs) == (name in WITH_NORMS)
    assert max(largest_difference(plain, fast).values()) < 1e-9


def check_all_methods(name: str, skip: set[str]) -> None:
    net, inputs = small_architecture(name), inputs_for(1)
    prepared = seewhy.prepare(net)
    names = seewhy.explain(net, inputs, layers="every").layers
    layers = list(dict.fromkeys([names[0], names[len(names) // 2], names[-1]]))
    for entry in METHODS:
        if entry.name in skip:
            continue
        method = SETTINGS.get(entry.name, entry.name)
        try:
            plain = seewhy.explain(net, inputs, methods=method, layers=layers, targets=3)
        except seewhy.SeewhyError as error:
            with pytest.raises(type(error)) as caught:
                seewhy.explain(prepared, inputs, methods=method, layers=layers, targets=3)
            assert str(caught.value) == str(error)
            continue
        fast = seewhy.explain(prepared, inputs, methods=method, layers=layers, targets=3)
        assert not [note for note in fast.notes if "unprepared" in note]
        assert max(largest_difference(plain, fast).values()) < TOLERANCES.get(entry.name, 1e-9), method


@pytest.mark.parametrize("name", QUICK)
def test_all_methods(name: str) -> None:
    check_all_methods(name, SLOW)


@pytest.mark.full
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_methods_on_all_architectures(name: str) -> None:
    check_all_methods(name, set())


def test_every_module_keeps_its_meaning() -> None:
    """The convolution, the norm, the ReLU and blocks: all of them are layers in the same call."""
    net, inputs = small_architecture("ResNet"), inputs_for(2)
    plain = seewhy.explain(net, inputs, methods=["gradcam", "hirescam"], layers="all", targets=3)
    fast = seewhy.explain(seewhy.prepare(net), inputs, methods=["gradcam", "hirescam"], layers="all", targets=3)
    assert {"layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu#1", "layer1.0"} <= set(fast.layers)
    assert plain.layers == fast.layers
    assert max(largest_difference(plain, fast).values()) < 1e-9


def test_strongest_channels_are_those_of_the_convolution() -> None:
    net, inputs = small_architecture("VGG"), inputs_for(1)
    plain = seewhy.explain(net, inputs, layers="features.0", channels=3)
    fast = seewhy.explain(seewhy.prepare(net), inputs, layers="features.0", channels=3)
    own, other = plain.channel_features["features.0"], fast.channel_features["features.0"]
    assert torch.equal(own.channels, other.channels)
    assert torch.allclose(own.maps, other.maps, rtol=1e-9)


def test_score_of_replaced_activations_at_a_folded_convolution() -> None:
    """Ablation-CAM sets channels of the bare convolution to 0, which is not 0 behind the norm."""
    net, inputs = small_architecture("VGG"), inputs_for(1)
    plain = seewhy.explain(net, inputs, methods="ablationcam", layers="features.3", targets=1)
    fast = seewhy.explain(seewhy.prepare(net), inputs, methods="ablationcam", layers="features.3", targets=1)
    assert torch.allclose(plain.map(), fast.map(), rtol=1e-8, atol=1e-12)


class Wrapped(nn.Module):
    """A module around a convolution whose norm is outside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.inner(x)).relu().mean((2, 3))


def test_module_that_returns_the_output_of_a_folded_convolution() -> None:
    torch.manual_seed(0)
    net = Wrapped().double().eval()
    nn.init.normal_(net.norm.running_mean)  # type: ignore[arg-type]
    inputs, layers = inputs_for(1), ["inner", "inner.0", "norm"]
    prepared = seewhy.prepare(net)
    plain = seewhy.explain(net, inputs, methods=["gradcam", "hirescam"], layers=layers, targets=1)
    fast = seewhy.explain(prepared, inputs, methods=["gradcam", "hirescam"], layers=layers, targets=1)
    assert prepared.fast.recipe is not None and prepared.fast.recipe.pairs[0].aliases == ("inner",)
    assert max(largest_difference(plain, fast).values()) < 1e-9
