"""Methods for transformers: what the class token, or all tokens, attend to.

Notation: A_l (heads, N, N) the attention of layer l, rows are queries and sum to 1; dA_l the gradient of the score; tokens
0 ... prefix - 1 stand for no place (class token, registers). Without a class token rows are averaged over all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.errors import MethodError
from seewhy.methods.ablation import ReciproCAM
from seewhy.methods.base import MethodCard, NetworkMethod
from seewhy.signals.layer import Need
from seewhy.signals.model import ModelSignals
from seewhy.tensors import normalize_minmax, to_float32
from seewhy.tracing.layer_groups import find_blocks

TRANSFORMERS = "transformers whose tokens all attend to each other (ViT, DeiT, DINO, CLIP; not Swin)"


@final
@dataclass(frozen=True)
class AttentionRollout(NetworkMethod):
    """Attention followed through all layers: the product of row-normalized (mean over heads A_l + I).

    Abnar and Zuidema, ACL 2020, equation 1. `heads` joins the heads by "mean", "max" or "min"; `discard` sets that share of
    the lowest entries of each layer to 0 before.
    """

    heads: Literal["mean", "max", "min"] = "mean"
    discard: float = 0.0

    card = MethodCard(
        "Abnar & Zuidema, Attention rollout, ACL 2020", "Πₗ rownorm(mean_h Aₗ + I)",
        "Where information can have come from.",
        cost="1 forward of its own", works_on=TRANSFORMERS,
        source="The authors' code; discard is from vit-explain, whose rows do not sum to 1 again afterwards.",
        pitfalls="Knows no class, and no values: only how much is looked, not what is seen.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.heads in ("mean", "max", "min"), f"heads={self.heads!r}: give 'mean', 'max' or 'min'.")
        self.check(0 <= self.discard < 1, f"discard={self.discard}: give a share from 0 to below 1.")

    def __call__(self, signals: ModelSignals) -> Tensor:
        rolled: Tensor | None = None
        for item in signals.attention_calls:
            layer = self.fused(to_float32(item.call.weights.detach()))
            layer = layer + torch.eye(layer.shape[-1], dtype=layer.dtype, device=layer.device)
            layer = layer / layer.sum(2, keepdim=True)
            rolled = layer if rolled is None else layer @ rolled
        assert rolled is not None
        return signals.map_from_matrices(rolled)

    def fused(self, weights: Tensor) -> Tensor:
        match self.heads:
            case "mean":
                fused = weights.mean(1)
            case "max":
                fused = weights.amax(1)
            case _:
                fused = weights.amin(1)
        count = int(self.discard * fused[0].numel())
        if count:
            flat = fused.flatten(1)
            lowest = flat.topk(count, dim=1, largest=False).indices
            first = flat[:, 0].clone()
            flat = flat.scatter(1, lowest, 0.0)
            flat[:, 0] = first
            fused = flat.reshape(fused.shape)
        return fused


@final
@dataclass(frozen=True)
class AttentionRelevance(NetworkMethod):
    """Attention that the score depends on, followed through all layers: R <- R + mean over heads of relu(dA_l * A_l) R.

    Chefer et al., ICCV 2021 (generic attention explainability), equations 5 and 6.
    """

    card = MethodCard(
        "Chefer et al., Generic attention explainability, ICCV 2021", "Πₗ (I + mean_h relu(dAₗ ⊙ Aₗ))",
        "Rollout that knows the class.",
        cost="1 forward + 1 backward of its own", works_on=TRANSFORMERS,
        source="The authors' notebook for ViT: no normalization, ReLU before the mean.",
    )  # fmt: skip

    def __call__(self, signals: ModelSignals) -> Tensor:
        tokens = signals.attention[0].weights.shape[-1]
        like = signals.attention[0].weights
        # Only one row of the product is wanted: a vector times each layer, from the last on.
        row = torch.zeros(len(like), 1, tokens, dtype=like.dtype, device=like.device)
        if signals.token_grid.prefix:
            row[:, :, 0] = 1
        else:
            row += 1 / tokens
        for item in reversed(signals.attention):
            row = row + row @ (item.gradients * item.weights).clamp(min=0).mean(1)
        return signals.map_from_tokens(row[:, 0])


@final
@dataclass(frozen=True)
class LeGrad(NetworkMethod):
    """How the score of each layer's mean token depends on that layer's attention: sum_l mean relu(ds_l / dA_l).

    Bousselham et al., ICCV 2025 (arXiv 2404.03214). s_l is the score of the network's own head when every token of the last
    block is the mean of block l's tokens; the mean is over heads and queries. `last` blocks are summed (None: all).
    """

    last: int | None = 2

    card = MethodCard(
        "Bousselham et al., LeGrad, ICCV 2025", "Σₗ mean relu(∂sₗ/∂Aₗ)",
        "Sharp, class-specific maps of a transformer.",
        cost="1 forward of its own, and 1 forward + 1 backward of one block for each block", works_on=TRANSFORMERS,
        source="The authors' code for CLIP: mean over all tokens, the last two blocks; the paper speaks of all layers.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.last is None or self.last >= 1, f"last={self.last}: give at least 1, or None for all.")

    def __call__(self, signals: ModelSignals) -> Tensor:
        if self.last is not None and self.last > len(signals.attention_calls):
            raise MethodError(
                "", f"last={self.last}: the network has {len(signals.attention_calls)} layers of attention."
            )
        chosen = signals.attention_calls if self.last is None else signals.attention_calls[-self.last :]
        end = signals.block_of(signals.attention_calls[-1])
        total: Tensor | None = None
        for item in chosen:
            output, weights = signals.block_of(item).output, item.call.weights
            rows = []
            for picture in range(len(signals.inputs)):
                with torch.enable_grad():
                    own = output[picture : picture + 1]
                    mean = own.mean(1, keepdim=True).expand_as(own)
                    score = signals.score_from(end, picture, mean)
                gradient = to_float32(torch.autograd.grad(score.sum(), weights, retain_graph=True)[0][picture])
                rows.append(gradient.clamp(min=0).mean((0, 1)))
            found = torch.stack(rows)
            total = found if total is None else total + found
        assert total is not None
        return signals.map_from_tokens(total)


@final
@dataclass(frozen=True)
class GradECLIP(NetworkMethod):
    """What each place sends to the class token in the last attention: lambda_i * (dy/do . v_i).

    Zhao et al., ICML 2024, equation 8. o is the class token's attention output before the projection, v_i the value of
    place i, lambda_i the cosine of the class token's query with its key, scaled to [0, 1] over the places.
    """

    card = MethodCard(
        "Zhao et al., Grad-ECLIP, ICML 2024", "λᵢ (∂y/∂o · vᵢ)",
        "Made for CLIP; loosens the attention's softmax, which is too sparse.",
        cost="1 forward + 1 backward of its own", works_on=TRANSFORMERS + ", with a class token",
        source="The authors' notebook; they recompute the last block with one head, here the network keeps its own.",
    )  # fmt: skip

    def __call__(self, signals: ModelSignals) -> Tensor:
        if not signals.token_grid.prefix:
            raise MethodError("", "it needs a class token, and this network has none; take legrad.")
        last, prefix = signals.attention[-1], signals.token_grid.prefix
        if last.values is None or last.queries is None or last.keys is None or last.output_gradients is None:
            raise MethodError(
                "",
                "queries and values of attention computed by hand cannot be heard; switch to fused (sdpa) attention.",
            )
        if not last.output_gradients[:, :, 0].any():
            raise MethodError("", "the score does not depend on the class token's attention; take legrad.")
        values, keys, query = joined(last.values), joined(last.keys), joined(last.queries)[:, :1]
        sent = (joined(last.output_gradients)[:, :1] * values).sum(2)
        alike = F.cosine_similarity(query, keys, dim=2)
        loosened = torch.zeros_like(alike)
        loosened[:, prefix:] = normalize_minmax(alike[:, prefix:])
        return signals.map_from_tokens(loosened * sent)


def joined(heads: Tensor) -> Tensor:
    """(B, heads, N, d) as (B, N, heads * d)."""
    return heads.transpose(1, 2).flatten(2)


@final
@dataclass(frozen=True)
class ViTReciproCAM(NetworkMethod):
    """Recipro-CAM on the tokens after the first LayerNorm of a block; class token and skip connection stay as they are.

    Byun and Lee, 2023 (arXiv 2310.02588). `block` counts from the end; the authors refuse the last.
    """

    block: int = -2
    kernel: Literal["point", "gaussian"] = "gaussian"
    score: Literal["probability", "logit"] = "probability"

    card = MethodCard(
        "Byun & Lee, ViT-ReciproCAM, 2023", "y(tokens ⊙ maskᵢⱼ)",
        "What each place would say alone; needs no gradient.",
        cost="n forwards of the last two blocks", works_on=TRANSFORMERS,
        source="The authors' class: norm1 of the second last block, gaussian, skip not masked, probability.",
        pitfalls="The skip carries all places past the mask, so it shows what that block's attention adds.",
    )  # fmt: skip
    needs = Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.block < 0, f"block={self.block}: count from the end: -1 is the last.")
        ReciproCAM(self.kernel, self.score)

    def forwards(self, channels: int, cells: int) -> int:
        return cells

    def __call__(self, signals: ModelSignals) -> Tensor:
        assert signals.attention_calls  # or it says why not
        modules = signals.modules()
        names = [name for name in modules if name in find_blocks({"": signals.evaluator.module, **modules})]
        names = [
            name for name in names if any(f"{item.module}.".startswith(f"{name}.") for item in signals.attention_calls)
        ]
        if len(names) < -self.block:
            raise MethodError("", f"block {self.block}: the network has {len(names)} blocks with attention.")
        inside = names[self.block]
        for name, module in modules.items():
            if name.startswith(f"{inside}.") and isinstance(module, nn.LayerNorm):
                return ReciproCAM(self.kernel, self.score)(signals.layer_signals(name))
        raise MethodError("", f"block '{inside}' has no LayerNorm.")
