"""Turn the graphs of an unflattened program of torch.export back into layers of PyTorch, where a graph is one operation.

Only then are they found as convolutions, and the last linear layer as the head of the network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

aten = torch.ops.aten
LAYERS: dict[Any, type[nn.Module]] = {
    aten.conv1d.default: nn.Conv1d,
    aten.conv2d.default: nn.Conv2d,
    aten.conv3d.default: nn.Conv3d,
    aten.linear.default: nn.Linear,
}


def restore_layers(network: nn.Module) -> None:
    """Replace modules of an unflattened program that compute one convolution or linear layer, in place."""
    for name, module in list(network.named_modules()):
        layer = as_layer(module) if name else None
        if layer is not None:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, layer.train(module.training))


def as_layer(module: nn.Module) -> nn.Module | None:
    """Return a layer with the weights of a module whose graph is one operation on its only input; None for any other."""
    graph = getattr(module, "graph", None)
    if not isinstance(graph, fx.Graph):
        return None
    operations = [node for node in graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    (result,) = [node.args[0] for node in graph.nodes if node.op == "output"]
    if len(operations) != 1 or len(inputs) != 1 or operations[0].target not in LAYERS:
        return None
    (operation,) = operations
    if operation.args[:1] != (inputs[0],) or result not in (operation, (operation,), [operation]):
        return None
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    named = [str(node.target) for node in graph.nodes if node.op == "get_attr"]
    if weight is None or named != ["weight", "bias"][: len(named)] or (bias is not None) != (len(named) == 2):
        return None
    return build(LAYERS[operation.target], operation, weight, bias)


def build(cls: type[nn.Module], operation: fx.Node, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    """Return a layer with these weights and the settings of an operation."""
    settings: dict[str, Any] = {}
    if cls is not nn.Linear:
        names = ("stride", "padding", "dilation", "groups")
        settings = {**dict(zip(names, operation.args[3:], strict=False)), **operation.kwargs}
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        settings["kernel_size"] = tuple(weight.shape[2:])
    channels = weight.shape[1] * settings.get("groups", 1)
    layer: Any = cls(channels, weight.shape[0], bias=bias is not None, device="meta", **settings)
    layer.weight = weight
    layer.bias = bias
    return layer  # type: ignore[no-any-return]
