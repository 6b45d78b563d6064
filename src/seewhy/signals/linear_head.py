"""The linear layer that maps the mean of a layer's activations to the class scores: found by its numbers, not by its class.

An `nn.Linear` can compute anything (adapters, normalized weights, hooks, an operation in place on its output), so a call is
taken for the head only if the class scores are inputs @ weight.T + bias and its inputs are the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.tensors.map_functions import nearly_equal
from seewhy.tracing.trace import LinearCall

TOLERANCE = 1e-4
TRIAL_REACH = 2.0  # change of the score by the trial activations, relative to the largest score and the bias
RULE = "the class scores must be one linear layer of this layer's mean"


def find_linear_head(calls: Sequence[LinearCall], scores: Tensor, means: Tensor) -> LinearCall:
    """Return the last of `calls` that maps `means` (B, K) to `scores` (B, classes); the identity if both are equal.

    Raises:
        MethodError: There is none.
    """
    readers = [call for call in reversed(calls) if nearly_equal(call.inputs, means, TOLERANCE, rounding=4)]
    for call in readers:
        if call.predicts(scores):
            return call
    if nearly_equal(scores, means, TOLERANCE, rounding=4):
        return LinearCall(torch.eye(means.shape[1], device=means.device), None, means)
    if any(len(call.weight) == scores.shape[1] for call in readers):
        reason = (
            "the layer that reads this mean, or what follows it, computes something else than mean @ weight.T + bias"
        )
        raise MethodError("", f"{RULE}, and {reason}. Use hirescam.")
    if not calls:
        raise MethodError("", f"{RULE}, and the model has no linear layer on a vector. Use hirescam.")
    raise MethodError("", f"{RULE}, and other operations or layers lie in between. Use hirescam.")


def trial_activations(activations: Tensor, head: LinearCall, scores: Tensor, number: int) -> Tensor:
    """Return random activations (2, K, *grid) like `activations` (1, K, *grid), for which class `number` scores low and high.

    A ReLU or a clamp that ablated or masked activations can reach changes one of these scores. Activations that are never
    negative stay so.
    """
    random = torch.Generator().manual_seed(0)
    sizes = torch.rand(activations.shape[1:], generator=random, dtype=torch.float64).to(activations)
    weight = head.weight[number].detach().to(sizes)
    signs = weight.sign().reshape(-1, *[1] * (sizes.dim() - 1))
    low, high = (-sizes * signs, sizes * signs)
    if activations.amin() >= 0:
        low, high = low.clamp(min=0), high.clamp(min=0)
    reach = scores.abs().amax() + (0 if head.bias is None else head.bias[number].detach().abs())
    each = torch.stack([low, high])
    effects = (each.flatten(2).mean(2) @ weight).abs().reshape(-1, *[1] * sizes.dim())
    return each * torch.where(effects > 0, TRIAL_REACH * reach.to(sizes) / effects, 1)
