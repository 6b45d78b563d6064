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
    NETWORK,
    TRANSFORMER_NAMES,
    TRANSFORMER_SETTINGS,
    assert_informative,
    assert_maps_equal,
    explain_network,
    method_of,
    reference_network_for,
    relative_errors,
    transformer_case,
)

VIT_CASES = [
    (name, settings, net)
    for name, settings in TRANSFORMER_SETTINGS
    for net in TRANSFORMER_NAMES
    if not (name == "GradECLIP" and any(word in net for word in ("average", "both", "plain")))
]


@pytest.mark.parametrize(("name", "settings", "net"), VIT_CASES)
def test_attention_equals_the_reference(name: str, settings: dict[str, Any], net: str) -> None:
    case = transformer_case(net)
    expected = case.expected(name, settings)
    assert_informative(expected)
    assert_maps_equal(explain_network(case.net, case.inputs, method_of(name, settings), [case.layer]), expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_equals_the_reference_in_transformers(attention: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is no part of the installation")
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("the weights are put in under the names of transformers 5")
    case = transformer_case(f"transformers square {attention}")
    wrong = {}
    for name, settings in TRANSFORMER_SETTINGS:
        if name == "GradECLIP" and attention == "eager":
            continue
        actual = explain_network(case.net, case.inputs, method_of(name, settings), [case.layer])
        errors = relative_errors(actual.double(), case.expected(name, settings))
        if not all(error <= case.tolerance for error in errors):
            wrong[name, str(settings)] = errors
    assert wrong == {}


@pytest.mark.parametrize("net", ["timm registers fused", "timm class plain", "torchvision square", "torch class"])
def test_frozen_float32_network_under_no_grad(net: str) -> None:
    """Without gradients PyTorch takes a fast path for encoder layers that does not expose attention."""
    case = transformer_case(net)
    frozen = copy.deepcopy(case.net).float().requires_grad_(False)
    for name, settings in TRANSFORMER_SETTINGS:
        if name == "GradECLIP" and "plain" in net:
            continue
        if "discard" in settings or settings.get("last", 2) != 2:
            continue  # rounding may change which entries are lowest
        with torch.no_grad():
            actual = explain_network(frozen, case.inputs.float(), method_of(name, settings), [case.layer])
        assert_maps_equal(actual, case.expected(name, settings).float(), 1e-3)


def test_mixed_call_equals_separate_calls() -> None:
    """One call with maps of layers and maps of the network, for two targets."""
    case = transformer_case("timm class fused")
    chosen = [method_of(name, settings) for name, settings in TRANSFORMER_SETTINGS] + [methods.GradCAM()]
    e = seewhy.explain(case.net, case.inputs, methods=chosen, layers=[case.layer], targets=[ClassScore(CLASSES), 0])
    for name, settings in TRANSFORMER_SETTINGS:
        actual = e.map(method=str(method_of(name, settings)), target="classes", layer=NETWORK)
        assert_maps_equal(actual, case.expected(name, settings))
    alone = seewhy.explain(case.net, case.inputs, methods=[methods.GradCAM()], layers=[case.layer], targets=0)
    assert_maps_equal(
        e.map(method="gradcam", target="0", layer=case.layer), alone.map(method="gradcam", layer=case.layer)
    )


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_methods_reject_convolutional_networks(name: str) -> None:
    reference_network = reference_network_for("InplaceNet")
    with pytest.raises(MethodError, match=r"\S"):
        explain_network(reference_network.net, reference_network.inputs, method_of(name, {}), "every")


@pytest.mark.parametrize("name", ATTENTION[:4])
def test_windowed_attention_raises(name: str) -> None:
    """Each attention matrix of Swin covers one window, so the methods cannot combine them over the image."""
    net = timm.models.swin_transformer.SwinTransformer(
        img_size=32, patch_size=4, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4), num_classes=5
    )
    with pytest.raises(MethodError, match=r"\S"):
        explain_network(net.double().eval(), torch.randn(2, 3, 32, 32).double(), method_of(name, {}), ["layers.1"])


@pytest.mark.parametrize("net", ["timm class plain", "timm registers plain"])
def test_gradeclip_requires_fused_attention(net: str) -> None:
    """Unfused attention exposes only the softmax: queries and values are unknown."""
    case = transformer_case(net)
    with pytest.raises(MethodError, match="fused"):
        explain_network(case.net, case.inputs, method_of("GradECLIP", {}), [case.layer])


def test_gradeclip_requires_a_class_token() -> None:
    case = transformer_case("timm average fused")
    with pytest.raises(MethodError, match="class token"):
        explain_network(case.net, case.inputs, method_of("GradECLIP", {}), [case.layer])
