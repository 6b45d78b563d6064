"""Hear torch functions that no module stands for: attention, fused or by hand, biases, ReLU. Only inside a `with`.

A `TorchFunctionMode` sees every call of a torch function in its own thread, so nothing is replaced in any library, and
nothing has to be put back.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

LEAST_TOKENS = 4
SOFTMAXES = (F.softmax, torch.softmax, Tensor.softmax)
RELUS = (
    *(F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    *(F.relu6, F.hardtanh, F.hardtanh_),
)


@dataclass(eq=False)
class AttentionCall:
    """One call of attention: `weights` (B, heads, N, M) after softmax, with their graph; where it was a call that has
    them, `values` (B, heads, M, d), `queries`, `keys` and the `output` (B, heads, N, d)."""

    weights: Tensor
    queries: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None
    output: Tensor | None = None


class CaptureAttention(TorchFunctionMode):
    """Work out every attention step by step and tell `receive` of it; fused attention is worked out by hand."""

    def __init__(self, receive: Callable[[AttentionCall], None]) -> None:
        super().__init__()
        self.receive = receive
        self.has_cross_attention = False  # there was attention whose queries and keys are not the same tokens

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self.attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            if kwargs.get("need_weights", True):
                kwargs["need_weights"] = False  # there it computes by another path; the weights are put in below
                return self.with_weights(*args, **kwargs)
            return self.inside(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in SOFTMAXES:
            self.tell(AttentionCall(result))
        return result

    def tell(self, heads: AttentionCall) -> None:
        if is_attention(heads.weights):
            self.receive(heads)
        elif heads.weights.dim() == 4 and heads.weights.shape[2] != heads.weights.shape[3] >= LEAST_TOKENS:
            self.has_cross_attention = True

    def with_weights(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        heard: list[Tensor] = []
        output, _ = self.inside(*args, heard=heard, **kwargs)
        return output, heard[0].mean(1) if kwargs.get("average_attn_weights", True) else heard[0]

    def inside(self, *args: Any, heard: list[Tensor] | None = None, **kwargs: Any) -> Any:
        """PyTorch's own `multi_head_attention_forward`, with a name of its own for the fused attention in it."""

        def attend(*given: Any, **named: Any) -> Tensor:
            return self.attend(*given, heard=heard, **named)

        code = F.multi_head_attention_forward
        names = {**code.__globals__, "scaled_dot_product_attention": attend, "has_torch_function": lambda _: False}
        copy = types.FunctionType(code.__code__, names, code.__name__, code.__defaults__, code.__closure__)
        copy.__kwdefaults__ = code.__kwdefaults__
        return copy(*args, **kwargs)

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
        heard: list[Tensor] | None = None,
    ) -> Tensor:
        """softmax(q k' scale + mask) v, as `scaled_dot_product_attention` is defined."""
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
        if heard is not None:
            heard.append(weights)
        self.tell(AttentionCall(weights, query, key, value, output))
        return output


def is_attention(weights: Tensor) -> bool:
    """Whether softmax gave (B, heads, N, N): every token looks at every token."""
    return weights.dim() == 4 and weights.shape[2] == weights.shape[3] >= LEAST_TOKENS


class CaptureBias(TorchFunctionMode):
    """Tell `receive` the bias (K,) that each convolution and BatchNorm adds, and its output (B, K, *grid).

    BatchNorm in eval mode is x gamma / sigma + (beta - mu gamma / sigma): the bracket is its bias.
    """

    def __init__(self, receive: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.receive = receive

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in CONVOLUTIONS:
            bias = args[2] if len(args) > 2 else kwargs.get("bias")
            if bias is not None:
                self.receive(bias, result)
        elif func is F.batch_norm:
            bias = normalizing_bias(*args, **kwargs)
            if bias is not None:
                self.receive(bias, result)
        return result


CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def normalizing_bias(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """beta - mu gamma / sigma, from the arguments of `F.batch_norm`; None where it takes the statistics of the batch."""
    if running_mean is None or running_var is None or training:
        return None
    scale = (running_var + eps).rsqrt() if weight is None else weight * (running_var + eps).rsqrt()
    return -running_mean * scale if bias is None else bias - running_mean * scale


class GuidedReLU(TorchFunctionMode):
    """Let every ReLU (also ReLU6) pass back positive gradients only; `heard` counts them, `others` names what is no ReLU.

    Springenberg et al., 2015: guided backpropagation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.relu_count = 0
        self.smooth_activations: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in RELUS:
            if func in OTHERS:
                self.smooth_activations.add(func.__name__)
            return func(*args, **kwargs)
        self.relu_count += 1
        return _Guided.apply(args[0], lambda x: func(x, *args[1:], **kwargs))


OTHERS = (F.gelu, F.silu, F.elu, F.leaky_relu, F.hardswish, F.mish, F.selu)  # in the place of ReLU, but smooth


class _Guided(torch.autograd.Function):
    """A ReLU, in place if that is how it was called, which passes back positive gradients only."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, relu: Callable[[Tensor], Tensor]) -> Tensor:
        before = given.clone()
        output = relu(given)
        if output is given:
            ctx.mark_dirty(given)
        ctx.save_for_backward((output == before) & (output > 0))
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.clamp(min=0) * ctx.saved_tensors[0], None
