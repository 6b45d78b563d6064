"""The methods that give one map for the full model: pixels, several layers, attention: equal to the slow reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy import methods
from seewhy.errors import MethodError
from seewhy.targets import ClassScore
from support import reference_network_methods as slow_network
from support.networks import Conv1dNet, Conv3dNet, InplaceNet, TwiceNet, calibrated_network, tiny_network, top_classes
from support.reference import CONVOLUTIONS, Slow
from support.vit_networks import (
    SQUARE_CONFIG,
    VIT_CONFIGS,
    ReferenceViT,
    TinyViTConfig,
    as_encoder,
    as_huggingface,
    as_timm,
    as_torchvision,
    draw_weights,
    random_inputs,
)

NETWORK = "network"  # the layer's name in the key of such a map
CLASSES = torch.tensor([1, 3])  # of two images: two classes


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Stages(nn.Module):
    """Three grids with two convolutions each; biases, none, BatchNorm after both, without weights too; a skip, in place."""

    shape = (3, 20, 28)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(6, affine=False)
        self.third = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.fourth = nn.Conv2d(8, 8, 3, padding=1)
        self.norm4 = nn.SyncBatchNorm(8)
        self.fifth = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.sixth = nn.Conv2d(8, 10, 1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(10, 5)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.normal_(module.bias, std=0.3)
            elif isinstance(module, slow_network.NORMS):
                nn.init.normal_(module.running_mean, std=0.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                if module.affine:
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.first(x)))
        y = self.norm2(self.second(x))
        y += x
        y = self.relu(self.third(F.relu_(y)))
        y = F.max_pool2d(self.relu(self.norm4(self.fourth(y))), 2, stride=1)
        return self.head(self.relu(self.sixth(self.fifth(y))).mean((2, 3)))


class Everywhere(nn.Module):
    """Answers a score at each place, so that there are no class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


TINY_NETWORKS = {kind.__name__: kind for kind in (Stages, InplaceNet, TwiceNet, Conv1dNet, Conv3dNet)}


@cache
def slow_of(name: str) -> Slow:
    """A net, two images and a class for each, with the reference's A and G."""
    if name in TINY_NETWORKS:
        return Slow(*decided(TINY_NETWORKS[name]))
    net, inputs = calibrated_network(name, dtype=torch.float64)
    classes = top_classes(net, inputs)
    classes[1] = (classes[1] + int(classes[0] == classes[1])) % 1000
    return Slow(net, inputs, classes)


