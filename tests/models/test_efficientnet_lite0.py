"""The embedded network equals timm's `tf_efficientnet_lite0`: modules, their order and names, and scores, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import timm
import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import nn

import seewhy
from seewhy.models import imagenet
from seewhy.models.loading import load_model


@pytest.fixture(scope="module")
def reference(embedded: seewhy.LoadedModel) -> nn.Module:
    network: nn.Module = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(embedded.module.state_dict())
    return network.eval()


def describe_modules(network: nn.Module) -> Iterator[tuple[str, str, str]]:
    for name, module in network.named_modules():
        yield name, type(module).__name__, module.extra_repr()


def test_modules_have_the_names_classes_settings_and_order_of_timm(
    embedded: seewhy.LoadedModel, reference: nn.Module
) -> None:
    assert list(describe_modules(embedded.module)) == list(describe_modules(reference))


def test_weights_have_the_names_shapes_and_order_of_timm(embedded: seewhy.LoadedModel, reference: nn.Module) -> None:
    def shapes(network: nn.Module) -> list[tuple[str, torch.Size]]:
        return [(name, tensor.shape) for name, tensor in network.state_dict().items()]

    assert shapes(embedded.module) == shapes(reference)
    names = [name for name, _ in embedded.module.named_parameters()]
    assert names == [name for name, _ in reference.named_parameters()]


@pytest.mark.parametrize("size", [(224, 224), (225, 225), (160, 200), (223, 226), (33, 50)])
def test_scores_and_gradients_are_equal_at_any_size(
    embedded: seewhy.LoadedModel, reference: nn.Module, size: tuple[int, int]
) -> None:
    """The padding of the convolutions with stride 2 depends on the size, and may differ between the two sides."""
    inputs = torch.randn(2, 3, *size, requires_grad=True)
    scores, expected = embedded.module(inputs), reference(inputs)
    assert torch.equal(scores, expected)
    (gradient,) = torch.autograd.grad(scores[:, 7].sum(), inputs)
    (expected_gradient,) = torch.autograd.grad(expected[:, 7].sum(), inputs)
    assert torch.equal(gradient, expected_gradient)


def test_maps_are_equal(embedded: seewhy.LoadedModel, reference: nn.Module) -> None:
    inputs = torch.randn(1, 3, 96, 96)
    e, expected = (
        seewhy.explain(module, inputs, layers=["every", "bn2"], targets=3) for module in (embedded.module, reference)
    )
    assert e.layers == expected.layers and len(e.layers) == 50 and e.suggested == expected.suggested
    assert all(torch.equal(maps, expected.maps[key]) for key, maps in e.maps.items())


def test_module_alone_still_has_its_preprocessing_and_labels(embedded: seewhy.LoadedModel) -> None:
    loaded = load_model(embedded.module)
    assert loaded.preprocess == embedded.preprocess and loaded.labels == embedded.labels


# labels


def test_labels_are_those_of_timm() -> None:
    expected = tuple(ImageNetInfo("imagenet-1k").label_descriptions())
    assert imagenet.read_imagenet_1k() == expected == imagenet.imagenet_labels(1000)


@pytest.mark.parametrize("name", [imagenet.SYNSETS, imagenet.LEMMAS])
def test_labels_come_from_the_functions_of_timm_if_its_files_have_moved(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = imagenet.read_imagenet_1k()
    monkeypatch.setattr(imagenet, "SYNSETS" if name == imagenet.SYNSETS else "LEMMAS", "missing.txt")
    assert imagenet.read_imagenet_1k() is None
    assert imagenet.imagenet_labels.__wrapped__(1000) == expected


def test_network_and_labels_load_without_timm_and_torchvision() -> None:
    code = (
        "import sys, seewhy; loaded = seewhy.load_model(); "
        "print(len(loaded.labels), sorted({'timm', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1000", "[]"]
