"""Backward passes: the gradient and the curvature of the scores at many layers at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from seewhy.errors import MethodError
from seewhy.tracing.trace import LayerCall, Trace

NO_SECOND_DERIVATIVE = re.compile(r"derivative for (?:aten::)?(\w+) is not implemented")
Consume = Callable[[LayerCall, Tensor, Tensor | None], None]  # call, gradient, curvature


class NoCurvatureError(MethodError):
    """Raised when PyTorch has no second derivative of an operation in the model."""


def differentiate(
    trace: Trace,
    scores: Tensor,
    calls: Sequence[LayerCall],
    consume: Consume,
    *,
    retain_graph: bool = False,
    with_curvature: bool = False,
) -> list[LayerCall]:
    """Run one backward pass from `scores` `(B,)` and call `consume` for each call as soon as its gradient arrives.

    A gradient lives only while `consume` runs, so 50 layers do not need the memory of 50 gradients. No parameter gradient
    is computed and no `.grad` is written. `retain_graph` keeps the graph and the outputs for another pass.
    `with_curvature` adds the Hessian of the score times the activations, with one more backward pass per call.

    Returns the calls that no gradient reached. Raises NoCurvatureError if PyTorch has no second derivative of an operation.
    """
    unreached = dict.fromkeys(calls)
    if not scores.requires_grad:
        return list(unreached)
    if with_curvature:
        return _differentiate_twice(scores, calls, consume)

    def on_gradient(call: LayerCall, gradient: Tensor) -> None:
        unreached.pop(call, None)
        consume(call, gradient, None)  # autograd has disabled gradients here
        if not retain_graph:
            call.release()  # the rest of the backward pass can use its memory

    try:
        for call in calls:
            call.listener.on_gradient = partial(on_gradient, call)
        total = scores.sum()
        torch.autograd.grad(total, ends_of_pass(trace, total, calls), retain_graph=retain_graph, allow_unused=True)
    finally:
        for call in calls:
            call.listener.on_gradient = None
    return list(unreached)


def ends_of_pass(trace: Trace, total: Tensor, calls: Sequence[LayerCall]) -> Sequence[Tensor] | Sequence[GradientEdge]:
    """Return where a backward pass from `total` ends, so that it goes through all calls and as little else as possible.

    It keeps the gradients at its ends, so these are either the first call, or where the graph starts. A block that is the
    first call lies behind that start: its own layers then need no backward pass.
    """
    first = calls[0].edge
    if first is None or len(calls) == 1:
        return trace.leaves if first is None else [first]
    if any(getattr(node, "variable", None) is leaf for node, _ in first.node.next_functions for leaf in trace.leaves):
        return trace.leaves  # nothing lies between the start and the first call
    readers: dict[Node, list[Node]] = {}  # of the nodes of the graph, up to the first call
    waiting = [total.grad_fn]
    known = set(waiting)
    while waiting:
        node = waiting.pop()
        for source, _ in () if node is None or node is first.node else node.next_functions:
            if source is not None and node is not None:
                readers.setdefault(source, []).append(node)
                if source not in known:
                    known.add(source)
                    waiting.append(source)
    passed, waiting = set[Node | None](), [first.node]  # what the gradient passes on its way to the first call
    while waiting:
        node = waiting.pop()
        if node is not None and node not in passed:
            passed.add(node)
            waiting += readers.get(node, [])
    others = {call.edge.node for call in calls if call.edge is not None}
    return [first] if others <= passed and total.grad_fn in passed else trace.leaves


def _differentiate_twice(scores: Tensor, calls: Sequence[LayerCall], consume: Consume) -> list[LayerCall]:
    """Compute G, and for each call the Hessian of the scores times A: the gradient of <G, A> with A held fixed.

    Raises:
        NoCurvatureError: PyTorch has no second derivative of an operation in the model.
    """
    edges = [call.edge for call in calls if call.edge is not None]
    gradients: Iterator[Tensor | None] = iter(
        cast(Any, torch.autograd.grad(scores.sum(), edges, create_graph=True, allow_unused=True))
    )
    unreached = []
    for call in calls:
        edge = call.edge
        gradient = None if edge is None else next(gradients)
        if edge is None or gradient is None:
            unreached.append(call)
            continue
        curvature = None
        if gradient.requires_grad:
            product = (gradient * call.deviation).sum()
            try:
                curvature = torch.autograd.grad(product, [edge], retain_graph=True, allow_unused=True)[0]
            except RuntimeError as error:
                missing = NO_SECOND_DERIVATIVE.search(str(error))
                if missing is None:
                    raise
                operation = missing[1].removesuffix("_backward")
                raise NoCurvatureError(
                    "", f"it needs second derivatives, and PyTorch has none for {operation}, which the model uses."
                ) from None
        if curvature is None:
            curvature = torch.zeros_like(gradient)
        with torch.no_grad():
            consume(call, gradient.detach(), curvature.detach())
    return unreached
