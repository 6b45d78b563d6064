"""Which cells of a layer the output depends on, and whether the output depends on other branches than that of a layer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import Node

from seewhy.tracing.trace import LayerCall

MIN_IN_BOX = 1 / 3  # fraction of the cells of a box
MIN_REACHED = 0.5  # fraction of cells that a gradient must reach
MIN_DIFFERENT = 1.5  # before a maximum, all channels together reach this many times the cells of one channel
MAX_BRANCHES = 16
FEW_CHANNELS = 8  # which usually show that a gradient reaches enough cells


def is_spread(gradient: Tensor) -> bool:
    """Return True if a gradient (parts, K, *grid) shows which cells matter, in at least one part.

    It reaches at least half of the cells; or each channel has its own few cells, as before a maximum over the grid, where the
    winners differ between channels. In the last block of a ViT, it reaches the class token and no cell at all.
    """
    return any(reaches_half(part[:FEW_CHANNELS]) or is_spread_in_part(part.flatten(1) != 0) for part in gradient)


def reaches_half(gradient: Tensor) -> bool:
    """Return True if a gradient (K, *grid) reaches half of the cells."""
    cells = gradient.flatten(1).any(0)
    return int(cells.sum()) >= MIN_REACHED * len(cells)


def covers_box(gradient: Tensor, box: Tensor) -> bool:
    """Return True if a gradient (1, K, height, width) reaches at least a third of the cells of a box, and more than one.

    The score of a detection depends on the cells near the box only.

    Args:
        gradient: The gradient of the score of the detection.
        box: Left, top, right, bottom as fractions of the input.
    """
    reached = (gradient != 0).flatten(0, 1).any(0)
    inside = torch.zeros_like(reached)
    edges = box.clamp(0, 1).tolist()
    spans = []
    for length, low, high in zip(reached.shape, edges[1::-1], edges[:1:-1], strict=True):
        start = min(int(low * length), length - 1)
        spans.append(slice(start, max(start + 1, round(high * length))))
    inside[tuple(spans)] = True
    return int(reached.sum()) > 1 and int((reached & inside).sum()) >= MIN_IN_BOX * int(inside.sum())


def is_spread_in_part(reached: Tensor) -> bool:
    """Return True if a gradient reaches enough cells. `reached` is (K, cells)."""
    cells = int(reached.any(0).sum())
    if cells >= MIN_REACHED * reached.shape[1]:
        return True
    per_channel = reached.sum(1)
    used = per_channel[per_channel > 0].float()
    return len(used) > 1 and cells > MIN_DIFFERENT * float(used.mean())


def parallel_layers(main: LayerCall, score: Tensor, calls: list[LayerCall], inputs: Tensor) -> list[LayerCall]:
    """Return the last layers of all branches parallel to `main`, as in an ensemble; empty if there is one path.

    The gradient of the layers found so far is set to zero. If a gradient still reaches the input, the last layer that it
    reaches is the end of another branch, unless a known layer depends on it: that is a skip connection.
    """
    branches = [main]
    while len(branches) <= MAX_BRANCHES:
        known = {call.edge for call in branches}  # several modules may return the same tensor
        others = {call: call.edge for call in calls if call.edge is not None and call.edge not in known}
        if not has_path_around(score, branches, others):  # takes 1 ms instead of 170 ms on EfficientNet-Lite0
            break
        for call in branches:
            call.listener.on_gradient = torch.zeros_like
        gradients = torch.autograd.grad(score, list(others.values()), retain_graph=True, allow_unused=True)
        for call in branches:
            call.listener.on_gradient = None
        ends = (
            call
            for call, gradient in reversed(list(zip(others, gradients, strict=True)))
            if gradient is not None and call.grid is not None and is_spread(call.grid.channels_first(gradient))
        )
        last = next((call for call in ends if depends_on_input(call, inputs)), None)  # a text encoder does not
        if last is None or any(depends_on(branch, last) for branch in branches):
            break
        branches.append(last)
    return branches[1:]


def has_path_around(score: Tensor, branches: Iterable[LayerCall], others: Iterable[LayerCall]) -> bool:
    """Return True if the graph of a score leads to one of `others` without passing through the output of a branch."""
    barriers, goals = ({call.edge[:2] for call in calls if call.edge is not None} for calls in (branches, others))
    assert score.grad_fn is not None
    queue: list[tuple[Node, int]] = [(score.grad_fn, score.output_nr)]
    visited: set[Node] = set()
    while queue:
        edge = queue.pop()
        if edge in barriers:
            continue
        if edge in goals:
            return True
        if edge[0] not in visited:
            visited.add(edge[0])
            queue += [(node, number) for node, number in edge[0].next_functions if node is not None]
    return False


def depends_on_input(call: LayerCall, inputs: Tensor) -> bool:
    """Return True if the output of a layer depends on the explained input."""
    (gradient,) = torch.autograd.grad(call.output.sum(), inputs, retain_graph=True, allow_unused=True)
    return gradient is not None


def depends_on(call: LayerCall, earlier: LayerCall) -> bool:
    """Return True if the output of a layer depends on that of another one."""
    if earlier.edge is None:
        return False
    (gradient,) = torch.autograd.grad(call.output.sum(), [earlier.edge], retain_graph=True, allow_unused=True)
    return gradient is not None


def strongest(branches: list[LayerCall], score: Tensor) -> LayerCall:
    """Return the branch with the largest sum of |gradient times activation|."""
    edges = [call.edge for call in branches if call.edge is not None]
    gradients = torch.autograd.grad(score, edges, retain_graph=True)
    shares = [float((gradient * call.value).abs().sum()) for call, gradient in zip(branches, gradients, strict=True)]
    return branches[shares.index(max(shares))]
