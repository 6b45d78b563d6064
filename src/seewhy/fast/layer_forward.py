"""What convolutions and linear layers of a prepared twin run: the same values, from weights that are stored in a faster form.

* Weights packed for the processor (`packed_weight`).
* Gradients in bfloat16, after an exact forward pass. A forward pass in bfloat16 changes which ReLUs are on, and with them the
  maps: at early layers of EfficientNet-Lite0 they correlate with the exact ones by 0.6 to 0.9. Gradients tolerate the rounding
  (0.9998 and more), because their errors average out. So only the matrix products of the backward pass use bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.fast.packed_weight import PackedLayer, is_plain_float32, packed_layer, settings_of
from seewhy.tracing.layer_groups import is_pointwise
from seewhy.tracing.torch_private import CONVOLUTION, cpu_has_bfloat16, parameter_table

FORWARD = "forward"  # the entry that replaces the forward method of a module
FAST_WEIGHTS = "_fast_weights"  # the entry in the `__dict__` of a layer whose weights are stored in other forms as well
PLAIN_FORWARDS = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward, nn.Linear.forward)
MIN_CHANNELS = 64  # of input and output; with fewer, the conversions to bfloat16 take longer than they save
MIN_WEIGHTS = 2**13  # with fewer, packing saves less than a custom backward function costs


@dataclass(frozen=True, eq=False)
class FastWeights:
    """Other forms of the weights of a layer, which all twins share.

    Attributes:
        half: In bfloat16, for gradients that packed weights cannot compute; or None.
        packed: In the format of the processor; or None.
        is_large: Whether `packed` saves time if a graph is recorded as well.
    """

    half: Tensor | None = None
    packed: PackedLayer | None = None
    is_large: bool = False


def has_bfloat16(device: torch.device) -> bool:
    """Return True if a device computes in bfloat16 itself, so that it is faster than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_has_bfloat16()


def store_fast_weights(twin: nn.Module, *, is_packed: bool, has_half_gradients: bool) -> None:
    """Store other forms of the weights in the layers of a twin for which it pays."""
    for module in twin.modules():
        if not is_plain(module):
            continue
        weight = parameter_table(module)["weight"]
        is_half = has_half_gradients and pays_in_bfloat16(module, weight)
        packed = packed_layer(module, weight, torch.bfloat16 if is_half else torch.float32) if is_packed else None
        half = weight.to(torch.bfloat16) if is_half and (packed is None or not packed.has_gradient) else None
        if half is not None or packed is not None:
            module.__dict__[FAST_WEIGHTS] = FastWeights(half, packed, is_half or weight.numel() >= MIN_WEIGHTS)
            module.__dict__.setdefault(FORWARD, partial(run_layer, module))


def is_plain(module: Any) -> bool:
    """Return True for a float32 convolution or linear layer with PyTorch's own forward, whose weights are its parameter."""
    weight = parameter_table(module).get("weight") if type(module).forward in PLAIN_FORWARDS else None
    if weight is None or weight.dtype != torch.float32:
        return False
    if not isinstance(module, CONVOLUTION):
        return True
    return module.padding_mode == "zeros" and not isinstance(module.padding, str) and not module.transposed


def pays_in_bfloat16(module: Any, weight: Tensor) -> bool:
    return min(weight.shape[:2]) >= MIN_CHANNELS and getattr(module, "groups", 1) == 1


def run_layer(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a layer computes for `inputs`."""
    fast: FastWeights | None = module.__dict__.get(FAST_WEIGHTS)
    if fast is None:
        return type(module).forward(module, inputs)  # type: ignore[no-any-return]
    if not (inputs.requires_grad and torch.is_grad_enabled()):
        return compute(module, inputs, fast)
    if fast.half is not None or (fast.is_large and fast.packed is not None and fast.packed.fits(module, inputs)):
        return _OwnGradient.apply(inputs, module, fast)  # type: ignore[no-any-return]
    return type(module).forward(module, inputs)  # type: ignore[no-any-return]


def compute(module: nn.Module, inputs: Tensor, fast: FastWeights) -> Tensor:
    """Return what a layer computes, without a graph."""
    if fast.packed is not None and fast.packed.fits(module, inputs):
        return fast.packed.output(module, inputs)
    return type(module).forward(module, inputs)  # type: ignore[no-any-return]


class _OwnGradient(torch.autograd.Function):
    """One convolution or linear layer. Only its input has a gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, module: nn.Module, fast: FastWeights) -> Tensor:
        ctx.module, ctx.fast = module, fast
        # The model can change the settings before its next call.
        ctx.settings = settings_of(module) if isinstance(module, CONVOLUTION) else None
        ctx.shape, ctx.strides = inputs.shape, inputs.stride()
        return compute(module, inputs, fast)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        module, packed, half = ctx.module, ctx.fast.packed, ctx.fast.half
        # For second derivatives, the backward pass is recorded: it uses the weights themselves.
        is_recorded = torch.is_grad_enabled()
        if packed is not None and packed.has_gradient and is_plain_float32(gradient) and not is_recorded:
            return packed.input_gradient(module, gradient), None, None
        weight = module.weight if half is None or is_recorded else half
        rounded = gradient.to(weight.dtype)
        if ctx.settings is None:
            return (rounded @ weight).to(gradient.dtype), None, None
        stride, padding, dilation, groups = ctx.settings
        # As a convolution in bfloat16, it takes 2 to 7 times as long as in float32.
        if weight.dtype == torch.bfloat16 and is_pointwise(module) and not any(padding):
            products = rounded.movedim(1, -1) @ weight.flatten(1)
            return products.movedim(-1, 1).to(gradient.dtype), None, None
        # Only the shape and the memory layout of the inputs are read.
        inputs = torch.empty_strided(ctx.shape, ctx.strides, dtype=rounded.dtype, device=rounded.device)
        result = torch.ops.aten.convolution_backward(
            rounded, inputs, weight, None, stride, padding, dilation, False, [0] * len(stride), groups, [True, False, False],
        )[0]  # fmt: skip
        return result.to(gradient.dtype), None, None