def decided(kind: type[nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    """A tiny net that is sure of two images, each of another class, because of what is in them.

    A fresh one answers much the same whatever it sees, and hiding a part then changes no probability.
    """
    net, _ = tiny_network(kind, dtype=torch.float64)
    random = torch.Generator().manual_seed(1)
    many = torch.randn(64, *kind.shape, generator=random, dtype=torch.float64)
    with torch.no_grad():
        logits = net(many)
        scale = 2 / logits.std(0)
        net.head.bias.copy_((net.head.bias - logits.mean(0)) * scale)
        net.head.weight.mul_(scale[:, None])
        chances, classes = net(many).softmax(1).max(1)
    first = int(chances.argmax())
    second = int((chances * (classes != classes[first])).argmax())
    return net, many[[first, second]], classes[[first, second]]


def apart(found: Tensor, expected: Tensor) -> list[float]:
    """For each image the largest difference, relative to the largest value of the map."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert found.dtype == expected.dtype
    return ((found - expected).flatten(1).abs().amax(1) / expected.flatten(1).abs().amax(1)).tolist()


def assert_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert all(far <= tolerance for far in apart(found, expected)), apart(found, expected)  # NaN is wrong too


def assert_healthy(maps: Tensor) -> None:
    """Worth comparing: finite, not blank, not flat, and another map for each image."""
    assert bool(maps.isfinite().all())
    peaks = maps.flatten(1).abs().amax(1)
    assert float(peaks.min()) > 1e-6
    spreads = maps.flatten(1).amax(1) - maps.flatten(1).amin(1)
    assert float((spreads / peaks).min()) > 1e-3
    assert min(apart(maps[:1] / peaks[0], maps[1:] / peaks[1])) > 1e-3


def stacked(maps: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(maps))


def found_map(net: nn.Module, inputs: Tensor, method: Any, layers: Any, classes: Tensor = CLASSES) -> Tensor:
    e = seewhy.explain(net, inputs, methods=[method], layers=layers, targets=ClassScore(classes))
    return e.map(method=str(method), layer=NETWORK)


# --- pixels and several layers ----------------------------------------------------------------------------------------

DENSE = ("Stages", "InplaceNet")
EVERY = tuple(TINY_NETWORKS)
PIXELS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("Occlusion", {}, DENSE),
    ("Occlusion", {"window": 0.4, "stride": 0.15, "baseline": 0.7}, EVERY),
    ("Occlusion", {"window": 1.0, "stride": 1.0}, ("Conv1dNet",)),  # one window, everything
    ("RISE", {"masks": 40}, EVERY),
    ("RISE", {"masks": 60, "grid": 3, "p": 0.3, "seed": 5}, EVERY),
    ("PolyCAM", {"variant": "+"}, EVERY),
    ("PolyCAM", {"variant": "-"}, EVERY),
    ("PolyCAM", {"variant": "+-"}, EVERY),
    ("FullGrad", {}, (*EVERY, "resnet18", "mobilenet_v2", "squeezenet1_1")),
    ("FullGrad", {"biases": False}, (*EVERY, "resnet18")),
    ("RefineCAM", {}, (*EVERY, "resnet18")),
    ("RefineCAM", {"base": "LayerCAM"}, DENSE),
    ("LayerCAMFusion", {}, (*EVERY, "resnet18")),
    ("LayerCAMFusion", {"gamma": 0.5, "base": "GradCAM"}, DENSE),
]
CNN_CASES = [(name, settings, net) for name, settings, nets in PIXELS for net in nets]


# In a deep net the product over every layer is 0 everywhere: somewhere one of them is.
CHOSEN = {"resnet18": ("layer2.1.conv2", "layer3.1.conv2", "layer4.1.conv2")}


def layers_of(net: str) -> list[str]:
    return list(CHOSEN.get(net, slow_of(net).layers))


def method_of(name: str, settings: dict[str, Any]) -> Any:
    """The library's method; a base is written as the name of its class."""
    made = {key: getattr(methods, value)() if key == "base" else value for key, value in settings.items()}
    return getattr(methods, name)(**made)


def reference(name: str, settings: dict[str, Any], slow: Slow, layers: list[str]) -> Tensor:
    settings = {key: value.lower() if key == "base" else value for key, value in settings.items()}
    maps = []
    for image, chosen in enumerate(slow.classes.tolist()):
        x = slow.inputs[image].numpy()
        by_layers = {
            "PolyCAM": slow_network.polycam,
            "RefineCAM": slow_network.refinecam,
            "LayerCAMFusion": slow_network.layercam_fusion,
        }
        if name in by_layers:
            maps.append(by_layers[name](slow, image, layers, **settings))
        else:
            by_pixels = {
                "Occlusion": slow_network.occlusion,
                "RISE": slow_network.rise,
                "FullGrad": slow_network.fullgrad,
            }
            maps.append(by_pixels[name](slow.net, x, chosen, **settings))
    return stacked(maps)


@pytest.mark.parametrize(("name", "settings", "net"), CNN_CASES)
def test_pixels_and_layers_equal_the_reference(name: str, settings: dict[str, Any], net: str) -> None:
    slow = slow_of(net)
    expected = reference(name, settings, slow, layers_of(net))
    if settings.get("window") != 1.0:
        assert_healthy(expected)
    assert_equal(found_map(slow.net, slow.inputs, method_of(name, settings), layers_of(net), slow.classes), expected)


def test_only_the_chosen_layers_count() -> None:
    """And their order is the network's, not that of the list."""
    slow = slow_of("Stages")
    layers = ["second", "fourth", "sixth"]
    for name in ("PolyCAM", "RefineCAM", "LayerCAMFusion"):
        function = getattr(slow_network, {"LayerCAMFusion": "layercam_fusion"}.get(name, name.lower()))
        expected = stacked([function(slow, image, layers) for image in range(2)])
        for order in (layers, layers[::-1]):
            assert_equal(found_map(slow.net, slow.inputs, method_of(name, {}), order, slow.classes), expected)


# --- transformers -----------------------------------------------------------------------------------------------------

TRANSFORMER: list[tuple[str, dict[str, Any]]] = [
    ("AttentionRollout", {}),
    ("AttentionRollout", {"heads": "max"}),
    ("AttentionRollout", {"heads": "min"}),
    ("AttentionRollout", {"discard": 0.5}),
    ("AttentionRollout", {"heads": "max", "discard": 0.9}),
    ("AttentionRelevance", {}),
    ("LeGrad", {}),
    ("LeGrad", {"last": 1}),
    ("LeGrad", {"last": None}),
    ("GradECLIP", {}),
    ("ViTReciproCAM", {}),
    ("ViTReciproCAM", {"block": -1, "kernel": "point"}),
    ("ViTReciproCAM", {"block": -3, "score": "logit"}),
]
SLOW = {
    "AttentionRollout": slow_network.attention_rollout,
    "AttentionRelevance": slow_network.attention_relevance,
    "LeGrad": slow_network.legrad,
    "GradECLIP": slow_network.grad_eclip,
    "ViTReciproCAM": slow_network.vit_reciprocam,
}


@dataclass(frozen=True)
class Vit:
    """A transformer in a real class, the same one by hand, two images, and the name of a layer in it."""

    net: nn.Module
    hand: ReferenceViT
    inputs: Tensor
    layer: str
    tolerance: float = 1e-9

    def expected(self, name: str, settings: dict[str, Any]) -> Tensor:
        chosen = CLASSES.tolist()
        return stacked([SLOW[name](self.hand, x, c, **settings) for x, c in zip(self.inputs, chosen, strict=True)])


# At this seed a token before the patches has the key most like the query: what counts patches alone must leave it out.
SEEDS = {"registers": 1}


@cache
def vit(name: str) -> Vit:
    library, _, kind = name.partition(" ")
    shape = kind.split()[0]
    config, seed = VIT_CONFIGS.get(shape, SQUARE_CONFIG), SEEDS.get(shape, 0)
    weights, inputs = draw_weights(config, seed), random_inputs(config, seed)
    hand = ReferenceViT(config, weights)
    if library == "timm":
        return Vit(as_timm(config, weights, fused="fused" in kind), hand, inputs, f"blocks.{config.depth - 1}.norm1")
    if library == "torchvision":
        layer = f"encoder.layers.encoder_layer_{config.depth - 1}.ln_1"
        return Vit(as_torchvision(config, weights), hand, inputs, layer)
    if library == "torch":
        return Vit(as_encoder(config, weights), hand, inputs, f"encoder.layers.{config.depth - 1}.norm1")
    attention = kind.split()[-1]
    net = as_huggingface(config, weights, attention)
    # Eager attention there takes the softmax in float32, whatever the network's dtype.
    return Vit(
        net, hand, inputs, f"vit.layers.{config.depth - 1}.layernorm_before", 1e-5 if attention == "eager" else 1e-9
    )


INSTALLED = [f"timm {config} {how}" for config in VIT_CONFIGS for how in ("fused", "plain")]
INSTALLED += ["torchvision square", "torch class"]
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


# --- what does not fit ------------------------------------------------------------------------------------------------

ATTENTION = ("AttentionRollout", "AttentionRelevance", "LeGrad", "GradECLIP", "ViTReciproCAM")


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


@pytest.mark.parametrize("name", ["PolyCAM", "RISE"])
def test_probabilities_need_class_scores(name: str) -> None:
    net, inputs = Everywhere().double(), torch.randn(2, 3, 12, 14, dtype=torch.float64)
    with pytest.raises(MethodError, match=r"\S"):
        seewhy.explain(
            net, inputs, methods=[method_of(name, {})], layers="every", targets=lambda output: output[:, 1].mean((1, 2))
        )


def test_a_function_of_the_output_can_be_explained_by_its_score() -> None:
    """Occlusion, FullGrad and the fusions ask for a score only."""
    net, inputs = Everywhere().double(), torch.randn(2, 3, 12, 14, dtype=torch.float64)

    def corner(output: Tensor) -> Tensor:
        return output[:, 1, :4, :4].sum((1, 2))

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return corner(net(x))[:, None]

    for name in ("Occlusion", "FullGrad"):
        e = seewhy.explain(net, inputs, methods=[method_of(name, {})], layers="every", targets=corner)
        function = getattr(slow_network, name.lower())
        reads = Reads()
        reads.net = net
        expected = stacked([function(reads, x.numpy(), 0) for x in inputs])
        assert_equal(e.map(method=name.lower(), layer=NETWORK), expected)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("PolyCAM", {"variant": "++"}),
        ("Occlusion", {"window": 0.0}),
        ("Occlusion", {"window": 1.5}),
        ("Occlusion", {"stride": 0.0}),
        ("Occlusion", {"window": 0.1, "stride": 0.3}),  # pixels that no window hides
        ("RISE", {"masks": 0}),
        ("RISE", {"grid": 0}),
        ("RISE", {"p": 0.0}),
        ("AttentionRollout", {"heads": "median"}),
        ("AttentionRollout", {"discard": 1.0}),
        ("AttentionRollout", {"discard": -0.1}),
        ("LeGrad", {"last": 0}),
        ("ViTReciproCAM", {"block": 3}),
        ("ViTReciproCAM", {"block": -4}),
        ("ViTReciproCAM", {"kernel": "box"}),
        ("ViTReciproCAM", {"score": "energy"}),
    ],
)
def test_settings_that_make_no_sense(name: str, settings: dict[str, Any]) -> None:
    case, slow = vit("timm class fused"), slow_of("Stages")
    with pytest.raises(MethodError, match=r"\S"):
        method = method_of(name, settings)
        if name in ATTENTION:
            found_map(case.net, case.inputs, method, [case.layer])
        else:
            found_map(slow.net, slow.inputs, method, "every")


