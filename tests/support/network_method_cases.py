"""Networks, inputs and references for the methods that return one map for the entire model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy import methods
from seewhy.targets import ClassScore
from support import reference_network_methods as network_references
from support.networks import Conv1dNet, Conv3dNet, InplaceNet, TwiceNet, calibrated_network, tiny_network, top_classes
from support.reference import ReferenceNetwork
from support.vit_networks import (
    SQUARE_CONFIG,
    VIT_CONFIGS,
    ReferenceViT,
    as_encoder,
    as_huggingface,
    as_timm,
    as_torchvision,
    draw_weights,
    random_inputs,
)

NETWORK = "network"  # the layer name of maps of the entire model


CLASSES = torch.tensor([1, 3])  # one class per image


class ThreeGridNet(nn.Module):
    """A network with three grids, convolutions with and without bias, three kinds of BatchNorm and an in-place skip."""

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
            elif isinstance(module, network_references.NORMS):
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


TINY_NETWORKS = {kind.__name__: kind for kind in (ThreeGridNet, InplaceNet, TwiceNet, Conv1dNet, Conv3dNet)}


@cache
def reference_network_for(name: str) -> ReferenceNetwork:
    """Return the reference of a network for two images with one class each."""
    if name in TINY_NETWORKS:
        return ReferenceNetwork(*confident_network(TINY_NETWORKS[name]))
    net, inputs = calibrated_network(name, dtype=torch.float64)
    classes = top_classes(net, inputs)
    classes[1] = (classes[1] + int(classes[0] == classes[1])) % 1000
    return ReferenceNetwork(net, inputs, classes)


def confident_network(kind: type[nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a tiny network and two images of different classes with high probability.

    The output of a network with initial weights hardly depends on the image, so masks would not change it.
    """
    net, _ = tiny_network(kind, dtype=torch.float64)
    random = torch.Generator().manual_seed(1)
    many = torch.randn(64, *kind.shape, generator=random, dtype=torch.float64)
    with torch.no_grad():
        logits = net(many)
        scale = 2 / logits.std(0)
        net.head.bias.copy_((net.head.bias - logits.mean(0)) * scale)
        net.head.weight.mul_(scale[:, None])
        probabilities, classes = net(many).softmax(1).max(1)
    first = int(probabilities.argmax())
    second = int((probabilities * (classes != classes[first])).argmax())
    return net, many[[first, second]], classes[[first, second]]


def relative_errors(actual: Tensor, expected: Tensor) -> list[float]:
    """Return the maximum difference of each map, relative to its maximum absolute value."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    assert actual.dtype == expected.dtype
    return ((actual - expected).flatten(1).abs().amax(1) / expected.flatten(1).abs().amax(1)).tolist()


def assert_maps_equal(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    errors = relative_errors(actual, expected)
    assert all(error <= tolerance for error in errors), errors  # NaN fails as well


def assert_informative(maps: Tensor) -> None:
    """Assert that maps are finite, not zero, not constant, and different for each image."""
    assert bool(maps.isfinite().all())
    peaks = maps.flatten(1).abs().amax(1)
    assert float(peaks.min()) > 1e-6
    spreads = maps.flatten(1).amax(1) - maps.flatten(1).amin(1)
    assert float((spreads / peaks).min()) > 1e-3
    assert min(relative_errors(maps[:1] / peaks[0], maps[1:] / peaks[1])) > 1e-3


def stack_maps(maps: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(maps))


def explain_network(net: nn.Module, inputs: Tensor, method: Any, layers: Any, classes: Tensor = CLASSES) -> Tensor:
    e = seewhy.explain(net, inputs, methods=[method], layers=layers, targets=ClassScore(classes))
    return e.map(method=str(method), layer=NETWORK)


def method_of(name: str, settings: dict[str, Any]) -> Any:
    """Return a method of the library; a base is given as a class name."""
    made = {key: getattr(methods, value)() if key == "base" else value for key, value in settings.items()}
    return getattr(methods, name)(**made)


TRANSFORMER_SETTINGS: list[tuple[str, dict[str, Any]]] = [
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


ATTENTION_REFERENCES = {
    "AttentionRollout": network_references.attention_rollout,
    "AttentionRelevance": network_references.attention_relevance,
    "LeGrad": network_references.legrad,
    "GradECLIP": network_references.grad_eclip,
    "ViTReciproCAM": network_references.vit_reciprocam,
}


@dataclass(frozen=True)
class TransformerCase:
    """A transformer of a library, its reference implementation, two images, and the name of a layer."""

    net: nn.Module
    reference_vit: ReferenceViT
    inputs: Tensor
    layer: str
    tolerance: float = 1e-9

    def expected(self, name: str, settings: dict[str, Any]) -> Tensor:
        chosen = CLASSES.tolist()
        return stack_maps(
            [
                ATTENTION_REFERENCES[name](self.reference_vit, x, c, **settings)
                for x, c in zip(self.inputs, chosen, strict=True)
            ]
        )


# At this seed a prefix token has the key most similar to the query; methods that read only patches must ignore it.
SEEDS = {"registers": 1}


@cache
def transformer_case(name: str) -> TransformerCase:
    library, _, kind = name.partition(" ")
    shape = kind.split()[0]
    config, seed = VIT_CONFIGS.get(shape, SQUARE_CONFIG), SEEDS.get(shape, 0)
    weights, inputs = draw_weights(config, seed), random_inputs(config, seed)
    reference_vit = ReferenceViT(config, weights)
    if library == "timm":
        return TransformerCase(
            as_timm(config, weights, fused="fused" in kind), reference_vit, inputs, f"blocks.{config.depth - 1}.norm1"
        )
    if library == "torchvision":
        layer = f"encoder.layers.encoder_layer_{config.depth - 1}.ln_1"
        return TransformerCase(as_torchvision(config, weights), reference_vit, inputs, layer)
    if library == "torch":
        return TransformerCase(
            as_encoder(config, weights), reference_vit, inputs, f"encoder.layers.{config.depth - 1}.norm1"
        )
    attention = kind.split()[-1]
    net = as_huggingface(config, weights, attention)
    # Eager attention of transformers computes the softmax in float32, whatever the network's dtype.
    return TransformerCase(
        net,
        reference_vit,
        inputs,
        f"vit.layers.{config.depth - 1}.layernorm_before",
        1e-5 if attention == "eager" else 1e-9,
    )


TRANSFORMER_NAMES = [f"timm {config} {how}" for config in VIT_CONFIGS for how in ("fused", "plain")]


TRANSFORMER_NAMES += ["torchvision square", "torch class"]


ATTENTION = ("AttentionRollout", "AttentionRelevance", "LeGrad", "GradECLIP", "ViTReciproCAM")
