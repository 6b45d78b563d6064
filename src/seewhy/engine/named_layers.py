"""Which of several layers to name: the outermost of those with equal outputs, and the last one before the head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seewhy.tracing.layer_selection import GROUP_NAMES
from seewhy.tracing.trace import LayerCall, Trace

MAX_TRIED = 16  # layers before the head of a dense output that are tried
ROUNDING = 0.02  # of a sum of bfloat16 numbers


def outermost_equal(last: LayerCall, calls: list[LayerCall]) -> LayerCall:
    """Return the outermost of the calls whose output equals that of `last`."""
    equal = [call for call in calls if has_equal_output(call, last)]
    # A module that returns several tensors may pass on others than this one, for example after pooling it.
    return min(equal, key=lambda call: (not call.is_sole_output, is_awkward_name(call), call.name.count(".")))


def layer_before_head(
    reached: list[LayerCall], trace: Trace, with_weights: frozenset[str], score: Tensor
) -> tuple[LayerCall, str]:
    """For an output that is a grid itself, return the last layer before the head through which all paths go.

    The last grid of all would be the output, whose map only repeats the target. All paths go through a layer if no gradient
    reaches the input once the layer's gradient is set to zero. Otherwise one of several heads would be taken for all.
    """
    order = {call: number for number, call in enumerate(trace.calls)}
    readers = [
        number
        for call, number in order.items()
        if call.module in with_weights and (call in reached or call.grid is None)
    ]
    before = [call for call in reached if order[call] < max(readers, default=0)]
    if not before:
        return reached[-1], "the output is a grid and no layer comes before it, so its map repeats the target"
    for call in before[: -MAX_TRIED - 1 : -1]:
        call.listener.on_gradient = torch.zeros_like
        gradient = torch.autograd.grad(score, trace.inputs, retain_graph=True, allow_unused=True)[0]
        call.listener.on_gradient = None
        if gradient is None or not gradient.any():
            return call, "the output is a grid: this is the last layer before its head through which all paths go"
    return before[-1], "the output is a grid: this is the input of its last layer, although other paths bypass it"


def is_attention_weights(call: LayerCall) -> bool:
    """Return True for an output (B, heads, queries, keys) whose rows add up to 1: its shape can equal that of a grid by chance.

    >>> from types import SimpleNamespace
    >>> is_attention_weights(SimpleNamespace(value=torch.rand(1, 12, 1, 577).softmax(-1)))
    True
    """
    value = call.value.detach()
    if value.dim() != 4 or value.shape[-1] < 2 or not value.is_floating_point():
        return False
    if abs(float(value[0, 0, 0].sum()) - 1) > ROUNDING:  # checked first, because it reads few numbers
        return False
    return bool((value >= 0).all()) and bool(((value.sum(-1) - 1).abs() <= ROUNDING).all())


def is_awkward_name(call: LayerCall) -> bool:
    """Return True for a name that is also a group name, so that it cannot be passed on, and for an Identity."""
    return call.name in GROUP_NAMES or issubclass(call.module_class, nn.Identity)


def has_equal_output(call: LayerCall, other: LayerCall) -> bool:
    if call.output is other.output:
        return call.version == other.version  # otherwise an in-place operation lies between them
    if call.is_overwritten or other.is_overwritten:
        return False
    return call.output.shape == other.output.shape and torch.equal(call.output, other.output)
