"""Tiny vision transformers: one written out by hand with every intermediate kept, and the same weights in real classes.

The weights are a dict under timm's names. `Hand` computes with them in plain matrix products, so that what a method
speaks of (A, q, k, v, the output of the heads) is at hand as a tensor of the graph; `as_timm`, `as_torchvision` and
`as_huggingface` put the same weights into the classes that people use, where attention is fused and keeps nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

EPS = 1e-6  # of every LayerNorm


@dataclass(frozen=True)
class Form:
    """What a tiny transformer looks like."""

    size: tuple[int, int] = (32, 48)  # a grid of 4x6: rows and columns cannot be mistaken for each other
    patch: int = 8
    dim: int = 16
    depth: int = 3
    heads: int = 2
    classes: int = 5
    class_token: bool = True
    registers: int = 0
    average: bool = False  # the mean of the patches is read, not the class token
    scaled: bool = False  # layer scale
    normed: bool = False  # LayerNorm of q and k

    @property
    def grid(self) -> tuple[int, int]:
        return (self.size[0] // self.patch, self.size[1] // self.patch)

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def prefix(self) -> int:
        """Tokens in front of the patches: the class token, then registers."""
        return int(self.class_token) + self.registers


FORMS = {
    "class": Form(),
    "registers": Form(registers=3, scaled=True),
    "average": Form(class_token=False, average=True),
    "both": Form(average=True),  # a class token that is not read
    "qknorm": Form(size=(48, 32), heads=4, normed=True),
}
SQUARE = Form(size=(32, 32), depth=4)  # torchvision knows no other


@dataclass
class Run:
    """One forward by hand: for each block what its attention was made of (B, heads, N, ...), and the scores."""

    first: list[Tensor] = field(default_factory=list)  # output of the block's first LayerNorm (B, N, D)
    q: list[Tensor] = field(default_factory=list)
    k: list[Tensor] = field(default_factory=list)
    v: list[Tensor] = field(default_factory=list)
    a: list[Tensor] = field(default_factory=list)  # after softmax: rows are queries and sum to 1
    o: list[Tensor] = field(default_factory=list)  # A v, heads side by side (B, N, D), before the output projection
    tokens: list[Tensor] = field(default_factory=list)  # output of the block (B, N, D)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))


class Hand:
    """The transformer by hand, float64. `edit(block, tokens)` may change what the first LayerNorm of a block hands on."""

    def __init__(self, form: Form, weights: dict[str, Tensor]) -> None:
        self.form, self.w = form, {name: value.detach().double() for name, value in weights.items()}

    def run(self, inputs: Tensor, edit: Callable[[int, Tensor], Tensor] | None = None) -> Run:
        form, run = self.form, Run()
        x = self._embed(inputs)
        batch, count, dim = x.shape
        for number in range(form.depth):
            here = f"blocks.{number}."
            first = self._norm(here + "norm1", x)
            if edit is not None:
                first = edit(number, first)
            parts = self._linear(here + "attn.qkv", first).chunk(3, dim=-1)
            q, k, v = (part.reshape(batch, count, form.heads, dim // form.heads).transpose(1, 2) for part in parts)
            if form.normed:
                q, k = self._norm(here + "attn.q_norm", q), self._norm(here + "attn.k_norm", k)
            raw = torch.exp(q @ k.transpose(2, 3) / (dim // form.heads) ** 0.5)
            a = raw / raw.sum(3, keepdim=True)
            o = (a @ v).transpose(1, 2).reshape(batch, count, dim)
            x = x + self._scale(here + "ls1", self._linear(here + "attn.proj", o))
            hidden = F.gelu(self._linear(here + "mlp.fc1", self._norm(here + "norm2", x)))
            x = x + self._scale(here + "ls2", self._linear(here + "mlp.fc2", hidden))
            for kept, value in zip(
                (run.first, run.q, run.k, run.v, run.a, run.o, run.tokens), (first, q, k, v, a, o, x), strict=True
            ):
                kept.append(value)
        run.logits = self.read(x)
        return run

    def read(self, tokens: Tensor) -> Tensor:
        """The class scores (B, classes) for the tokens that the last block hands on."""
        if self.form.average:  # timm: the mean, then the norm
            pooled = self._norm("fc_norm", tokens[:, self.form.prefix :].mean(1))
        else:
            pooled = self._norm("norm", tokens)[:, 0]
        return self._linear("head", pooled)

    def _embed(self, inputs: Tensor) -> Tensor:
        """Each patch as a vector times the weights, with its position; then the other tokens in front."""
        form = self.form
        rows, columns = form.grid
        cut = inputs.double().reshape(len(inputs), 3, rows, form.patch, columns, form.patch)
        vectors = cut.permute(0, 2, 4, 1, 3, 5).reshape(len(inputs), rows * columns, -1)
        x = vectors @ self.w["patch_embed.proj.weight"].flatten(1).T + self.w["patch_embed.proj.bias"]
        front = [self.w[name].expand(len(x), -1, -1) for name in ("cls_token", "reg_token") if name in self.w]
        if self.w["pos_embed"].shape[1] == form.patches:
            return torch.cat([*front, x + self.w["pos_embed"]], 1)
        return torch.cat([*front, x], 1) + self.w["pos_embed"]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
        return unit * self.w[name + ".weight"] + self.w[name + ".bias"]

    def _scale(self, name: str, x: Tensor) -> Tensor:
        return x * self.w[name + ".gamma"] if self.form.scaled else x


def draw(form: Form, seed: int = 0) -> dict[str, Tensor]:
    """Weights under which attention is neither flat nor on one token, and each block moves its tokens. No global RNG."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64) * std

    def linear(name: str, into: int, out: int, gain: float = 1.0) -> dict[str, Tensor]:
        return {name + ".weight": normal(out, into, std=gain / into**0.5), name + ".bias": normal(out, std=0.2)}

    def norm(name: str, width: int) -> dict[str, Tensor]:
        return {name + ".weight": 1 + normal(width, std=0.2), name + ".bias": normal(width, std=0.2)}

    dim, inputs = form.dim, 3 * form.patch**2
    embedding = linear("patch_embed.proj", inputs, dim, gain=2.0)
    embedding["patch_embed.proj.weight"] = embedding["patch_embed.proj.weight"].reshape(dim, 3, form.patch, form.patch)
    weights = {**embedding}
    if form.class_token:
        weights["cls_token"] = normal(1, 1, dim, std=1.0)
    if form.registers:
        weights["reg_token"] = normal(1, form.registers, dim, std=1.0)
    # timm's register nets give a position to patches only, the others to the class token too.
    weights["pos_embed"] = normal(1, form.patches + (0 if form.registers else form.prefix), dim, std=0.5)
    for number in range(form.depth):
        here = f"blocks.{number}."
        weights |= norm(here + "norm1", dim) | linear(here + "attn.qkv", dim, 3 * dim, gain=1.3)
        if form.normed:
            weights |= norm(here + "attn.q_norm", dim // form.heads) | norm(here + "attn.k_norm", dim // form.heads)
        weights |= linear(here + "attn.proj", dim, dim) | norm(here + "norm2", dim)
        weights |= linear(here + "mlp.fc1", dim, 2 * dim) | linear(here + "mlp.fc2", 2 * dim, dim)
        if form.scaled:
            weights |= {here + "ls1.gamma": 1 + normal(dim, std=0.3), here + "ls2.gamma": 1 + normal(dim, std=0.3)}
    return weights | norm("fc_norm" if form.average else "norm", dim) | linear("head", dim, form.classes, gain=2.0)


def views(form: Form, seed: int = 0) -> Tensor:
    """Two random pictures of this form's size."""
    random = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(2, 3, *form.size, generator=random, dtype=torch.float64)


# --- the same weights in real classes ---------------------------------------------------------------------------------


def as_timm(form: Form, weights: dict[str, Tensor], *, fused: bool) -> nn.Module:
    net = TimmViT(
        img_size=form.size,
        patch_size=form.patch,
        num_classes=form.classes,
        global_pool="avg" if form.average else "token",
        embed_dim=form.dim,
        depth=form.depth,
        num_heads=form.heads,
        mlp_ratio=2,
        qk_norm=form.normed,
        init_values=1.0 if form.scaled else None,
        class_token=form.class_token,
        reg_tokens=form.registers,
        no_embed_class=form.registers > 0,
    )
    net.double().load_state_dict(weights)
    for block in net.blocks:
        block.attn.fused_attn = fused
    return net.eval()


def as_torchvision(form: Form, weights: dict[str, Tensor]) -> nn.Module:
    net = TorchvisionViT(
        form.size[0], form.patch, form.depth, form.heads, form.dim, 2 * form.dim, num_classes=form.classes
    )
    _fill(net, weights, form, _TORCHVISION, "encoder.layers.encoder_layer_{}.", _TORCHVISION_BLOCK)
    return net.eval()


class EncoderNet(nn.Module):
    """As people write it themselves: PyTorch's own encoder layers, which have a fast path without any attention to see."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, form.dim, form.patch, form.patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, form.dim))
        self.position = nn.Parameter(torch.zeros(1, form.patches + 1, form.dim))
        layer = nn.TransformerEncoderLayer(
            form.dim, form.heads, 2 * form.dim, activation="gelu", layer_norm_eps=EPS, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, form.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(form.dim, eps=EPS)
        self.head = nn.Linear(form.dim, form.classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), patches], 1) + self.position
        return self.head(self.norm(self.encoder(tokens))[:, 0])


def as_encoder(form: Form, weights: dict[str, Tensor]) -> nn.Module:
    net = EncoderNet(form)
    _fill(net, weights, form, _ENCODER, "encoder.layers.{}.", _ENCODER_BLOCK)
    return net.eval()


def as_huggingface(form: Form, weights: dict[str, Tensor], attention: str) -> nn.Module:
    """ViTForImageClassification of transformers 5, the one class here that is not installed with seewhy."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=form.dim,
        num_hidden_layers=form.depth,
        num_attention_heads=form.heads,
        intermediate_size=2 * form.dim,
        image_size=form.size[0],
        patch_size=form.patch,
        num_labels=form.classes,
        layer_norm_eps=EPS,
        attn_implementation=attention,
    )
    net = ViTForImageClassification(config)
    split = dict(weights)
    for number in range(form.depth):
        for kind in ("weight", "bias"):
            parts = weights[f"blocks.{number}.attn.qkv.{kind}"].chunk(3)
            split |= {f"blocks.{number}.attn.{n}.{kind}": part for n, part in zip("qkv", parts, strict=True)}
    _fill(net, split, form, _HUGGINGFACE, "vit.layers.{}.", _HUGGINGFACE_BLOCK)
    return net.eval()


