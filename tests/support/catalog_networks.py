"""Every method of the catalog with fast settings, and the networks and inputs on which its properties are tested."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.methods.catalog import METHODS
from seewhy.targets import ClassScore
from support.identity_networks import (
    random_normal,
)


class AttentionHead(nn.Module):
    """Attention with one head and without output projection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))

    def forward(self, t: Tensor) -> Tensor:
        q, k, v = (part(t)[:, None] for part in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v)[:, 0]


class AttentionBlock(nn.Module):
    """Attention with one head and a skip connection, with or without LayerNorm."""

    def __init__(self, dim: int, normed: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if normed else nn.Identity()
        self.head = AttentionHead(dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.head(self.norm(x))


class FusedBlock(AttentionBlock):
    """The same block with attention computed in its own forward."""

    def forward(self, x: Tensor) -> Tensor:
        t = self.norm(x)
        q, k, v = (part(t)[:, None] for part in (self.head.q, self.head.k, self.head.v))
        return x + F.scaled_dot_product_attention(q, k, v)[:, 0]


class OneHeadTransformer(nn.Module):
    """A transformer with 2x3 patches, a class token, no position embedding and one head per block."""

    def __init__(self, depth: int = 1, normed: bool = False, kind: type[AttentionBlock] = AttentionBlock) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 4, 3, stride=3)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.blocks = nn.ModuleList(kind(4, normed) for _ in range(depth))
        self.head = nn.Linear(4, 4)
        self.double().eval()
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(random_normal(*parameter.shape, seed=40 + i))
            self.patches.weight /= 4

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])

    def block_tensors(self, inputs: Tensor) -> list[dict[str, Tensor]]:
        """Return x, t, q, k, v (B, N, 4) and A (B, N, N) of each block."""
        x = self.patches(inputs).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        actual = []
        for block in self.blocks:
            t = block.norm(x)
            q, k, v = block.head.q(t), block.head.k(t), block.head.v(t)
            raw = torch.exp(q @ k.mT / 2)
            a = raw / raw.sum(2, keepdim=True)
            actual.append({"x": x, "t": t, "q": q, "k": k, "v": v, "a": a})
            x = x + a @ v
        return [{name: value.detach() for name, value in one.items()} for one in actual]


SETTINGS = {
    "sscam": "sscam(samples=2)",
    "opticam": "opticam(steps=3)",
    "groupcam": "groupcam(groups=3)",
    "occlusion": "occlusion(window=0.4,stride=0.31)",  # 5 every 4 of 13 pixels, 4 every 3 of 9: up to both borders
    "rise": "rise(masks=30,grid=3)",
    "smooth": "smooth(samples=2)",
    "smoothgradcam++": "smoothgradcam++(samples=2)",
    "integrated": "integrated(steps=3)",
    "cameras": "cameras(sizes=2)",
    "sess": "sess(scales=2)",
    "vitreciprocam": "vitreciprocam(block=-1)",
}


NAMES = [entry.name for entry in METHODS]


TRANSFORMER_METHODS = {"attentionrollout", "attentionrelevance", "legrad", "gradeclip", "vitreciprocam"}


CONVOLUTIONAL_METHODS = [name for name in NAMES if name not in TRANSFORMER_METHODS]


TOLERANCES = {"opticam": 1e-6}  # Adam divides a gradient by its absolute value


class SmallConvNet(nn.Module):
    """Two symmetric convolutions with ReLU, mean pooling and a linear head. CAM applies to `end`."""

    def __init__(self, width: int = 3, stride: int = 2, border: str = "zeros") -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, width, padding=width // 2, padding_mode=border)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(6, 7, width, stride, padding=width // 2, padding_mode=border)
        self.end = nn.ReLU()
        self.head = nn.Linear(7, 4)
        self.double().eval()
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(
                    1.5 * random_normal(*parameter.shape, seed=60 + i) / max(1, parameter[0].numel()) ** 0.5
                )
            for conv in (self.first, self.second):
                conv.weight.copy_((conv.weight + conv.weight.flip(-1)) / 2)
            self.head.weight *= 3
            self.head.bias.copy_(torch.tensor([3.0, 4.0, 5.0, 6.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.end(self.second(self.relu(self.first(x)))).mean((2, 3)))


CLASSES = [3, 0, 1]


def example_for(name: str) -> tuple[nn.Module, Tensor, list[str] | None]:
    """Return a network for the method, three images (one of low, one of high contrast), and the layers to explain."""
    sizes = torch.tensor([1.0, 0.05, 20.0], dtype=torch.float64)[:, None, None, None]
    if name in TRANSFORMER_METHODS:
        return OneHeadTransformer(2, normed=True), random_normal(3, 2, 6, 9, seed=1) * sizes.clamp(0.5, 2), None
    return (
        SmallConvNet(),
        (random_normal(3, 2, 9, 13, seed=1) + 0.3) * sizes,
        ["end"] if name == "cam" else ["first", "end"],
    )


def explain_maps(net: nn.Module, inputs: Tensor, methods: Any, layers: Any, target: Any = None) -> dict[Any, Tensor]:
    """Return the maps of one call by method and layer."""
    target = ClassScore(torch.tensor(CLASSES[: len(inputs)])) if target is None else target
    e = seewhy.explain(net, inputs, methods=methods, layers=layers, targets=target)
    return {(method, layer): maps for (method, _, layer), maps in e.maps.items()}


@cache
def maps_of_example(name: str) -> dict[Any, Tensor]:
    """Return the maps of a method on its unchanged example."""
    net, inputs, layers = example_for(name)
    return explain_maps(net, inputs, SETTINGS.get(name, name), layers)


CHANNEL_ORDER_DEPENDENT = {
    "groupcam",
    "randomcam",
    "sscam",
    "deepfeaturefactorization",
}  # groups, one seed per channel, random initial values
