"""Weights of a convolution in the blocked format that oneDNN, PyTorch's library for CPUs, computes with.

From other formats, oneDNN converts the weights in every call. For one image, that is a quarter of the forward pass of
ResNet-18, and a third of that of ResNet-50.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seewhy.tracing.torch_private import can_pack_weights, pack_weight, run_packed


def can_be_packed(module: nn.Module, weight: Tensor) -> bool:
    """Return True for a 2-D convolution on a CPU, if PyTorch has what is needed. `weight` is its own."""
    return isinstance(module, nn.Conv2d) and weight.device.type == "cpu" and can_pack_weights()


class PackedWeight:
    """The packed weights of a convolution. The best format depends on the shape of the input: here, of the first one.

    Several threads may use it: at worst, two of them pack the same weights.
    """

    def __init__(self) -> None:
        self.shape: torch.Size | None = None
        self._weight: Tensor | None = None

    def fits(self, inputs: Tensor) -> bool:
        """Return True if the weights are packed for inputs of this shape, or not packed yet."""
        is_plain = inputs.dtype == torch.float32 and inputs.dim() == 4 and not torch.is_autocast_enabled("cpu")
        return is_plain and (self.shape is None or self.shape == inputs.shape)

    def run(self, convolution: Any, inputs: Tensor) -> Tensor:
        """Return what `convolution` computes for `inputs`, without a graph."""
        packed = self._weight
        if packed is None:
            packed = self._weight = pack_weight(convolution, inputs.shape)
            self.shape = inputs.shape
        return run_packed(convolution, packed, inputs)
