"""One vision transformer whose attention is written in many ways, with equal results."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS, WIDTH = 2, 8
Attention = Callable[
    ["LayoutAttention", Tensor, Tensor, Tensor], Tensor
]  # q, k, v (B, heads, N, d) to (B, heads, N, d)


def flat(tensor: Tensor) -> Tensor:
    """Join images and heads in one axis."""
    return tensor.reshape(-1, *tensor.shape[2:])


def by_hand(q: Tensor, k: Tensor, v: Tensor, softmax: Callable[[Tensor], Tensor]) -> Tensor:
    return softmax(q @ k.mT * WIDTH**-0.5) @ v


def heads_first(one: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Attention:
    return lambda self, q, k, v: one(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)).transpose(0, 1)


def flattened(one: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Attention:
    return lambda self, q, k, v: one(flat(q), flat(k), flat(v)).view(v.shape)


def flattened_heads_first(one: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Attention:
    return heads_first(lambda q, k, v: one(flat(q), flat(k), flat(v)).view(v.shape))


def softmax_by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return by_hand(q, k, v, lambda logits: logits.softmax(-1))


def each_head(self: LayoutAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.cat(
        [F.scaled_dot_product_attention(q[:, i : i + 1], k[:, i : i + 1], v[:, i : i + 1]) for i in range(HEADS)], 1
    )


def each_head_without_axis(self: LayoutAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.stack([softmax_by_hand(q[:, i], k[:, i], v[:, i]) for i in range(HEADS)], 1)


def head_modules(self: LayoutAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.stack([head(q[:, i], k[:, i], v[:, i]) for i, head in enumerate(self.heads)], 1)


LAYOUTS: dict[str, Attention] = {
    "sdpa": lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v),
    "softmax by hand": lambda self, q, k, v: softmax_by_hand(q, k, v),
    "softmax module": lambda self, q, k, v: by_hand(q, k, v, self.attend),
    "heads first": heads_first(F.scaled_dot_product_attention),
    "heads first by hand": heads_first(softmax_by_hand),
    "flat": flattened(F.scaled_dot_product_attention),
    "flat by hand": flattened(softmax_by_hand),
    "flat, heads first": flattened_heads_first(F.scaled_dot_product_attention),
    "flat, heads first, by hand": flattened_heads_first(softmax_by_hand),
    "each head": each_head,
    "each head without axis": each_head_without_axis,
    "head modules": head_modules,
}
SHOWS_VALUES = ("sdpa", "heads first", "flat", "flat, heads first", "each head")  # queries and values are recorded
REFUSED: dict[str, Attention] = {
    "softmax over the queries' axis": lambda self, q, k, v: (k @ q.mT * WIDTH**-0.5).softmax(-2).mT @ v,
    "exp of log_softmax": lambda self, q, k, v: by_hand(q, k, v, lambda logits: logits.log_softmax(-1).exp()),
}


class Head(nn.Module):
    """The attention of one head, with a module in it."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.Softmax(dim=-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return by_hand(q, k, v, self.attend)


class LayoutAttention(nn.Module):
    """Attention in one of the layouts."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, width = kind, HEADS * WIDTH
        self.qkv, self.proj, self.attend = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Softmax(dim=-1)
        self.heads = nn.ModuleList(Head() for _ in range(HEADS if kind == "head modules" else 0))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        out = (LAYOUTS | REFUSED)[self.kind](self, *self.split(x))
        return self.proj(out.transpose(1, 2).reshape(x.shape))


class LayoutBlock(nn.Module):
    """A transformer block."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        width = HEADS * WIDTH
        self.norm1, self.norm2, self.attn = nn.LayerNorm(width), nn.LayerNorm(width), LayoutAttention(kind)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class LayoutViT(nn.Module):
    """A transformer on a grid of 4x6 patches. `calls` are the numbers of the blocks in the order of their calls."""

    def __init__(self, kind: str, calls: tuple[int, ...] = (0, 1, 2), is_mean_pooled: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        width = HEADS * WIDTH
        self.calls, self.is_mean_pooled = calls, is_mean_pooled
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 25, width) / 2)
        self.blocks = nn.ModuleList(LayoutBlock(kind) for _ in range(max(calls) + 1))
        self.head = nn.Linear(width, 5)
        with torch.no_grad():
            for block in self.blocks:
                block.attn.qkv.weight.mul_(3)
        self.double().eval().requires_grad_(False)

    def tokens(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        return torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position

    def read(self, x: Tensor) -> Tensor:
        return self.head(x[:, 1:].mean(1) if self.is_mean_pooled else x[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        for number in self.calls:
            x = self.blocks[number](x)
        return self.read(x)

    def reference(self, x: Tensor, number: int) -> dict[str, Tensor]:
        """Return the maps of rollout, relevance and LeGrad (all layers) of class `number`, from plain matrix products."""
        attention, outputs, tokens = [], [], self.tokens(x)
        for index in self.calls:
            block = self.blocks[index]
            q, k, v = block.attn.split(block.norm1(tokens))
            raw = torch.exp(torch.einsum("bhnd,bhmd->bhnm", q, k) / WIDTH**0.5)
            attention.append((raw / raw.sum(3, keepdim=True)).requires_grad_())
            out = torch.einsum("bhnm,bhmd->bnhd", attention[-1], v).flatten(2)
            tokens = tokens + block.attn.proj(out)
            tokens = tokens + block.mlp(block.norm2(tokens))
            outputs.append(tokens)
        gradients = torch.autograd.grad(self.read(tokens)[:, number].sum(), attention, retain_graph=True)
        eye, legrad = torch.eye(25).double(), torch.zeros(len(x), 25).double()
        rolled = relevance = eye.expand(len(x), 25, 25)
        for a, gradient, output in zip(attention, gradients, outputs, strict=True):
            rolled = (a.detach().mean(1) + eye) / 2 @ rolled
            relevance = relevance + (a.detach() * gradient).clamp(min=0).mean(1) @ relevance
            score = self.read(output.mean(1, keepdim=True).expand_as(output))[:, number]
            legrad += torch.autograd.grad(score.sum(), a, retain_graph=True)[0].clamp(min=0).mean((1, 2))
        rows = slice(1, None) if self.is_mean_pooled else slice(0, 1)
        maps = {
            "attentionrollout": rolled[:, rows].mean(1),
            "attentionrelevance": relevance[:, rows].mean(1),
            f"legrad(last={len(self.calls)})": legrad,
        }
        return {name: row[:, 1:].reshape(-1, 4, 6) for name, row in maps.items()}