# --- the reference: checked alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("net", INSTALLED)
def test_the_transformer_by_hand_is_the_real_one(net: str) -> None:
    case = vit(net)
    with torch.no_grad():
        torch.testing.assert_close(case.hand.run(case.inputs).logits, case.net(case.inputs), rtol=0, atol=1e-12)


def test_the_reference_stretches_as_torch_does() -> None:
    """The one formula that each map at the image's size goes through."""
    for grid, size, mode in [
        ((7,), (31,), "linear"),
        ((4, 7), (20, 9), "bilinear"),
        ((3, 2, 5), (8, 8, 3), "trilinear"),
    ]:
        values = torch.randn(1, 2, *grid, dtype=torch.float64)
        for corners in (False, True):
            expected = F.interpolate(values, size, mode=mode, align_corners=corners)[0].numpy()
            np.testing.assert_allclose(slow_network.stretch(values[0].numpy(), size, corners), expected, atol=1e-13)


@pytest.mark.parametrize("net", ["Stages", "resnet18", "squeezenet1_1"])
def test_full_gradients_are_complete(net: str) -> None:
    """The paper's identity, for a net of ReLUs: y = x dy/dx + all biases times their gradients, the last layer's too."""
    slow = slow_of(net)
    scores = slow.scores().tolist()
    kinds = (*CONVOLUTIONS, *slow_network.NORMS, nn.Linear)
    for x, chosen, score in zip(slow.inputs.numpy(), slow.classes.tolist(), scores, strict=True):
        slope, found = slow_network.full_gradients(slow.net, x, chosen, kinds)
        shares = [(gradient * bias.reshape(-1, *[1] * (gradient.ndim - 1))).sum() for bias, gradient in found]
        assert len(found) == sum(
            isinstance(m, kinds) and slow_network.implied_bias(m) is not None for m in slow.net.modules()
        )
        assert abs(sum(shares)) > 1e-3 * abs(score)  # the biases matter
        assert (x * slope).sum() + sum(shares) == pytest.approx(score, rel=1e-10)


