"""Methods for transformers, compared with independent float64 references."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch

import seewhy
from seewhy import methods
from seewhy.errors import MethodError
from seewhy.targets import ClassScore
from support.network_method_cases import (
    ATTENTION,
    CLASSES,
    INSTALLED,
    NETWORK,
    TRANSFORMER,
    apart,
    assert_equal,
    assert_healthy,
    found_map,
    method_of,
    slow_of,
    vit,
)

VIT_CASES = [
    (name, settings, net)
    for name, settings in TRANSFORMER
    for net in INSTALLED
    if not (name == "GradECLIP" and any(word in net for word in ("average", "both", "plain")))
]


@pytest.mark.parametrize(("name", "settings", "net"), VIT_CASES)
def test_attention_equals_the_reference(name: str, settings: dict[str, Any], net: str) -> None:
    case = vit(net)
    expected = case.expected(name, settings)
    assert_healthy(expected)
    assert_equal(found_map(case.net, case.inputs, method_of(name, settings), [case.layer]), expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_equals_the_reference_in_transformers(attention: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is no part of the installation")
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("the weights are put in under the names of transformers 5")
    case = vit(f"transformers square {attention}")
    wrong = {}
    for name, settings in TRANSFORMER:
        if name == "GradECLIP" and attention == "eager":
            continue
        found = found_map(case.net, case.inputs, method_of(name, settings), [case.layer])
        far = apart(found.double(), case.expected(name, settings))
        if not all(each <= case.tolerance for each in far):
            wrong[name, str(settings)] = far
    assert wrong == {}


@pytest.mark.parametrize("net", ["timm registers fused", "timm class plain", "torchvision square", "torch class"])
def test_frozen_float32_and_under_no_grad(net: str) -> None:
    """Where nothing asks for a gradient PyTorch takes its fast path, which shows no attention."""
    case = vit(net)
    frozen = copy.deepcopy(case.net).float().requires_grad_(False)
    for name, settings in TRANSFORMER:
        if name == "GradECLIP" and "plain" in net:
            continue
        if "discard" in settings or settings.get("last", 2) != 2:
            continue  # which entries are lowest may change with rounding
        with torch.no_grad():
            found = found_map(frozen, case.inputs.float(), method_of(name, settings), [case.layer])
        assert_equal(found, case.expected(name, settings).float(), 1e-3)


def test_methods_together_are_the_methods_alone() -> None:
    """A mixed call: maps of layers and maps of the network, of two targets."""
    case = vit("timm class fused")
    chosen = [method_of(name, settings) for name, settings in TRANSFORMER] + [methods.GradCAM()]
    e = seewhy.explain(case.net, case.inputs, methods=chosen, layers=[case.layer], targets=[ClassScore(CLASSES), 0])
    for name, settings in TRANSFORMER:
        found = e.map(method=str(method_of(name, settings)), target="classes", layer=NETWORK)
        assert_equal(found, case.expected(name, settings))
    alone = seewhy.explain(case.net, case.inputs, methods=[methods.GradCAM()], layers=[case.layer], targets=0)
    assert_equal(e.map(method="gradcam", target="0", layer=case.layer), alone.map(method="gradcam", layer=case.layer))


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_not_found_in_a_convolutional_network(name: str) -> None:
    slow = slow_of("InplaceNet")
    with pytest.raises(MethodError, match=r"\S"):
        found_map(slow.net, slow.inputs, method_of(name, {}), "every")


@pytest.mark.parametrize("name", ATTENTION[:4])
def test_attention_within_windows_is_refused(name: str) -> None:
    """In Swin a table is of one window: nothing follows from it for the image."""
    net = timm.models.swin_transformer.SwinTransformer(
        img_size=32, patch_size=4, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4), num_classes=5
    )
    with pytest.raises(MethodError, match=r"\S"):
        found_map(net.double().eval(), torch.randn(2, 3, 32, 32).double(), method_of(name, {}), ["layers.1"])


@pytest.mark.parametrize("net", ["timm class plain", "timm registers plain"])
def test_gradeclip_needs_attention_that_is_fused(net: str) -> None:
    """Of softmax alone neither queries nor values can be told."""
    case = vit(net)
    with pytest.raises(MethodError, match="fused"):
        found_map(case.net, case.inputs, method_of("GradECLIP", {}), [case.layer])


def test_gradeclip_needs_a_class_token() -> None:
    case = vit("timm average fused")
    with pytest.raises(MethodError, match="class token"):
        found_map(case.net, case.inputs, method_of("GradECLIP", {}), [case.layer])
