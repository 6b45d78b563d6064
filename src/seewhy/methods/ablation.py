"""Methods that change a layer's activations and run the rest of the model again. Nothing before the layer is repeated.

Where only mean pooling and a linear layer follow, the result has a closed form and no forward pass runs.
Notation: A (B, K, *grid), n cells, W and b of the linear layer, c the class, y the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.methods.base import Method, MethodCard, Weighted
from seewhy.methods.setting_checks import check_batch
from seewhy.signals.layer import Need, Signals
from seewhy.signals.scoring import Probability, TargetScore
from seewhy.targets.class_scores import probabilities
from seewhy.tensors.map_functions import weighted_sum


@final
@dataclass(frozen=True)
class AblationCAM(Weighted):
    """Weight each channel by the fraction of the score lost without it: w_k = (y - y_k) / y, with y_k the score for A_k = 0.

    Before mean pooling and a linear head w_k = W_ck mean(A_k) / y, and no forward pass runs. A channel that is 0 everywhere
    loses nothing and is skipped.

    Args:
        batch_size: Rows per forward pass, at least 1. None: as many as fit in the memory budget.

    References:
        Desai and Ramaswamy, "Ablation-CAM", WACV 2020, https://doi.org/10.1109/WACV45572.2020.9093360
    """

    batch_size: int | None = None

    card = MethodCard(
        "Desai & Ramaswamy, Ablation-CAM, WACV 2020", "Σₖ ((y − y₍A_k=0₎)/y) Aₖ",
        "Measures what the model loses without each channel; needs no gradient.",
        cost="K forwards of what follows the layer; none before mean pooling and a linear head",
        source="The paper's formula as cited by XGrad-CAM and package grad-cam; the replacement value is 0.",
        pitfalls="Divides by the score: if that is negative, the map changes its sign.",
    )  # fmt: skip
    needs = Need.HEAD | Need.EVALUATOR

    def __post_init__(self) -> None:
        check_batch(self, self.batch_size)

    def forwards(self, channels: int, cells: int) -> int:
        return channels

    def weights(self, signals: Signals) -> Tensor:
        scores = signals.scores.to(signals.activations.dtype)
        losses = self.closed_form(signals)
        if losses is None:
            losses = torch.stack([self.score_losses(signals, index) for index in range(len(scores))])
        return losses / scores[:, None]

    def closed_form(self, signals: Signals) -> Tensor | None:
        """Return W_ck mean(A_k) `(B, K)`, or None without mean pooling and a linear head."""
        try:
            return signals.head_weights * signals.activations.flatten(2).mean(2)
        except MethodError:
            return None

    def score_losses(self, signals: Signals, index: int) -> Tensor:
        """Return y - y_k for each channel `(K,)` of one image."""
        own = signals.activations[index]
        alive = own.flatten(1).any(1).nonzero()[:, 0]

        def without(rows: slice) -> Tensor:
            changed = own.expand(len(alive[rows]), *own.shape).clone()
            changed[torch.arange(len(changed)), alive[rows]] = 0
            return changed

        scores = signals.score_activations(index, len(alive), without, batch_size=self.batch_size, shared=self)
        losses = own.new_zeros(len(own))
        losses[alive] = signals.scores[index].to(own.dtype) - scores.to(own.dtype)
        return losses


@final
@dataclass(frozen=True)
class ReciproCAM(Method):
    """Compute the score when only one cell of the layer is kept, for each cell: y(A * mask_ij).

    Before mean pooling and a linear head the logit is b_c + sum_k W_ck (mask * A)_k / n, and no forward pass runs. Prefix
    tokens (class token, registers) are kept.

    Args:
        kernel: "point" keeps one cell; "gaussian" its neighbors too, weighted by (1 2 1)/4 along each axis.
        score: "probability" of the class, as in the authors' code, or its "logit".
        batch_size: Rows per forward pass, at least 1. None: as many as fit in the memory budget.

    References:
        Byun and Lee, "Recipro-CAM", CVPRW 2024, https://arxiv.org/abs/2209.14074
    """

    kernel: Literal["point", "gaussian"] = "point"
    score: Literal["probability", "logit"] = "probability"
    batch_size: int | None = None

    card = MethodCard(
        "Byun & Lee, Recipro-CAM, CVPRW 2024", "y(A ⊙ maskᵢⱼ)",
        "The score that each place gives alone; needs no gradient.",
        cost="n forwards of what follows the layer; none before mean pooling and a linear head",
        source="The authors' code; their 3x3 variant repeats the center's values, here each neighbor keeps its own.",
        pitfalls="Never negative for probabilities: evidence against the class looks like an empty place.",
    )  # fmt: skip
    needs = Need.HEAD | Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.kernel in ("point", "gaussian"), f"kernel={self.kernel!r}: must be 'point' or 'gaussian'.")
        self.check(self.score in ("probability", "logit"), f"score={self.score!r}: must be 'probability' or 'logit'.")
        check_batch(self, self.batch_size)

    def forwards(self, channels: int, cells: int) -> int:
        return cells

    def __call__(self, signals: Signals) -> Tensor:
        try:
            weight, bias = signals.head_table
        except MethodError:
            return torch.stack([self.evaluate(signals, index) for index in range(len(signals.activations))])
        return self.closed_form(signals, weight, bias)

    def closed_form(self, signals: Signals, weight: Tensor, bias: Tensor) -> Tensor:
        kept = self.apply_kernel(signals.activations)
        batch, grid = len(kept), kept.shape[2:]
        if self.score == "logit":
            maps = weighted_sum(weight[signals.classes], kept) / grid.numel()
            return maps + bias[signals.classes].reshape(-1, *[1] * len(grid))
        logits = torch.einsum("ck,bkn->bnc", weight, kept.flatten(2)) / grid.numel() + bias
        class_probabilities = probabilities(
            logits.flatten(0, 1), signals.target.multilabel, normalized=signals.target.normalized
        ).view_as(logits)
        own = class_probabilities.gather(2, signals.classes[:, None, None].expand(batch, logits.shape[1], 1))
        return own.reshape(batch, *grid)

    def apply_kernel(self, activations: Tensor) -> Tensor:
        """Return the sum over each cell's mask: the activations, or their local weighted mean (zeros outside)."""
        if self.kernel == "point":
            return activations
        for axis in range(2, activations.dim()):
            lines = activations.movedim(axis, -1)
            padded = torch.nn.functional.pad(lines, (1, 1))
            lines = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
            activations = lines.movedim(-1, axis)
        return activations

    def evaluate(self, signals: Signals, index: int) -> Tensor:
        """Run the model once per cell of one image."""
        own = signals.activations[index]
        grid = own.shape[1:]
        masks = torch.eye(grid.numel(), dtype=own.dtype, device=own.device).reshape(-1, 1, *grid)
        masks = self.apply_kernel(masks)
        scoring = TargetScore() if self.score == "logit" else Probability()
        scores = signals.score_activations(
            index,
            len(masks),
            lambda rows: own * masks[rows],
            scoring=scoring,
            batch_size=self.batch_size,
            shared=self,
        )
        return scores.to(own.dtype).reshape(grid)
