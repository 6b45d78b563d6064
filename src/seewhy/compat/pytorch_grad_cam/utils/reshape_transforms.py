"""The reshape transforms of pytorch-grad-cam. seewhy infers the grid of tokens, so a transform is only compared with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def vit_reshape_transform(tensor: Tensor, height: int = 14, width: int = 14) -> Tensor:
    """Return tokens `(B, 1 + height * width, K)` as `(B, K, height, width)`, without the first token."""
    return tensor[:, 1:].reshape(len(tensor), height, width, -1).permute(0, 3, 1, 2)


def swinT_reshape_transform(tensor: Tensor, height: int = 7, width: int = 7) -> Tensor:  # its name there
    """Return tokens `(B, height * width, K)` as `(B, K, height, width)`."""
    return tensor.reshape(len(tensor), height, width, -1).permute(0, 3, 1, 2)


def fasterrcnn_reshape_transform(x: Mapping[str, Tensor]) -> Tensor:
    """Return the absolute values of all levels of a feature pyramid, resized to the size of its "pool"."""
    size = x["pool"].shape[-2:]
    return torch.cat([F.interpolate(level.abs(), size, mode="bilinear") for level in x.values()], 1)
