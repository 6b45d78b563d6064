"""Gradients of convolutions and adaptive pooling, in terms of operations that every format has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def convolution_backward(
    gradient: Tensor, inputs: Tensor, weight: Tensor, bias_sizes: object, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int, mask: Sequence[bool],
) -> tuple[Tensor | None, None, None]:  # fmt: skip
    """Return the gradient at the input of a convolution: the transposed convolution of the gradient at its output."""
    if any(mask[1:]):
        raise NotImplementedError("gradients of weights")
    axes = range(len(stride))
    missing = [0] * len(stride)
    if not transposed:
        missing = [
            inputs.shape[2 + i]
            - ((gradient.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1)
            for i in axes
        ]
    result = aten.convolution.default(
        gradient, weight, None, stride, padding, dilation, not transposed, missing, groups
    )
    return result, None, None


def adaptive_average_backward(gradient: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient at the input of an adaptive average pooling with one or two axes."""
    for axis in range(2, inputs.dim()):
        shares = pooling_shares(gradient.shape[axis], inputs.shape[axis]).to(gradient)
        gradient = (gradient.movedim(axis, -1) @ shares).movedim(-1, axis)
    return gradient


def pooling_shares(outputs: int, inputs: int) -> Tensor:
    """Return the share of each input position in each output position `(outputs, inputs)`.

    >>> pooling_shares(2, 3)
    tensor([[0.5000, 0.5000, 0.0000],
            [0.0000, 0.5000, 0.5000]])
    """
    rows = []
    for index in range(outputs):
        first, last = index * inputs // outputs, -(-(index + 1) * inputs // outputs)
        rows.append([1 / (last - first) if first <= place < last else 0.0 for place in range(inputs)])
    return torch.tensor(rows)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **dict(torch.export.default_decompositions().items()),  # type: ignore[no-untyped-call]
    aten.convolution_backward.default: convolution_backward,
    aten._adaptive_avg_pool2d_backward.default: adaptive_average_backward,
}
