"""What a layer gave and what came back to it: the only thing a method ever sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from seewhy.record import Call, Trace


@dataclass(eq=False)
class Signals:
    """One layer's signals for one target, channels first, in float32 or wider.

    `activations` A (B, K, *grid) is the layer's output; `gradients` G (B, K, *grid) the gradient of each picture's score
    with respect to it. What several methods need is computed once and kept here.
    """

    layer: str
    activations: Tensor
    gradients: Tensor

    @cached_property
    def contributions(self) -> Tensor:
        """G * A, elementwise (B, K, *grid): to first order, what each cell of each channel adds to the score."""
        return self.gradients * self.activations

    @cached_property
    def positive_gradients(self) -> Tensor:
        """The gradients with negatives set to zero (B, K, *grid)."""
        return self.gradients.clamp(min=0)

    @cached_property
    def activation_sums(self) -> Tensor:
        """S_k: the activations of each channel summed over the grid (B, K)."""
        return self.activations.flatten(2).sum(2)


def differentiate(
    trace: Trace, scores: Tensor, calls: Sequence[Call], consume: Callable[[Call, Signals], None], *, again: bool
) -> list[Call]:
    """One backward pass from `scores` (B,): `consume` gets each call's signals as soon as its gradient arrives.

    Gradients live only while `consume` runs, so 50 layers do not mean 50 gradients in memory. No parameter's gradient is
    computed and no `.grad` written. `again` keeps graph and outputs for another target. Gives the calls that no gradient
    reached.
    """
    waiting = dict.fromkeys(calls)

    def arrive(call: Call, gradient: Tensor) -> None:
        waiting.pop(call, None)
        consume(call, signals_at(call, gradient))  # autograd has switched gradients off while it runs
        if not again:
            del call.output  # nobody needs it any more, and what is left of the backward pass can use its memory

    if not scores.requires_grad:
        return list(waiting)
    try:
        for call in calls:
            call.ear.receive = partial(arrive, call)
        torch.autograd.grad(scores.sum(), trace.roots, retain_graph=again, allow_unused=True)
    finally:
        for call in calls:
            call.ear.receive = None
    return list(waiting)


def signals_at(call: Call, gradient: Tensor) -> Signals:
    assert call.grid is not None
    activations = call.grid.channels_first(call.output.detach())
    gradient = call.grid.channels_first(gradient)
    if activations.dtype in (torch.float16, torch.bfloat16):
        activations, gradient = activations.float(), gradient.float()
    return Signals(call.name, activations, gradient)
