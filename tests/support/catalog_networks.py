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
    random,
)


class Head(nn.Module):
    """Attention with one head, and no projection after it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))

    def forward(self, t: Tensor) -> Tensor:
        q, k, v = (part(t)[:, None] for part in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v)[:, 0]


class Block(nn.Module):
    """One head of attention and a skip; `norm` may do nothing."""

    def __init__(self, dim: int, normed: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if normed else nn.Identity()
        self.head = Head(dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.head(self.norm(x))


class InOne(Block):
    """The same, with the attention in the block's own forward."""

    def forward(self, x: Tensor) -> Tensor:
        t = self.norm(x)
        q, k, v = (part(t)[:, None] for part in (self.head.q, self.head.k, self.head.v))
        return x + F.scaled_dot_product_attention(q, k, v)[:, 0]


class OneHead(nn.Module):
    """2x3 patches and a class token, no places, one head a block, a linear head: each derivative is a line of algebra."""

    def __init__(self, depth: int = 1, normed: bool = False, kind: type[Block] = Block) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 4, 3, stride=3)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.blocks = nn.ModuleList(kind(4, normed) for _ in range(depth))
        self.head = nn.Linear(4, 4)
        self.double().eval()
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(random(*parameter.shape, seed=40 + i))
            self.patches.weight /= 4

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])

    def seen(self, inputs: Tensor) -> list[dict[str, Tensor]]:
        """For each block x, t, q, k, v (B, N, 4) and A (B, N, N)."""
        x = self.patches(inputs).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        found = []
        for block in self.blocks:
            t = block.norm(x)
            q, k, v = block.head.q(t), block.head.k(t), block.head.v(t)
            raw = torch.exp(q @ k.mT / 2)
            a = raw / raw.sum(2, keepdim=True)
            found.append({"x": x, "t": t, "q": q, "k": k, "v": v, "a": a})
            x = x + a @ v
        return [{name: value.detach() for name, value in one.items()} for one in found]


SETTINGS = {
    "sscam": "sscam(samples=2)",
    "opticam": "opticam(steps=3)",
    "groupcam": "groupcam(groups=3)",
    "occlusion": "occlusion(window=0.4,stride=0.31)",  # 5 of 13 every 4, 4 of 9 every 3: to both borders
    "rise": "rise(masks=30,grid=3)",
    "smooth": "smooth(samples=2)",
    "smoothgradcam++": "smoothgradcam++(samples=2)",
    "integrated": "integrated(steps=3)",
    "cameras": "cameras(sizes=2)",
    "sess": "sess(scales=2)",
    "vitreciprocam": "vitreciprocam(block=-1)",
}


NAMES = [entry.name for entry in METHODS]


TRANSFORMERS = {"attentionrollout", "attentionrelevance", "legrad", "gradeclip", "vitreciprocam"}


CONVOLUTIONAL = [name for name in NAMES if name not in TRANSFORMERS]


LOOSE = {"opticam": 1e-6}  # Adam divides a slope by its own size


class Small(nn.Module):
    """Two convolutions with ReLU, mean pooling, a linear head; `end` is where CAM belongs. Left is as right."""

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
                parameter.copy_(1.5 * random(*parameter.shape, seed=60 + i) / max(1, parameter[0].numel()) ** 0.5)
            for conv in (self.first, self.second):
                conv.weight.copy_((conv.weight + conv.weight.flip(-1)) / 2)
            self.head.weight *= 3
            self.head.bias.copy_(torch.tensor([3.0, 4.0, 5.0, 6.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.end(self.second(self.relu(self.first(x)))).mean((2, 3)))


CLASSES = [3, 0, 1]


def stage(name: str) -> tuple[nn.Module, Tensor, list[str] | None]:
    """A net for the method, three images of its size (one faint, one bright), and the layers to explain."""
    sizes = torch.tensor([1.0, 0.05, 20.0], dtype=torch.float64)[:, None, None, None]
    if name in TRANSFORMERS:
        return OneHead(2, normed=True), random(3, 2, 6, 9, seed=1) * sizes.clamp(0.5, 2), None
    return Small(), (random(3, 2, 9, 13, seed=1) + 0.3) * sizes, ["end"] if name == "cam" else ["first", "end"]


def explained(net: nn.Module, inputs: Tensor, methods: Any, layers: Any, target: Any = None) -> dict[Any, Tensor]:
    """Every map of one call, by method and layer."""
    target = ClassScore(torch.tensor(CLASSES[: len(inputs)])) if target is None else target
    e = seewhy.explain(net, inputs, methods=methods, layers=layers, targets=target)
    return {(method, layer): maps for (method, _, layer), maps in e.maps.items()}


@cache
def as_it_is(name: str) -> dict[Any, Tensor]:
    """The maps of a method on its net, unchanged."""
    net, inputs, layers = stage(name)
    return explained(net, inputs, SETTINGS.get(name, name), layers)


ORDERED = {"groupcam", "randomcam", "sscam", "deepfeaturefactorization"}  # groups, seeds a channel, a random start
