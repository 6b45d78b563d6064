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


ATTENTION_PRODUCTS = ("attentionrollout", "attentionrelevance")


class ReadViT(timm.models.vision_transformer.VisionTransformer):
    """A transformer with a class token and two registers, whose head reads tokens in several ways."""

    def __init__(self, reads: str) -> None:
        super().__init__(
            img_size=(32, 48),
            patch_size=8,
            embed_dim=16,
            depth=3,
            num_heads=2,
            num_classes=5,
            reg_tokens=2,
            weight_init="",
        )
        self.reads, self.head = reads, torch.nn.Linear(32 if reads == "class token next to the mean" else 16, 5)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        pooled = {
            "class token": lambda: x[:, 0],
            "a register": lambda: x[:, 2],
            "class token and register": lambda: x[:, 0] * x[:, 1],
            "mean of the patches": lambda: x[:, 3:].mean(1),
            "mean of all tokens": lambda: x.mean(1),
            "some patches": lambda: x[:, 5:9].mean(1),
            "class token next to the mean": lambda: torch.cat([x[:, 0], x[:, 3:].mean(1)], 1),
            "nothing": lambda: 0 * x[:, 0],
        }
        return self.head(pooled[self.reads]())


READ = {
    "class token": [0],
    "a register": [2],
    "class token and register": [0, 1],
    "mean of the patches": list(range(3, 27)),
    "mean of all tokens": list(range(27)),
    "some patches": [5, 6, 7, 8],
}


def drawn(net: torch.nn.Module, *, fused: bool) -> Any:
    """Draw weights for which attention is not uniform."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.5 if parameter.dim() > 1 else 0.2))
    for block in net.blocks:
        block.attn.fused_attn = fused
    return net.double().eval().requires_grad_(False)


def rows_of(net: Any, x: torch.Tensor, read: list[int], prefix: int) -> dict[str, torch.Tensor]:
    """Return the mean rows of the tokens `read` in the products of all layers, as maps of the patches."""
    attention: list[torch.Tensor] = []
    for block in net.blocks:
        block.attn.fused_attn = False
    keep = [block.attn.attn_drop.register_forward_hook(lambda m, args, a: attention.append(a)) for block in net.blocks]
    score = net(x.clone().requires_grad_())[:, 1].sum()
    for hook in keep:
        hook.remove()
    gradients = torch.autograd.grad(score, attention)
    count = attention[0].shape[-1]
    rolled = relevance = torch.eye(count, dtype=x.dtype).expand(len(x), count, count)
    for a, gradient in zip(attention, gradients, strict=True):
        rolled = (a.mean(1).detach() + torch.eye(count)) / 2 @ rolled
        relevance = relevance + (gradient * a.detach()).clamp(min=0).mean(1) @ relevance
    maps = {"attentionrollout": rolled, "attentionrelevance": relevance}
    return {name: table[:, read].mean(1)[:, prefix:].reshape(len(x), 4, 6) for name, table in maps.items()}


@pytest.mark.parametrize("reads", READ)
def test_products_of_attention_start_at_the_tokens_that_the_score_reads(reads: str) -> None:
    net, x = drawn(ReadViT(reads), fused=True), torch.randn(2, 3, 32, 48).double()
    actual = {name: seewhy.explain(net, x, methods=name, targets=1).map() for name in ATTENTION_PRODUCTS}
    for name, expected in rows_of(net, x, READ[reads], 3).items():
        assert_maps_equal(actual[name], expected)


@pytest.mark.parametrize("name", ["distilled", "beit", "registers only"])
def test_start_of_networks_of_timm(name: str) -> None:
    settings: Any = dict(img_size=(32, 48), patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=5)
    vit, net, read = timm.models.vision_transformer.VisionTransformer, None, []
    if name == "distilled":
        net, read = timm.models.deit.VisionTransformerDistilled(**settings), [0, 1]
    elif name == "beit":
        net, read = timm.models.beit.Beit(**settings, init_values=0.1), list(range(1, 25))
    else:
        net, read = vit(**settings, class_token=False, reg_tokens=2, global_pool="avg"), list(range(2, 26))
    net, x = drawn(net, fused=False), torch.randn(2, 3, 32, 48).double()
    prefix = 1 if name == "beit" else 2
    for method, expected in rows_of(net, x, read, prefix).items():
        assert_maps_equal(seewhy.explain(net, x, methods=method, targets=1).map(), expected)


@pytest.mark.parametrize("name", ATTENTION_PRODUCTS)
def test_no_start_without_a_rule(name: str) -> None:
    """A class token next to the mean of the patches has no row, and zero weights read no token."""
    x = torch.randn(2, 3, 32, 48).double()
    with pytest.raises(MethodError, match="reads both patches and other tokens"):
        seewhy.explain(drawn(ReadViT("class token next to the mean"), fused=True), x, methods=name, targets=1)
    with pytest.raises(MethodError, match="does not depend on the last attention"):
        seewhy.explain(drawn(ReadViT("nothing"), fused=True), x, methods=name, targets=1)


@pytest.mark.parametrize("reads", ["class token and register", "mean of the patches", "mean of all tokens"])
def test_gradeclip_requires_that_the_score_reads_the_class_token_only(reads: str) -> None:
    with pytest.raises(MethodError, match="does not read a single class token"):
        seewhy.explain(
            drawn(ReadViT(reads), fused=True), torch.randn(2, 3, 32, 48).double(), methods="gradeclip", targets=1
        )
