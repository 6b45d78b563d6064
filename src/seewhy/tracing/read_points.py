"""Read a convolution at its own output, or at the output of the activation that follows it (`read_at`).

Papers differ in which of the two they call the feature map of a layer. `at_read_point` wraps each selector of a
selection, so that a selected convolution is replaced after the forward pass by the call of its activation. An
activation belongs to a convolution only if nothing else feeds it, which the autograd graph shows: the ReLU after a
residual sum belongs to no single convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import nn
from torch.autograd.graph import Node
from torch.nn.modules import activation

from seewhy.tracing.layer_groups import find_convolutions
from seewhy.tracing.layer_selection import LayerSelection, LayerSelector
from seewhy.tracing.torch_private import BATCH_NORM
from seewhy.tracing.trace import LayerCall, Trace
from seewhy.tracing.twin import named_modules

ReadPoint = Literal["convolution", "activation"]
NOT_ACTIVATIONS = (activation.MultiheadAttention, activation.Softmax, activation.Softmax2d, activation.LogSoftmax)
ACTIVATIONS = tuple(
    module_class
    for name in activation.__all__
    if isinstance(module_class := getattr(activation, name), type) and module_class not in NOT_ACTIVATIONS
)


def at_read_point(selection: LayerSelection, read_at: ReadPoint, model: nn.Module) -> LayerSelection:
    """Return the selection read at `read_at`: "convolution" (unchanged) or "activation".

    >>> from seewhy.tracing.layer_specs import parse_layers
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    >>> sorted(at_read_point(parse_layers("0", net), "activation", net).request.names)
    ['0', '2']
    """
    if read_at == "convolution":
        return selection
    modules = dict(named_modules(model))
    activations = frozenset(name for name, module in modules.items() if is_activation(module))
    convolutions = find_convolutions(modules)
    selectors = tuple(FollowingActivation(selector, activations, convolutions) for selector in selection.selectors)
    return replace(selection, selectors=selectors)


@dataclass(frozen=True)
class FollowingActivation(LayerSelector):
    """The calls of `selector`, with each convolution replaced by the activation that follows it.

    That is the first activation before the next convolution of the same parent, with the same output shape, and with no
    other input. Without one (a functional ReLU, a residual sum) the convolution itself is kept.
    """

    selector: LayerSelector
    activations: frozenset[str]
    convolutions: frozenset[str]

    @property
    def modules(self) -> frozenset[str]:
        return self.selector.modules | self.activations | self.convolutions

    def select(self, trace: Trace) -> list[LayerCall]:
        return list(dict.fromkeys(self.read_point_of(call, trace) for call in self.selector.select(trace)))

    def read_point_of(self, call: LayerCall, trace: Trace) -> LayerCall:
        if call.module not in self.convolutions or call.grid is None:
            return call
        parent = call.module.rpartition(".")[0]
        for later in trace.calls[trace.calls.index(call) + 1 :]:
            if later.module in self.convolutions and later.module.rpartition(".")[0] == parent:
                break
            if later.module in self.activations and later.output.shape == call.output.shape and later.grid is not None:
                return later if self.is_only_source(call, later, trace) else call
        return call

    def is_only_source(self, early: LayerCall, late: LayerCall, trace: Trace) -> bool:
        """Return True if everything that reaches `late` comes through `early`.

        Walks the autograd graph back from `late` and looks for another convolution or activation.
        """
        names = self.convolutions | self.activations
        others = {node_of(call) for call in trace.calls if call.module in names and call not in (late, early)}
        visited, queue = {node_of(late), node_of(early)}, [node_of(late)]
        while queue and (node := queue.pop()) is not None:
            for source, _ in node.next_functions:
                if source in others:
                    return False
                if source is not None and source not in visited:
                    visited.add(source)
                    queue.append(source)
        return True


def node_of(call: LayerCall) -> Node | None:
    """Return the node of the autograd graph that computed the output of a call."""
    return None if call.edge is None else call.edge.node


def is_activation(module: nn.Module) -> bool:
    """Return True for an activation, or a BatchNorm with an activation inside, as in timm."""
    inner = getattr(module, "act", None)
    is_fused = isinstance(module, BATCH_NORM) and isinstance(inner, nn.Module) and not isinstance(inner, nn.Identity)
    return is_fused or isinstance(module, ACTIVATIONS) or type(module).__module__.startswith("timm.layers.activations")
