"""Tiny vision transformers: a reference that stores every intermediate tensor, and library classes with the same weights.

The weights are a dict with timm's names. `ReferenceViT` computes with them in plain matrix products and keeps A, q, k,
v and the output of the heads as tensors of the graph. `as_timm`, `as_torchvision` and `as_huggingface` load the same
weights into library classes, whose fused attention keeps none of these.
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
class TinyViTConfig:
    """The architecture of a tiny transformer."""

    size: tuple[int, int] = (32, 48)  # a grid of 4x6, in which swapped rows and columns are noticed
    patch: int = 8
    dim: int = 16
    depth: int = 3
    heads: int = 2
    classes: int = 5
    class_token: bool = True
    registers: int = 0
    is_mean_pooled: bool = False  # the head reads the mean of the patches, not the class token
    has_layer_scale: bool = False  # of the attention and of the MLP
    has_qk_norm: bool = False  # LayerNorm of q and k

    @property
    def grid(self) -> tuple[int, int]:
        return (self.size[0] // self.patch, self.size[1] // self.patch)

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def prefix(self) -> int:
        """The number of tokens before the patches: the class token, then registers."""
        return int(self.class_token) + self.registers


VIT_CONFIGS = {
    "class": TinyViTConfig(),
    "registers": TinyViTConfig(registers=3, has_layer_scale=True),
    "average": TinyViTConfig(class_token=False, is_mean_pooled=True),
    "both": TinyViTConfig(is_mean_pooled=True),  # a class token that the head does not read
    "qknorm": TinyViTConfig(size=(48, 32), heads=4, has_qk_norm=True),
}
SQUARE_CONFIG = TinyViTConfig(size=(32, 32), depth=4)  # torchvision supports square inputs only


@dataclass
class ForwardRecord:
    """One forward pass of `ReferenceViT`: the tensors of each block's attention (B, heads, N, ...), and the logits."""

    first: list[Tensor] = field(default_factory=list)  # output of the block's first LayerNorm (B, N, D)
    q: list[Tensor] = field(default_factory=list)
    k: list[Tensor] = field(default_factory=list)
    v: list[Tensor] = field(default_factory=list)
    a: list[Tensor] = field(default_factory=list)  # after softmax: rows are queries and sum to 1
    o: list[Tensor] = field(default_factory=list)  # A v, heads side by side (B, N, D), before the output projection
    tokens: list[Tensor] = field(default_factory=list)  # output of the block (B, N, D)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))


