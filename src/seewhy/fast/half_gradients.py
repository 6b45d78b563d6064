"""Compute the gradients of convolutions and linear layers in bfloat16, after an exact forward pass.

A forward pass in bfloat16 changes which ReLUs are on, and with them the maps: at early layers of EfficientNet-Lite0 they
correlate with the exact ones by 0.6 to 0.9. Gradients tolerate the rounding (0.9998 and more), because their errors average
out. So answer and activations stay exact, and only the matrix products of the backward pass use bfloat16.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.tracing.layer_groups import is_pointwise
from seewhy.tracing.torch_private import CONVOLUTION, cpu_has_bfloat16, parameter_table

FORWARD = "forward"  # the entry that replaces the forward method of a module
HALF_WEIGHT = "_bfloat16_weight"  # the entry in the `__dict__` of a layer whose gradients are computed in bfloat16
PLAIN_FORWARDS = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward, nn.Linear.forward)
MIN_CHANNELS = 64  # of input and output; with fewer, the conversions take longer than they save


def has_bfloat16(device: torch.device) -> bool:
    """Return True if a device computes in bfloat16 itself, so that it is faster than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_has_bfloat16()


def mark_layers(twin: nn.Module) -> int:
    """Store bfloat16 weights in the layers of a twin for which it pays. Return their number."""
    suitable = [module for module in twin.modules() if is_suitable(module)]
    for module in suitable:
        module.__dict__[HALF_WEIGHT] = parameter_table(module)["weight"].to(torch.bfloat16)
        module.__dict__.setdefault(FORWARD, partial(run_layer, module))
    return len(suitable)


def is_suitable(module: Any) -> bool:
    """Return True for a float32 convolution or linear layer with PyTorch's own forward that is large enough."""
    if type(module).forward not in PLAIN_FORWARDS:
        return False
    weight = parameter_table(module).get("weight")
    if not isinstance(weight, Tensor) or weight.dtype != torch.float32 or min(weight.shape[:2]) < MIN_CHANNELS:
        return False
    if not isinstance(module, CONVOLUTION):
        return True
    is_plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return is_plain and module.groups == 1 and not module.transposed


def run_layer(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a layer computes for `inputs`, with a gradient in bfloat16 if it is marked."""
    if HALF_WEIGHT not in module.__dict__ or not (inputs.requires_grad and torch.is_grad_enabled()):
        return type(module).forward(module, inputs)  # type: ignore[no-any-return]
    return _HalfGradient.apply(inputs, module)  # type: ignore[no-any-return]


class _HalfGradient(torch.autograd.Function):
    """One convolution or linear layer. Only its input has a gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, module: nn.Module) -> Tensor:
        ctx.module, ctx.shape = module, inputs.shape
        return type(module).forward(module, inputs)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        module = ctx.module
        # For second derivatives, the backward pass is recorded: it stays in float32.
        weight = module.weight if torch.is_grad_enabled() else module.__dict__[HALF_WEIGHT]
        rounded = gradient.to(weight.dtype)
        if not isinstance(module, CONVOLUTION):
            return (rounded @ weight).to(gradient.dtype), None
        if is_pointwise(module) and not any(
            module.padding
        ):  # as a convolution it takes 2 to 7 times as long as in float32
            products = rounded.movedim(1, -1) @ weight.flatten(1)
            return products.movedim(-1, 1).to(gradient.dtype), None
        inputs = rounded.new_empty(1).expand(ctx.shape)  # only its shape is read
        result = torch.ops.aten.convolution_backward(
            rounded, inputs, weight, None, module.stride, module.padding, module.dilation, False, [0] * len(module.stride),
            module.groups, [True, False, False],
        )[0]  # fmt: skip
        return result.to(gradient.dtype), None
