"""The gradient of what follows a layer, as operations of a graph, so that a network without autograd can compute it.

The network is exported to a graph of ATen operations. The operations between the layer and the class scores, its tail, are
differentiated by PyTorch once, while the graph is traced; the result is a second graph of plain operations. Only the number of
images stays variable in both graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

from seewhy.integrations.model_export.backward_operations import DECOMPOSITIONS
from seewhy.integrations.model_export.recording_network import RecordingNetwork


class TailGradient(nn.Module):
    """A network as two graphs: `forward_graph`, and `gradient_graph` for the tail behind the layer."""

    def __init__(self, network: RecordingNetwork, inputs: Tensor, *, is_dynamic: bool) -> None:
        super().__init__()
        graph_module = export_graph(network, inputs, is_dynamic=is_dynamic)
        tail, borders = split_tail(graph_module)
        self.forward_graph = with_outputs(graph_module, borders)
        self.gradient_graph = differentiate(tail, graph_module, borders)

    def run(self, inputs: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the class scores, the output of the layer, and the other values that the tail reads."""
        scores, output, *others = self.forward_graph(inputs)
        return scores, output, others

    def gradient(self, output: Tensor, seed: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Return the gradient at `output` of the scores weighted with `seed` `(B, classes)`."""
        return cast(Tensor, self.gradient_graph(output, seed, *others))


def export_graph(network: RecordingNetwork, inputs: Tensor, *, is_dynamic: bool) -> fx.GraphModule:
    """Return the graph of a network: ATen operations without in-place writes. Its outputs are the scores and the layer."""
    shapes = ({0: Dim.DYNAMIC},) if is_dynamic else None
    program = torch.export.export(network, (inputs,), dynamic_shapes=shapes, strict=False).run_decompositions()
    module = cast(fx.GraphModule, program.module(check_guards=False))
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.as_strided.default and is_same_view(node):
            node.replace_all_uses_with(node.args[0])
    return module


def is_same_view(node: fx.Node) -> bool:
    """Return True for an `as_strided` that changes only strides of axes of length 1, as pooling on CPUs records it.

    Its gradient writes into memory by strides, for which ONNX has no operation.
    """
    old, new = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    axes = zip(old.shape, new.shape, old.stride(), new.stride(), strict=False)
    return (
        old.dim() == new.dim()
        and not any(node.args[3:])
        and all(str(a) == str(b) and (str(a) == "1" or str(c) == str(d)) for a, b, c, d in axes)
    )


def outputs_of(graph: fx.Graph) -> tuple[fx.Node, fx.Node]:
    """Return the nodes of the scores and of the layer's output."""
    scores, output = next(node for node in graph.nodes if node.op == "output").args[0]
    return scores, output


def split_tail(module: fx.GraphModule) -> tuple[fx.GraphModule, list[fx.Node]]:
    """Return the tail as a graph from the layer's output and other values to the scores, and the nodes of these values."""
    scores, output = outputs_of(module.graph)
    depends = {output}
    for node in module.graph.nodes:
        if any(other in depends for other in node.all_input_nodes):
            depends.add(node)
    needed: set[fx.Node] = set()
    pending = [scores]
    while pending:
        node = pending.pop()
        if node in depends and node is not output and node not in needed:
            needed.add(node)
            pending += node.all_input_nodes
    inner = [node for node in module.graph.nodes if node in needed]
    borders: list[fx.Node] = []
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    copies[output] = graph.placeholder("output")
    for other in dict.fromkeys(source for node in inner for source in node.all_input_nodes):
        if other in needed or other is output:
            continue
        if other.op == "get_attr":
            copies[other] = graph.node_copy(other)
        else:
            borders.append(other)
            copies[other] = graph.placeholder(other.name)
    for node in inner:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[scores])
    return fx.GraphModule(module, graph), borders


def with_outputs(module: fx.GraphModule, borders: Sequence[fx.Node]) -> fx.GraphModule:
    """Return the same graph, which also returns the values that the tail reads."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in module.graph.nodes:
        if node.op == "output":
            graph.output(tuple(copies[one] for one in (*outputs_of(module.graph), *borders)))
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(module, graph)


def differentiate(tail: fx.GraphModule, module: fx.GraphModule, borders: Sequence[fx.Node]) -> fx.GraphModule:
    """Return the graph of the gradient at the layer's output, given that output, weights of the scores, and other values."""
    scores, output = outputs_of(module.graph)
    examples = [node.meta["val"] for node in (output, scores, *borders)]

    def gradient(output: Tensor, seed: Tensor, *others: Tensor) -> Tensor:
        with torch.enable_grad():
            start = output.detach().requires_grad_()
            (result,) = torch.autograd.grad(tail(start, *others), start, seed)
        return result

    mode = examples[0].fake_mode
    allowed, mode.allow_non_fake_inputs = mode.allow_non_fake_inputs, True
    try:
        with mode:
            return make_fx(gradient, decomposition_table=DECOMPOSITIONS, _allow_non_fake_inputs=True)(*examples)
    finally:
        mode.allow_non_fake_inputs = allowed