class ReferenceViT:
    """The transformer in plain matrix products, in float64."""

    def __init__(self, config: TinyViTConfig, weights: dict[str, Tensor]) -> None:
        self.config, self.w = config, {name: value.detach().double() for name, value in weights.items()}

    def run(self, inputs: Tensor, edit: Callable[[int, Tensor], Tensor] | None = None) -> ForwardRecord:
        """Run a forward pass. `edit(block, tokens)` may change the output of the first LayerNorm of a block."""
        config, run = self.config, ForwardRecord()
        x = self._embed(inputs)
        batch, count, dim = x.shape
        for number in range(config.depth):
            here = f"blocks.{number}."
            first = self._norm(here + "norm1", x)
            if edit is not None:
                first = edit(number, first)
            parts = self._linear(here + "attn.qkv", first).chunk(3, dim=-1)
            q, k, v = (part.reshape(batch, count, config.heads, dim // config.heads).transpose(1, 2) for part in parts)
            if config.has_qk_norm:
                q, k = self._norm(here + "attn.q_norm", q), self._norm(here + "attn.k_norm", k)
            raw = torch.exp(q @ k.transpose(2, 3) / (dim // config.heads) ** 0.5)
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
        """Return the class scores (B, classes) for the output tokens of the last block."""
        if self.config.is_mean_pooled:  # timm: the mean, then the norm
            pooled = self._norm("fc_norm", tokens[:, self.config.prefix :].mean(1))
        else:
            pooled = self._norm("norm", tokens)[:, 0]
        return self._linear("head", pooled)

    def _embed(self, inputs: Tensor) -> Tensor:
        """Embed each patch, add its position, and put the other tokens before the patches."""
        config = self.config
        rows, columns = config.grid
        cut = inputs.double().reshape(len(inputs), 3, rows, config.patch, columns, config.patch)
        vectors = cut.permute(0, 2, 4, 1, 3, 5).reshape(len(inputs), rows * columns, -1)
        x = vectors @ self.w["patch_embed.proj.weight"].flatten(1).T + self.w["patch_embed.proj.bias"]
        front = [self.w[name].expand(len(x), -1, -1) for name in ("cls_token", "reg_token") if name in self.w]
        if self.w["pos_embed"].shape[1] == config.patches:
            return torch.cat([*front, x + self.w["pos_embed"]], 1)
        return torch.cat([*front, x], 1) + self.w["pos_embed"]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
        return unit * self.w[name + ".weight"] + self.w[name + ".bias"]

    def _scale(self, name: str, x: Tensor) -> Tensor:
        return x * self.w[name + ".gamma"] if self.config.has_layer_scale else x


def draw_weights(config: TinyViTConfig, seed: int = 0) -> dict[str, Tensor]:
    """Draw weights for which attention is neither uniform nor on one token, and each block changes its tokens.

    The global random state does not change.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64) * std

    def linear(name: str, into: int, out: int, gain: float = 1.0) -> dict[str, Tensor]:
        return {name + ".weight": normal(out, into, std=gain / into**0.5), name + ".bias": normal(out, std=0.2)}

    def norm(name: str, width: int) -> dict[str, Tensor]:
        return {name + ".weight": 1 + normal(width, std=0.2), name + ".bias": normal(width, std=0.2)}

    dim, inputs = config.dim, 3 * config.patch**2
    embedding = linear("patch_embed.proj", inputs, dim, gain=2.0)
    embedding["patch_embed.proj.weight"] = embedding["patch_embed.proj.weight"].reshape(
        dim, 3, config.patch, config.patch
    )
    weights = {**embedding}
    if config.class_token:
        weights["cls_token"] = normal(1, 1, dim, std=1.0)
    if config.registers:
        weights["reg_token"] = normal(1, config.registers, dim, std=1.0)
    # In timm, networks with registers have positions for patches only, the others for the class token too.
    weights["pos_embed"] = normal(1, config.patches + (0 if config.registers else config.prefix), dim, std=0.5)
    for number in range(config.depth):
        here = f"blocks.{number}."
        weights |= norm(here + "norm1", dim) | linear(here + "attn.qkv", dim, 3 * dim, gain=1.3)
        if config.has_qk_norm:
            weights |= norm(here + "attn.q_norm", dim // config.heads) | norm(here + "attn.k_norm", dim // config.heads)
        weights |= linear(here + "attn.proj", dim, dim) | norm(here + "norm2", dim)
        weights |= linear(here + "mlp.fc1", dim, 2 * dim) | linear(here + "mlp.fc2", 2 * dim, dim)
        if config.has_layer_scale:
            weights |= {here + "ls1.gamma": 1 + normal(dim, std=0.3), here + "ls2.gamma": 1 + normal(dim, std=0.3)}
    return (
        weights
        | norm("fc_norm" if config.is_mean_pooled else "norm", dim)
        | linear("head", dim, config.classes, gain=2.0)
    )


def random_inputs(config: TinyViTConfig, seed: int = 0) -> Tensor:
    """Return two random inputs of the size of this architecture."""
    random = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(2, 3, *config.size, generator=random, dtype=torch.float64)


# The same weights in library classes


def as_timm(config: TinyViTConfig, weights: dict[str, Tensor], *, fused: bool) -> nn.Module:
    net = TimmViT(
        img_size=config.size,
        patch_size=config.patch,
        num_classes=config.classes,
        global_pool="avg" if config.is_mean_pooled else "token",
        embed_dim=config.dim,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=2,
        qk_norm=config.has_qk_norm,
        init_values=1.0 if config.has_layer_scale else None,
        class_token=config.class_token,
        reg_tokens=config.registers,
        no_embed_class=config.registers > 0,
    )
    net.double().load_state_dict(weights)
    for block in net.blocks:
        block.attn.fused_attn = fused
    return net.eval()


def as_torchvision(config: TinyViTConfig, weights: dict[str, Tensor]) -> nn.Module:
    net = TorchvisionViT(
        config.size[0], config.patch, config.depth, config.heads, config.dim, 2 * config.dim, num_classes=config.classes
    )
    _fill(net, weights, config, _TORCHVISION, "encoder.layers.encoder_layer_{}.", _TORCHVISION_BLOCK)
    return net.eval()


class EncoderNet(nn.Module):
    """A network from PyTorch's encoder layers, whose fast path calls no attention function."""

    def __init__(self, config: TinyViTConfig) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, config.dim, config.patch, config.patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.position = nn.Parameter(torch.zeros(1, config.patches + 1, config.dim))
        layer = nn.TransformerEncoderLayer(
            config.dim,
            config.heads,
            2 * config.dim,
            activation="gelu",
            layer_norm_eps=EPS,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.dim, eps=EPS)
        self.head = nn.Linear(config.dim, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), patches], 1) + self.position
        return self.head(self.norm(self.encoder(tokens))[:, 0])


def as_encoder(config: TinyViTConfig, weights: dict[str, Tensor]) -> nn.Module:
    net = EncoderNet(config)
    _fill(net, weights, config, _ENCODER, "encoder.layers.{}.", _ENCODER_BLOCK)
    return net.eval()


def as_huggingface(config: TinyViTConfig, weights: dict[str, Tensor], attention: str) -> nn.Module:
    """Return a ViTForImageClassification. transformers 5 is not installed with seewhy, so import it here."""
    from transformers import ViTConfig, ViTForImageClassification

    library_config = ViTConfig(
        hidden_size=config.dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=2 * config.dim,
        image_size=config.size[0],
        patch_size=config.patch,
        num_labels=config.classes,
        layer_norm_eps=EPS,
        attn_implementation=attention,
    )
    net = ViTForImageClassification(library_config)
    split = dict(weights)
    for number in range(config.depth):
        for kind in ("weight", "bias"):
            parts = weights[f"blocks.{number}.attn.qkv.{kind}"].chunk(3)
            split |= {f"blocks.{number}.attn.{n}.{kind}": part for n, part in zip("qkv", parts, strict=True)}
    _fill(net, split, config, _HUGGINGFACE, "vit.layers.{}.", _HUGGINGFACE_BLOCK)
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
    net: nn.Module,
    weights: dict[str, Tensor],
    config: TinyViTConfig,
    top: dict[str, str],
    prefix: str,
    block: dict[str, str],
) -> None:
    """Load every parameter of `net` from `weights`, translating the names. Raises KeyError if one has no counterpart."""
    names = dict(top)
    for number in range(config.depth):
        names |= {prefix.format(number) + theirs: f"blocks.{number}.{ours}" for theirs, ours in block.items()}
    state = {}
    for name in net.state_dict():
        stem, ending = re.fullmatch(
            r"(.*?)(?:[._](weight|bias))?", name
        ).groups()  # nn.MultiheadAttention: "in_proj_weight"
        state[name] = weights[names[stem] + (f".{ending}" if ending else "")]
    net.double().load_state_dict(state)
