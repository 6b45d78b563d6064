"""Methods for transformers: what the class token, or all tokens, attend to.

Notation: A_l (heads, N, N) the attention of layer l, rows are queries and sum to 1; dA_l the gradient of the score. The first
`prefix` tokens have no place in the image (class token, registers). The product of all layers starts at the tokens that the
score reads after the last attention: the class token, or the mean of the patches.
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
from seewhy.tensors.map_functions import normalize_minmax
from seewhy.tracing.layer_groups import find_blocks

TRANSFORMERS = "transformers whose tokens all attend to each other (ViT, DeiT, DINO, CLIP; not Swin)"


@final
@dataclass(frozen=True)
class AttentionRollout(NetworkMethod):
    """Multiply attention through all layers: the product of row-normalized (mean over heads A_l + I).

    Args:
        heads: How to combine the heads: "mean", "max" or "min".
        discard: Fraction of the lowest entries of each layer to set to 0 before, from 0 to below 1.

    References:
        Abnar and Zuidema, "Quantifying Attention Flow", ACL 2020, equation 1, https://arxiv.org/abs/2005.00928
    """

    heads: Literal["mean", "max", "min"] = "mean"
    discard: float = 0.0

    card = MethodCard(
        "Abnar & Zuidema, Attention rollout, ACL 2020", "Πₗ rownorm(mean_h Aₗ + I)",
        "Which tokens the information can come from.",
        cost="1 extra forward", works_on=TRANSFORMERS,
        source="The authors' code; discard is from vit-explain, whose rows do not sum to 1 again afterwards.",
        pitfalls="Depends on neither class nor values: it shows how much is attended to, not what it contributes.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.heads in ("mean", "max", "min"), f"heads={self.heads!r}: must be 'mean', 'max' or 'min'.")
        self.check(0 <= self.discard < 1, f"discard={self.discard}: must be a fraction from 0 to below 1.")

    def __call__(self, signals: ModelSignals) -> Tensor:
        rolled: Tensor | None = None
        for item in signals.attention_calls:
            layer = self.combine_heads(item.weights)
            layer = layer + torch.eye(layer.shape[-1], dtype=layer.dtype, device=layer.device)
            layer = layer / layer.sum(2, keepdim=True)
            rolled = layer if rolled is None else layer @ rolled
        assert rolled is not None
        return signals.map_from_matrices(rolled)

    def combine_heads(self, weights: Tensor) -> Tensor:
        match self.heads:
            case "mean":
                combined = weights.mean(1)
            case "max":
                combined = weights.amax(1)
            case _:
                combined = weights.amin(1)
        count = int(self.discard * combined[0].numel())
        if count:
            flat = combined.flatten(1)
            lowest = flat.topk(count, dim=1, largest=False).indices
            first = flat[:, 0].clone()
            flat = flat.scatter(1, lowest, 0.0)
            flat[:, 0] = first
            combined = flat.reshape(combined.shape)
        return combined


@final
@dataclass(frozen=True)
class AttentionRelevance(NetworkMethod):
    """Propagate attention that the score depends on through all layers: R <- R + mean over heads of relu(dA_l * A_l) R.

    References:
        Chefer et al., "Generic Attention-model Explainability", ICCV 2021, equations 5 and 6, https://arxiv.org/abs/2103.15679
    """

    card = MethodCard(
        "Chefer et al., Generic attention explainability, ICCV 2021", "Πₗ (I + mean_h relu(dAₗ ⊙ Aₗ))",
        "A class-specific rollout.",
        cost="1 extra forward + backward", works_on=TRANSFORMERS,
        source="The authors' notebook for ViT: no normalization, ReLU before the mean.",
    )  # fmt: skip

    def __call__(self, signals: ModelSignals) -> Tensor:
        # Only one row of the product is needed: multiply a vector by each layer, from the last on.
        read = signals.read_tokens.to(signals.attention[0].weights.dtype)[:, None]
        row = read / read.sum(2, keepdim=True)
        for item in reversed(signals.attention):
            row = row + row @ (item.gradients * item.weights).clamp(min=0).mean(1)
        return signals.map_from_tokens(row[:, 0])


@final
@dataclass(frozen=True)
class LeGrad(NetworkMethod):
    """Sum the positive gradients of each layer's score with respect to its attention: sum_l mean relu(ds_l / dA_l).

    s_l is the score of the model's head when every token of the last block is the mean of block l's tokens; the mean is over
    heads and queries.

    Args:
        last: Number of last blocks to sum, at least 1. None: all.

    References:
        Bousselham et al., "LeGrad", ICCV 2025, https://arxiv.org/abs/2404.03214
    """

    last: int | None = 2

    card = MethodCard(
        "Bousselham et al., LeGrad, ICCV 2025", "Σₗ mean relu(∂sₗ/∂Aₗ)",
        "Sharp, class-specific maps of a transformer.",
        cost="1 extra forward, and 1 forward + 1 backward of one block for each block", works_on=TRANSFORMERS,
        source="The default is the authors' code for CLIP, not the paper: mean over all tokens, the last two blocks. The paper "
        "sums all layers (last=None).",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.last is None or self.last >= 1, f"last={self.last}: must be at least 1, or None for all.")

    def __call__(self, signals: ModelSignals) -> Tensor:
        if self.last is not None and self.last > len(signals.attention_calls):
            raise MethodError("", f"last={self.last}: the model has {len(signals.attention_calls)} attention layers.")
        chosen = signals.attention_calls if self.last is None else signals.attention_calls[-self.last :]
        end = signals.block_of(signals.attention_calls[-1])
        total: Tensor | None = None
        for item in chosen:
            output = signals.block_of(item).output
            rows = []
            for index in range(len(signals.inputs)):
                with torch.enable_grad():
                    own = output[index : index + 1]
                    mean = own.mean(1, keepdim=True).expand_as(own)
                    score = signals.score_from(end, index, mean)
                gradient = item.gradient(score.sum())
                if gradient is None:
                    raise MethodError(
                        "", "the score of a block's tokens does not depend on its attention. Use gradcam."
                    )
                rows.append(gradient[index].clamp(min=0).mean((0, 1)))
            layer_map = torch.stack(rows)
            total = layer_map if total is None else total + layer_map
        assert total is not None
        return signals.map_from_tokens(total)


@final
@dataclass(frozen=True)
class GradECLIP(NetworkMethod):
    """Compute what each place sends to the class token in the last attention: lambda_i * (dy/do . v_i).

    o is the class token's attention output before the projection, v_i the value of place i, and lambda_i the cosine of the
    class token's query with the key of i, scaled to [0, 1] over the places.

    References:
        Zhao et al., "Grad-ECLIP", ICML 2024, equation 8.
    """

    card = MethodCard(
        "Zhao et al., Grad-ECLIP, ICML 2024", "λᵢ (∂y/∂o · vᵢ)",
        "Made for CLIP; replaces the attention's softmax, which is too sparse.",
        cost="1 extra forward + backward", works_on=TRANSFORMERS + ", with a class token",
        source="The authors' notebook; it recomputes the last block with one head, here the model keeps its heads.",
    )  # fmt: skip

    def __call__(self, signals: ModelSignals) -> Tensor:
        if not signals.token_grid.prefix:
            raise MethodError("", "it needs a class token, and this model has none. Use legrad.")
        last, prefix = signals.attention[-1], signals.token_grid.prefix
        if last.values is None or last.queries is None or last.keys is None or last.output_gradients is None:
            raise MethodError(
                "",
                "the model computes attention by hand, so its queries and values cannot be recorded. Switch to fused (sdpa) "
                "attention, or use legrad.",
            )
        read = signals.read_tokens.any(0)
        if read[prefix:].any() or read.sum() > 1:
            raise MethodError("", "the score does not read a single class token after the last attention. Use legrad.")
        token = slice(int(read.nonzero()), int(read.nonzero()) + 1)
        values, keys, query = join_heads(last.values), join_heads(last.keys), join_heads(last.queries)[:, token]
        sent = (join_heads(last.output_gradients)[:, token] * values).sum(2)
        similarity = F.cosine_similarity(query, keys, dim=2)
        scaled_similarity = torch.zeros_like(similarity)
        scaled_similarity[:, prefix:] = normalize_minmax(similarity[:, prefix:])
        return signals.map_from_tokens(scaled_similarity * sent)


def join_heads(heads: Tensor) -> Tensor:
    """Reshape `(B, heads, N, d)` to `(B, N, heads * d)`."""
    return heads.transpose(1, 2).flatten(2)


@final
@dataclass(frozen=True)
class ViTReciproCAM(NetworkMethod):
    """Apply Recipro-CAM to the tokens after the first LayerNorm of a block; class token and skip connection are not masked.

    Args:
        block: The block, counted from the end: -1 is the last. The authors' code does not allow the last.
        kernel: "point" keeps one token; "gaussian" its neighbors too, weighted by (1 2 1)/4 along each axis.
        score: "probability" of the class, or its "logit".

    References:
        Byun and Lee, "ViT-ReciproCAM", 2023, https://arxiv.org/abs/2310.02588
    """

    block: int = -2
    kernel: Literal["point", "gaussian"] = "gaussian"
    score: Literal["probability", "logit"] = "probability"

    card = MethodCard(
        "Byun & Lee, ViT-ReciproCAM, 2023", "y(tokens ⊙ maskᵢⱼ)",
        "The score that each place gives alone; needs no gradient.",
        cost="n forwards of the last two blocks", works_on=TRANSFORMERS,
        source="The authors' class: norm1 of the second last block, gaussian, skip not masked, probability.",
        pitfalls="The skip connection bypasses the mask, so the map shows what the block's attention adds.",
    )  # fmt: skip
    needs = Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.block < 0, f"block={self.block}: must be negative: -1 is the last block.")
        ReciproCAM(self.kernel, self.score)

    def forwards(self, channels: int, cells: int) -> int:
        return cells

    def __call__(self, signals: ModelSignals) -> Tensor:
        assert signals.attention_calls  # raises MethodError for other models
        modules = signals.modules()
        names = [name for name in modules if name in find_blocks({"": signals.evaluator.module, **modules})]
        names = [
            name
            for name in names
            if any(name in record.running for item in signals.attention_calls for record in item.records)
        ]
        if len(names) < -self.block:
            raise MethodError("", f"block {self.block}: the model has {len(names)} blocks with attention.")
        block_name = names[self.block]
        for name, module in modules.items():
            if name.startswith(f"{block_name}.") and isinstance(module, nn.LayerNorm):
                return ReciproCAM(self.kernel, self.score)(signals.layer_signals(name))
        raise MethodError("", f"block '{block_name}' has no LayerNorm.")