def test_occlusion_of_a_linear_network_is_what_is_hidden() -> None:
    """One pixel at a time: weight times pixel, summed over channels."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 5, 5)).double()
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    expected = (net[1].weight[2].reshape(x.shape) * x).sum(0).detach().numpy()
    found = slow_network.occlusion(net, x.numpy(), 2, window=0.01, stride=0.01)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_relevance_and_eclip_agree_with_the_closed_form_of_the_gradient() -> None:
    """dA of a head is (dy/d its output) v^T: another way to each gradient of the reference."""
    for config in VIT_CONFIGS.values():
        hand, x = ReferenceViT(config, draw_weights(config)), random_inputs(config)
        run = hand.run(x[:1].clone().requires_grad_())
        by_a = torch.autograd.grad(run.logits[0, 1], run.a, retain_graph=True)
        by_o = torch.autograd.grad(run.logits[0, 1], run.o)
        for a, o, v in zip(by_a, by_o, run.v, strict=True):
            split = o.reshape(1, o.shape[1], config.heads, -1).transpose(1, 2)
            torch.testing.assert_close(split @ v.transpose(2, 3), a, rtol=0, atol=1e-12)


def test_gradients_by_attention_are_slopes() -> None:
    """LeGrad's score is a function of a block's attention through that block only: central differences."""
    config = TinyViTConfig()
    hand, x = ReferenceViT(config, draw_weights(config)), random_inputs(config)[:1]
    run = hand.run(x.clone().requires_grad_())
    block, at = 1, (0, 1, 4, 7)

    def score(a: Tensor) -> Tensor:
        """Block 1 once more, from its input and another A."""
        tokens = run.tokens[block - 1].detach()
        o = (a @ run.v[block].detach()).transpose(1, 2).flatten(2)
        here = f"blocks.{block}."
        y = tokens + hand._linear(here + "attn.proj", o)
        hidden = F.gelu(hand._linear(here + "mlp.fc1", hand._norm(here + "norm2", y)))
        y = y + hand._linear(here + "mlp.fc2", hidden)
        return hand.read(y.mean(1, keepdim=True).expand_as(y))[0, 2]

    a = run.a[block].detach()
    ends = []
    for step in (1e-6, -1e-6):
        moved = a.clone()
        moved[at] += step
        ends.append(score(moved))
    everywhere = run.tokens[block].mean(1, keepdim=True).expand_as(run.tokens[block])
    (slope,) = torch.autograd.grad(hand.read(everywhere)[0, 2], run.a[block])
    assert float(slope[at]) == pytest.approx(float((ends[0] - ends[1]) / 2e-6), rel=1e-6)
    assert abs(float(slope[at])) > 1e-6


def test_rollout_rows_sum_to_one() -> None:
    """The class row without its first columns: what is left of one."""
    config = VIT_CONFIGS["average"]
    hand = ReferenceViT(config, draw_weights(config))
    assert slow_network.attention_rollout(hand, random_inputs(config)[0], 0).sum() == pytest.approx(1, abs=1e-12)
    assert slow_network.attention_rollout(vit("timm class plain").hand, random_inputs(TinyViTConfig())[0], 0).sum() < 1


@pytest.mark.parametrize("net", ["Stages", "InplaceNet"])
def test_rise_converges_to_the_mean_over_masks(net: str) -> None:
    """For a class that any mask leaves alike, the map is the mean mask over p: 1 everywhere."""

    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[50.0, 0.0]], dtype=torch.float64).expand(len(x), 2)

    found = slow_network.rise(Sure(), slow_of(net).inputs[0].numpy(), 0, masks=1500)
    assert abs(found.mean() - 1) < 0.02
    assert abs(found - 1).max() < 0.2
