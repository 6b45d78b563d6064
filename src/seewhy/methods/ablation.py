"""Methods that change a layer's activations and ask the rest of the network again; nothing before the layer is repeated.

Where only mean pooling and a linear layer follow, the answer is known in closed form, and nothing is run at all.
Notation: A (B, K, *grid), n cells, W and b of the linear layer, c the class, y the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.methods.base import Method, MethodCard, Weighted
from seewhy.signals.layer import Need, Signals
from seewhy.signals.scoring import Probability, TargetScore
from seewhy.targets.class_scores import probabilities
from seewhy.tensors import weighted_sum


@final
@dataclass(frozen=True)
class AblationCAM(Weighted):
    """Channels weighted by the share of the score that is lost without them: w_k = (y - y_k) / y, y_k with A_k = 0.

    Desai and Ramaswamy, WACV 2020. In closed form w_k = W_ck mean(A_k) / y. A channel that is 0 everywhere loses nothing
    and is not asked. `batch_size` limits the rows of one forward (default: what fits the memory budget).
    """

    batch_size: int | None = None

    card = MethodCard(
        "Desai & Ramaswamy, Ablation-CAM, WACV 2020", "Σₖ ((y − y₍A_k=0₎)/y) Aₖ",
        "What the network would miss; needs no gradient.",
        cost="K forwards of what comes after the layer; none before mean pooling and a linear head",
        source="The paper's formula as cited by XGrad-CAM and package grad-cam; the replacement value is 0.",
        pitfalls="Divides by the score: where that is negative, the map turns its sign.",
    )  # fmt: skip
    needs = Need.HEAD | Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check_batch(self.batch_size)

    def forwards(self, channels: int, cells: int) -> int:
        return channels

    def weights(self, signals: Signals) -> Tensor:
        scores = signals.scores.to(signals.activations.dtype)
        lost = self.known(signals)
        if lost is None:
            lost = torch.stack([self.lost(signals, picture) for picture in range(len(scores))])
        return lost / scores[:, None]

    def known(self, signals: Signals) -> Tensor | None:
        try:
            return signals.head_weights * signals.activations.flatten(2).mean(2)
        except MethodError:
            return None

    def lost(self, signals: Signals, picture: int) -> Tensor:
        """y - y_k for each channel (K,) of one picture."""
        own = signals.activations[picture]
        alive = own.flatten(1).any(1).nonzero()[:, 0]

        def without(rows: slice) -> Tensor:
            changed = own.expand(len(alive[rows]), *own.shape).clone()
            changed[torch.arange(len(changed)), alive[rows]] = 0
            return changed

        scores = signals.score_activations(picture, len(alive), without, batch_size=self.batch_size, shared=self)
        lost = own.new_zeros(len(own))
        lost[alive] = signals.scores[picture].to(own.dtype) - scores.to(own.dtype)
        return lost


@final
@dataclass(frozen=True)
class ReciproCAM(Method):
    """The score when only one cell of the layer is left, for each cell: y(A * mask_ij).

    Byun and Lee, CVPRW 2024 (arXiv 2209.14074). `kernel` "point" keeps one cell, "gaussian" its neighbours too, weighted
    by (1 2 1)/4 along each axis; tokens that stand for no place are kept. `score` is the class's "probability", as in the
    authors' code, or its "logit". In closed form the logit is b_c + sum_k W_ck (mask * A)_k / n.
    """

    kernel: Literal["point", "gaussian"] = "point"
    score: Literal["probability", "logit"] = "probability"
    batch_size: int | None = None

    card = MethodCard(
        "Byun & Lee, Recipro-CAM, CVPRW 2024", "y(A ⊙ maskᵢⱼ)",
        "What each place would say alone; needs no gradient.",
        cost="n forwards of what comes after the layer; none before mean pooling and a linear head",
        source="The authors' code; their 3x3 variant repeats the centre's values, here each neighbour keeps its own.",
        pitfalls="Never negative for probabilities: places that speak against the class look like empty ones.",
    )  # fmt: skip
    needs = Need.HEAD | Need.EVALUATOR

    def __post_init__(self) -> None:
        self.check(self.kernel in ("point", "gaussian"), f"kernel={self.kernel!r}: give 'point' or 'gaussian'.")
        self.check(self.score in ("probability", "logit"), f"score={self.score!r}: give 'probability' or 'logit'.")
        self.check_batch(self.batch_size)

    def forwards(self, channels: int, cells: int) -> int:
        return cells

    def __call__(self, signals: Signals) -> Tensor:
        try:
            weight, bias = signals.head_table
        except MethodError:
            return torch.stack([self.asked(signals, picture) for picture in range(len(signals.activations))])
        return self.known(signals, weight, bias)

    def known(self, signals: Signals, weight: Tensor, bias: Tensor) -> Tensor:
        kept = self.blurred(signals.activations)
        batch, grid = len(kept), kept.shape[2:]
        if self.score == "logit":
            maps = weighted_sum(weight[signals.classes], kept) / grid.numel()
            return maps + bias[signals.classes].reshape(-1, *[1] * len(grid))
        logits = torch.einsum("ck,bkn->bnc", weight, kept.flatten(2)) / grid.numel() + bias
        chances = probabilities(logits.flatten(0, 1), signals.target.multilabel).view_as(logits)
        own = chances.gather(2, signals.classes[:, None, None].expand(batch, logits.shape[1], 1))
        return own.reshape(batch, *grid)

    def blurred(self, activations: Tensor) -> Tensor:
        """The sum of what the mask of each cell leaves: the activations, or their local weighted mean (zeros outside)."""
        if self.kernel == "point":
            return activations
        for axis in range(2, activations.dim()):
            lines = activations.movedim(axis, -1)
            padded = torch.nn.functional.pad(lines, (1, 1))
            lines = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
            activations = lines.movedim(-1, axis)
        return activations

    def asked(self, signals: Signals, picture: int) -> Tensor:
        own = signals.activations[picture]
        grid = own.shape[1:]
        masks = torch.eye(grid.numel(), dtype=own.dtype, device=own.device).reshape(-1, 1, *grid)
        masks = self.blurred(masks)
        scoring = TargetScore() if self.score == "logit" else Probability()
        scores = signals.score_activations(
            picture,
            len(masks),
            lambda rows: own * masks[rows],
            scoring=scoring,
            batch_size=self.batch_size,
            shared=self,
        )
        return scores.to(own.dtype).reshape(grid)
