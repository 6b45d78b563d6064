"""Methods that need only a layer's activations A and gradients G: all of them, at every layer, share one backward pass.

Notation: A, G (B, K, *grid); S_k the sum of A over the grid of channel k; n the number of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from seewhy.methods.base import Method
from seewhy.signals import Signals
from seewhy.tensors import per_channel, weighted_sum


@final
@dataclass(frozen=True)
class GradCAM(Method):
    """Channels weighted by their mean gradient: sum_k mean(G_k) A_k.

    Selvaraju et al., ICCV 2017, equations 1 and 2 (without the ReLU, which comes later).
    """

    def __call__(self, at: Signals) -> Tensor:
        return weighted_sum(at.gradients.flatten(2).mean(2), at.activations)


@final
@dataclass(frozen=True)
class HiResCAM(Method):
    """Every cell weighted by its own gradient: sum_k G_k * A_k.

    Draelos and Carin, 2020, equation 3. Faithful by proof where one linear layer follows.
    """

    def __call__(self, at: Signals) -> Tensor:
        return at.contributions.sum(1)


@final
@dataclass(frozen=True)
class LayerCAM(Method):
    """Every cell weighted by its own gradient where that is positive: sum_k relu(G_k) * A_k.

    Jiang et al., IEEE TIP 2021, equations 5 and 6.
    """

    def __call__(self, at: Signals) -> Tensor:
        return (at.positive_gradients * at.activations).sum(1)


@final
@dataclass(frozen=True)
class GradCAMPlusPlus(Method):
    """Channels weighted by their positive gradients, each scaled by 1 / (2 + g S_k).

    Chattopadhay et al., WACV 2018, equations 10 and 19, where alpha = g^2 / (2 g^2 + S_k g^3); that is 1 / (2 + g S_k)
    wherever g is not 0, and needs no epsilon. Only positive gradients count, so the others need no alpha.
    """

    def __call__(self, at: Signals) -> Tensor:
        positive = at.positive_gradients
        scale = positive * per_channel(at.activation_sums, positive)
        weights = (positive / scale.add_(2)).flatten(2).sum(2)
        return weighted_sum(weights, at.activations)


@final
@dataclass(frozen=True)
class XGradCAM(Method):
    """Channels weighted by their share of the score for each unit of activation: sum_k (sum(G_k * A_k) / S_k) A_k.

    Fu et al., BMVC 2020, equation 8. A channel whose activations sum to exactly 0 has no such weight and is left out.
    """

    def __call__(self, at: Signals) -> Tensor:
        sums = at.activation_sums
        weights = at.contributions.flatten(2).sum(2) / sums
        return weighted_sum(torch.where(sums == 0, 0.0, weights), at.activations)


@final
@dataclass(frozen=True)
class GradCAMElementwise(Method):
    """The positive contributions of every cell: sum_k relu(G_k * A_k).

    Known from the package grad-cam; equal to LayerCAM wherever A >= 0.
    """

    def __call__(self, at: Signals) -> Tensor:
        return at.contributions.clamp(min=0).sum(1)