_TORCHVISION = {
    "class_token": "cls_token",
    "conv_proj": "patch_embed.proj",
    "encoder.pos_embedding": "pos_embed",
    "encoder.ln": "norm",
    "heads.head": "head",
}
_TORCHVISION_BLOCK = {
    "ln_1": "norm1",
    "self_attention.in_proj": "attn.qkv",
    "self_attention.out_proj": "attn.proj",
    "ln_2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
}
_ENCODER = {"patch": "patch_embed.proj", "cls": "cls_token", "position": "pos_embed", "norm": "norm", "head": "head"}
_ENCODER_BLOCK = {
    "norm1": "norm1",
    "self_attn.in_proj": "attn.qkv",
    "self_attn.out_proj": "attn.proj",
    "norm2": "norm2",
    "linear1": "mlp.fc1",
    "linear2": "mlp.fc2",
}
_HUGGINGFACE = {
    "vit.embeddings.cls_token": "cls_token",
    "vit.embeddings.position_embeddings": "pos_embed",
    "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "vit.layernorm": "norm",
    "classifier": "head",
}
_HUGGINGFACE_BLOCK = {
    "layernorm_before": "norm1",
    "attention.q_proj": "attn.q",
    "attention.k_proj": "attn.k",
    "attention.v_proj": "attn.v",
    "attention.o_proj": "attn.proj",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def _fill(
    net: nn.Module, weights: dict[str, Tensor], form: Form, top: dict[str, str], prefix: str, block: dict[str, str]
) -> None:
    """Every parameter of `net` from the one that another library calls otherwise; none may be left over."""
    names = dict(top)
    for number in range(form.depth):
        names |= {prefix.format(number) + theirs: f"blocks.{number}.{ours}" for theirs, ours in block.items()}
    state = {}
    for name in net.state_dict():
        stem, ending = re.fullmatch(
            r"(.*?)(?:[._](weight|bias))?", name
        ).groups()  # nn.MultiheadAttention: "in_proj_weight"
        state[name] = weights[names[stem] + (f".{ending}" if ending else "")]
    net.double().load_state_dict(state)
