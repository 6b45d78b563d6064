"""Intercept torch functions that no module represents: fused attention, biases, functional ReLU.

Hooks see modules only. A `TorchFunctionMode` intercepts every call of a torch function in its own thread while its
`with` block is active, so nothing is replaced in any library and nothing needs to be restored. `CaptureAttention`
reports attention weights, `CaptureBias` the biases of convolutions and BatchNorm, `GuidedReLU` changes the gradient of ReLU,
and `KeepGradients` ignores `torch.no_grad`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from seewhy.tracing.torch_private import attention_forward_with, disables_gradients

MIN_TOKENS = 4  # a smaller softmax is not taken for attention
SOFTMAX_FUNCTIONS = (F.softmax, torch.softmax, torch.special.softmax, Tensor.softmax)
CONVOLUTION_FUNCTIONS = (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
RELU_FUNCTIONS = (
    *(F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    *(F.relu6, F.hardtanh, F.hardtanh_),
)
SMOOTH_ACTIVATIONS = (F.gelu, F.silu, F.elu, F.leaky_relu, F.hardswish, F.mish, F.selu)


@dataclass(eq=False)
class AttentionCall:
    """One call of attention.

    `weights` (B, heads, N, M) are the output of softmax, with their graph. `queries` and `output` (B, heads, N, d) and
    `keys` and `values` (B, heads, M, d) are None if only the softmax was seen. The order of heads and images is that of the
    model, which may also join both in one axis.
    """

    weights: Tensor
    queries: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None
    output: Tensor | None = None


class CaptureAttention(TorchFunctionMode):
    """Report every self-attention to `on_attention`. Fused attention, which has no weights, is computed step by step."""

    def __init__(self, on_attention: Callable[[AttentionCall], None]) -> None:
        super().__init__()
        self.on_attention = on_attention
        self.cross_attention_ranks: set[int] = set()  # of attention whose queries are not the same tokens as its keys
        self.has_keys_first = False  # a softmax over the second last axis of square matrices

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self.attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            if kwargs.get("need_weights", True):
                # With weights, PyTorch takes another code path. Take the usual one, and add the weights to its result.
                kwargs["need_weights"] = False
                return self.forward_with_weights(*args, **kwargs)
            return self.forward(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in SOFTMAX_FUNCTIONS:
            axis = args[1] if len(args) > 1 else kwargs.get("dim")
            if axis in (-1, result.dim() - 1):
                self.report(AttentionCall(result))
            elif axis in (-2, result.dim() - 2):
                self.has_keys_first |= is_self_attention(result)
        return result

    def report(self, call: AttentionCall) -> None:
        rank = call.weights.dim()
        if is_self_attention(call.weights):
            self.on_attention(call)
        elif rank in (3, 4) and call.weights.shape[-2] != call.weights.shape[-1] >= MIN_TOKENS:
            self.cross_attention_ranks.add(rank)

    def forward_with_weights(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Run `F.multi_head_attention_forward` and return its output and its weights, averaged over heads by default."""
        collected: list[Tensor] = []
        output, _ = self.forward(*args, weights=collected, **kwargs)
        weights = collected[0]
        return output, weights.mean(1) if kwargs.get("average_attn_weights", True) else weights

    def forward(self, *args: Any, weights: list[Tensor] | None = None, **kwargs: Any) -> Any:
        """Run `F.multi_head_attention_forward` with `attend` in place of the fused attention, which appends to `weights`."""

        def attend(*attention_args: Any, **attention_kwargs: Any) -> Tensor:
            return self.attend(*attention_args, collected=weights, **attention_kwargs)

        return attention_forward_with(attend)(*args, **kwargs)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        *,
        collected: list[Tensor] | None = None,
    ) -> Tensor:
        """Compute softmax(q k' scale + mask) v, the definition of `F.scaled_dot_product_attention`."""
        if enable_gqa:
            key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
        logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            logits = logits + attn_mask
        weights = logits.softmax(-1)
        output = weights @ value
        if collected is not None:
            collected.append(weights)
        self.report(AttentionCall(weights, query, key, value, output))
        return output


def is_self_attention(weights: Tensor) -> bool:
    """Return True if the output of a softmax is (B, heads, N, N) or (B * heads, N, N): every token attends to every token."""
    return weights.dim() in (3, 4) and weights.shape[-2] == weights.shape[-1] >= MIN_TOKENS


class CaptureBias(TorchFunctionMode):
    """Report the bias (K,) of each convolution and BatchNorm to `on_bias`, with the output (B, K, *grid) that it is added to.

    BatchNorm in eval mode is x gamma / sigma + (beta - mu gamma / sigma); the term in parentheses is its bias.
    """

    def __init__(self, on_bias: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.on_bias = on_bias

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        bias = None
        if func in CONVOLUTION_FUNCTIONS:
            bias = args[2] if len(args) > 2 else kwargs.get("bias")
        elif func is F.batch_norm:
            bias = batch_norm_bias(*args, **kwargs)
        if bias is not None:
            self.on_bias(bias, result)
        return result


def batch_norm_bias(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Return beta - mu gamma / sigma from the arguments of `F.batch_norm`, or None if it uses the batch's own statistics."""
    if running_mean is None or running_var is None or training:
        return None
    scale = (running_var + eps).rsqrt() if weight is None else weight * (running_var + eps).rsqrt()
    return -running_mean * scale if bias is None else bias - running_mean * scale


class KeepGradients(TorchFunctionMode):
    """Make `torch.no_grad()` without effect in the code of a model."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None if disables_gradients(func, args) else func(*args, **(kwargs or {}))


class GuidedReLU(TorchFunctionMode):
    """Make every ReLU (and ReLU6) pass only positive gradients back: guided backpropagation (Springenberg et al., 2015).

    `relu_count` is the number of ReLU calls, `smooth_activations` the names of other activation functions that were called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.relu_count = 0
        self.smooth_activations: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in RELU_FUNCTIONS:
            self.relu_count += 1
            return _GuidedReLUFunction.apply(args[0], lambda x: func(x, *args[1:], **kwargs))
        if func in SMOOTH_ACTIVATIONS:
            self.smooth_activations.add(func.__name__)
        return func(*args, **kwargs)


class _GuidedReLUFunction(torch.autograd.Function):
    """A ReLU that passes only positive gradients back. It works in place if the original call does."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, relu: Callable[[Tensor], Tensor]) -> Tensor:
        before = inputs.clone()
        output = relu(inputs)
        if output is inputs:
            ctx.mark_dirty(inputs)
        ctx.save_for_backward((output == before) & (output > 0))
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.clamp(min=0) * ctx.saved_tensors[0], None
