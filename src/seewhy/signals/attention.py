"""The attention layers of a recorded forward pass: which axes are images and heads, and which calls are heads of one layer.

The matrices of attention are (B, heads, N, N) by convention only. A model can put heads first, join images and heads in one
axis, or compute each head in a separate call. What the shapes leave open is observed: an entry of image 0 has no gradient to
image 1, and a layer depends on the layer before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.tensors.map_functions import to_float32
from seewhy.tracing.trace import AttentionRecord, Trace

UNEQUAL = (
    "it needs attention layers that all connect the same tokens, as in a plain ViT. This model's connect different ones "
    "(windows, pooling, cross-attention), or in an unknown order. Use gradcam."
)


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One layer of attention from every token to every token: one call, or one call for each head.

    Attributes:
        records: The calls.
        images: The number B of images.
        is_heads_first: Whether heads come before images in the axes of the calls.
    """

    records: tuple[AttentionRecord, ...]
    images: int
    is_heads_first: bool = False

    @property
    def module(self) -> str:
        """The module that computes the (first) head."""
        return self.records[0].module

    @property
    def tensors(self) -> list[Tensor]:
        """The weights of each call with their graph, as the model computed them."""
        return [record.call.weights for record in self.records]

    @cached_property
    def weights(self) -> Tensor:
        """The weights `(B, heads, N, N)`; rows are queries and sum to 1."""
        return self.arrange([tensor.detach() for tensor in self.tensors])

    def parts(self, name: str) -> list[Tensor] | None:
        """Return the "queries", "keys", "values" or "output" of each call; None if only the softmax was seen."""
        tensors = [getattr(record.call, name) for record in self.records]
        return None if any(tensor is None for tensor in tensors) else tensors

    def arrange(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor of each call, such as weights or their gradients, as one tensor `(B, heads, N, ...)`."""
        arranged = [arrange(to_float32(tensor), self.images, self.is_heads_first) for tensor in tensors]
        return arranged[0] if len(arranged) == 1 else torch.cat(arranged, 1)

    def gradient(self, score: Tensor) -> Tensor | None:
        """Return the gradient of a score with respect to the weights `(B, heads, N, N)`; None if it does not depend on them."""
        gradients = torch.autograd.grad(score, self.tensors, retain_graph=True, allow_unused=True)
        if all(gradient is None for gradient in gradients):
            return None
        return self.arrange(
            [torch.zeros_like(t) if g is None else g for t, g in zip(self.tensors, gradients, strict=True)]
        )


def arrange(tensor: Tensor, images: int, is_heads_first: bool) -> Tensor:
    """Return a tensor (B, heads, ...), (heads, B, ...) or with both in one axis as (B, heads, ...)."""
    if tensor.dim() == 4:
        return tensor.transpose(0, 1) if is_heads_first else tensor
    if is_heads_first:
        return tensor.reshape(-1, images, *tensor.shape[1:]).transpose(0, 1)
    return tensor.reshape(images, -1, *tensor.shape[1:])


def attention_layers(trace: Trace, is_heads_first: bool | None = None) -> list[AttentionLayer]:
    """Return the attention layers of a forward pass in execution order.

    Args:
        trace: The forward pass.
        is_heads_first: Whether heads come before images, if that is known for the model and the number of images.

    Raises:
        MethodError: There are none, they do not all connect the same tokens, or their axes or their order is unknown.
    """
    records, images = trace.attentions, len(trace.inputs)
    if trace.has_keys_first:
        raise MethodError(
            "",
            "a softmax of this model runs over the second last axis, so its attention may not be queries x keys. Use gradcam.",
        )
    if not records:
        raise MethodError(
            "", "it needs a transformer, and no self-attention by softmax or sdpa was found. Use gradcam."
        )
    readings = [is_first for is_first in (False, True) if all(fits(record, images, is_first) for record in records)]
    ranks = {record.call.weights.dim() for record in records}
    sizes = {record.call.weights.shape[-1] for record in records}
    if not readings or len(sizes) > 1 or ranks & trace.cross_attention_ranks:
        raise MethodError("", UNEQUAL)
    # Windows of images can look like heads, so heads that come first are confirmed too.
    if is_heads_first is None and images > 1 and any(shape_is_unclear(record, images) for record in records):
        readings = [is_first for is_first in readings if separates_images(trace, is_first)]
        if not readings:
            reason = (
                "images and heads cannot be distinguished in the attention of this model. Explain one image at a time"
            )
            raise MethodError("", f"{reason}, or use gradcam.")
    is_first = bool(is_heads_first) if is_heads_first in readings else readings[0]
    return [AttentionLayer(tuple(group), images, is_first) for group in heads_of_layers(records, images, is_first)]


def fits(record: AttentionRecord, images: int, is_heads_first: bool) -> bool:
    """Return True if the shape of a call allows this order of heads and images."""
    shape = record.call.weights.shape
    return (len(shape) == 3 and shape[0] % images == 0) or (len(shape) == 4 and shape[int(is_heads_first)] == images)


def shape_is_unclear(record: AttentionRecord, images: int) -> bool:
    shape = record.call.weights.shape
    return shape[0] != images if len(shape) == 3 else shape[1] == images


def separates_images(trace: Trace, is_heads_first: bool) -> bool:
    """Return True if the matrices read as those of image 0 depend on image 0 only."""
    images = len(trace.inputs)
    first = [arrange(record.call.weights, images, is_heads_first)[0] for record in trace.attentions]
    probes = [matrices.square().sum() for matrices in first if matrices.requires_grad]
    if not probes:
        return False
    total: Any = torch.stack([probe.double() for probe in probes]).sum()
    (gradient,) = torch.autograd.grad(total, [trace.inputs], retain_graph=True, allow_unused=True)
    return gradient is not None and bool(gradient[0].any()) and not bool(gradient[1:].any())


def heads_of_layers(
    records: Sequence[AttentionRecord], images: int, is_heads_first: bool
) -> list[list[AttentionRecord]]:
    """Return the calls of each layer: consecutive calls that do not depend on each other are heads of one layer.

    Raises:
        MethodError: They have several heads each, or the layers do not follow each other, as in parallel branches.
    """
    earlier, groups, current = (
        earlier_calls([record.call.weights for record in records]),
        list[list[int]](),
        list[int](),
    )
    if earlier is None:  # without a graph, each call counts as a layer
        return [[record] for record in records]
    for number in range(len(records)):
        if current and any(earlier[number] >> other & 1 for other in current):
            groups.append(current)
            current = []
        current.append(number)
    groups.append(current)
    is_chain = all(
        earlier[number] >> other & 1 for before, after in pairwise(groups) for number in after for other in before
    )
    heads = [arrange(record.call.weights, images, is_heads_first).shape[1] for record in records]
    if not is_chain or any(len(group) > 1 and heads[number] > 1 for group in groups for number in group):
        raise MethodError(
            "", "the attention layers of this model do not follow each other (parallel branches). Use gradcam."
        )
    return [[records[number] for number in group] for group in groups]


def earlier_calls(tensors: Sequence[Tensor]) -> list[int] | None:
    """Return for each tensor the set of the others that it depends on, as bits; None if one has no graph."""
    starts = [tensor.grad_fn for tensor in tensors]
    if any(start is None for start in starts):
        return None
    bit_of: dict[Any, int] = {}
    for number, start in enumerate(starts):
        bit_of[start] = bit_of.get(start, 0) | 1 << number
    reached: dict[Any, int] = {}
    for start in starts:
        stack: list[Any] = [start]
        while stack:
            node = stack[-1]
            inputs = [function for function, _ in node.next_functions if function is not None]
            missing = [] if node in reached else [function for function in inputs if function not in reached]
            if missing:
                stack += missing
                continue
            stack.pop()
            if node not in reached:
                reached[node] = 0
                for function in inputs:
                    reached[node] |= reached[function] | bit_of.get(function, 0)
    return [reached[start] for start in starts]
