"""Whether a network keeps the rows of a batch in the order of the images.

A network can sort its images by length, or send each to another expert, and restore the order at its end. Inside, row i of a
layer then belongs to another image than i. Such a network selects rows of the batch by indices, which its graph shows. Only
then, two backward passes show to which image each row of a layer belongs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from seewhy.errors import LayerError
from seewhy.targets.class_scores import find_scores
from seewhy.targets.detections import is_detections
from seewhy.tracing.trace import LayerCall, Trace

TOLERANCE = 1e-3  # of the largest gradient
ROUNDINGS = 8
PERIOD = 7  # images with different weights
SELECTING = (
    "Index",
    "Gather",
    "Scatter",
    "Flip",
    "Roll",
    "Take",
    "MaskedSelect",
    "Sort",
)  # in the names of graph nodes


def check_row_order(trace: Trace, calls: Sequence[LayerCall]) -> None:
    """Raise LayerError if rows of a layer belong to other images than those with the same number."""
    images = len(trace.inputs)
    own = [call for call in calls if call.edge is not None and call.output.dim() and len(call.output) == images]
    output = None if is_detections(trace.output) else find_scores(trace.output)
    if images < 2 or not own or output is None or not output.requires_grad or not output.dim() or len(output) != images:
        return
    if not selects_rows([output]):
        return
    scores = random_scores(output)
    numbers = 2.0 ** (torch.arange(images) % PERIOD).to(scores)  # powers of two are exact in every type
    edges = [call.edge for call in own if call.edge is not None]
    alike, numbered = (gradients(scores, edges, weights) for weights in (torch.ones_like(numbers), numbers))
    for call, one, other in zip(own, alike, numbered, strict=True):
        if one is None or other is None:
            continue
        expected = one * numbers.to(one).reshape(-1, *[1] * (one.dim() - 1))
        tolerance = max(TOLERANCE, ROUNDINGS * max(torch.finfo(own.dtype).eps for own in (one, output)))
        if (other - expected).abs().max() > tolerance * other.abs().max():
            raise LayerError(
                call.name,
                "its rows are in another order than the images, or depend on several images: explain the images one at a "
                "time, x[:1].",
            )


def gradients(scores: Tensor, edges: Sequence[GradientEdge], weights: Tensor) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(scores, edges, weights, retain_graph=True, allow_unused=True)


def random_scores(output: Tensor) -> Tensor:
    """Return one number per row of an output (B, ...)."""
    weights = torch.randn(output[0].numel(), generator=torch.Generator().manual_seed(0)).to(output)
    return output.flatten(1) @ weights if output.dim() > 1 else output * weights


def selects_rows(outputs: Iterable[Tensor]) -> bool:
    """Return True if an operation that `outputs` depend on selects positions on their first axis by indices."""
    visited, queue = set[Node](), [output.grad_fn for output in outputs]
    while queue:
        node = queue.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if any(name in node.name() for name in SELECTING) and is_on_first_axis(node):
            return True
        queue += [source for source, _ in node.next_functions]
    return False


def is_on_first_axis(node: Node) -> bool:
    """Return True if an operation selects along the first axis, or on one that its node does not store."""
    for name, is_first in (
        ("_saved_indices", lambda indices: indices[0] is not None),
        ("_saved_dim", lambda axis: axis == 0),
        ("_saved_dims", lambda axes: 0 in axes),
    ):
        value = getattr(node, name, None)
        if value is not None and value != ():
            return bool(is_first(value))
    return True
