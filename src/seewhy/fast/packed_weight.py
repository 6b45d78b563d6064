"""Weights of a convolution in the blocked format that oneDNN, PyTorch's library for CPUs, computes with.

From other formats, oneDNN converts the weights in every call. For one image, that is a quarter of the forward pass of
ResNet-18, and a third of that of ResNet-50.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seewhy.tracing.torch_private import can_pack_weights, pack_weight, run_packed

MAX_KEPT = 2  # shapes: those of the batches, and of the last one, which is smaller


def can_be_packed(module: nn.Module, weight: Tensor) -> bool:
    """Return True for a 2-D convolution on a CPU, if this PyTorch can pack weights. `weight` is that of the module."""
    return isinstance(module, nn.Conv2d) and weight.device.type == "cpu" and can_pack_weights()


class PackedWeight:
    """The packed weights of a convolution.

    The best format depends on the shape of the input. The weights are packed for each shape, and kept for the last ones: if the
    format depended on which shape came first, a bulk job that resumes would write other last digits. Packing takes about as
    long as the conversion that it replaces. Several threads may use one object: at worst, two of them pack the same weights.
    """

    def __init__(self) -> None:
        self.kept: tuple[tuple[torch.Size, Tensor], ...] = ()  # replaced, never changed, because threads read it

    def fits(self, inputs: Tensor) -> bool:
        """Return True if a convolution with packed weights can run on inputs."""
        return inputs.dtype == torch.float32 and inputs.dim() == 4 and not torch.is_autocast_enabled("cpu")

    def run(self, convolution: Any, inputs: Tensor) -> Tensor:
        """Return what `convolution` computes for `inputs`, without a graph."""
        kept = self.kept
        packed = next((weight for shape, weight in kept if shape == inputs.shape), None)
        if packed is None:
            packed = pack_weight(convolution, inputs.shape)
            self.kept = ((inputs.shape, packed), *kept[: MAX_KEPT - 1])
        return run_packed(convolution, packed, inputs)
