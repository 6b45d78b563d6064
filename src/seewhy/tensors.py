"""Arithmetic on maps: pure functions of tensors that know no model and no method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


def weighted_sum(weights: Tensor, activations: Tensor) -> Tensor:
    """Sum over channels of `weights` (B, K) times `activations` (B, K, *grid), as a map (B, *grid).

    >>> weighted_sum(torch.tensor([[1.0, -1.0]]), torch.ones(1, 2, 3, 3)).shape
    torch.Size([1, 3, 3])
    """
    grid = activations.shape[2:]
    return torch.bmm(weights[:, None], activations.flatten(2)).reshape(-1, *grid)


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """`values` (B, K) with one axis of length 1 for each grid axis of `like` (B, K, *grid), to broadcast over the grid."""
    return values.reshape(*values.shape, *[1] * (like.dim() - 2))


def rectify(maps: Tensor) -> Tensor:
    """Negatives become zero: only evidence *for* the target is left."""
    return maps.clamp(min=0)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, *grid) on another grid (B, *size): linear in each axis, align_corners=False.

    >>> resize(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), (4, 4))[0, 0]
    tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """
    mode = INTERPOLATION[maps.dim() - 1]
    return F.interpolate(maps[:, None], size=tuple(size), mode=mode, align_corners=False)[:, 0]


def rescale(maps: Tensor) -> Tensor:
    """Each map (B, *grid) divided by its own maximum: at most 1, and uniform evidence stays visible.

    A map without a positive value comes back as zeros.
    """
    top = maps.flatten(1).amax(1)
    scale = torch.where(top > 0, 1 / top, torch.zeros_like(top))
    return maps * scale.reshape(-1, *[1] * (maps.dim() - 1))


def positive_share(maps: Tensor) -> Tensor:
    """Share of positive evidence (B,), in [0, 1]: sum of positives / sum of absolutes; NaN for a map of zeros."""
    flat = maps.flatten(1)
    return flat.clamp(min=0).sum(1) / flat.abs().sum(1)
