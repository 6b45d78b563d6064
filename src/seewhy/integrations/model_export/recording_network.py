"""A copy of a network that returns its class scores and the output of one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import LayerError
from seewhy.integrations.model_export.mapped_layer import MappedLayer
from seewhy.targets.class_scores import logits
from seewhy.tracing.memory_format import remove_layout_fix
from seewhy.tracing.twin import make_twin
from seewhy.tracing.twin_hooks import call_after_module


class RecordingNetwork(nn.Module):
    """Return the class scores `(B, classes)` of a network and the output of one of its layers, for the same inputs.

    The network is a twin: it has the same weights, and hooks on it do not reach the original.
    """

    def __init__(self, network: nn.Module, layer: MappedLayer) -> None:
        super().__init__()
        self.network = exportable_twin(network)
        self.layer = layer
        self.calls = 0
        self.output: Tensor | None = None
        call_after_module(self.network, layer.module, self.record)

    def record(self, module: nn.Module, args: object, output: Any) -> Tensor | None:
        self.calls += 1
        if self.calls != self.layer.number:
            return None
        if not isinstance(output, Tensor):
            raise LayerError(self.layer.name, "returns several tensors, and the exported layer must return one")
        # The network may overwrite what it gets, so it gets a copy. Exporters remove copies without effect.
        self.output = output.clone()
        return self.output.clone()

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        self.calls, self.output = 0, None
        scores = logits(self.network(inputs))
        output = self.take_output()
        return scores, output

    def take_output(self) -> Tensor:
        """Return what the layer returned, and drop it."""
        output, self.output = self.output, None
        assert output is not None
        return output


def exportable_twin(network: nn.Module) -> nn.Module:
    """Return a twin on the CPU whose weights are parameters without gradients, as exporters require."""
    twin = make_twin(network)
    known: dict[int, nn.Parameter] = {}
    for module in twin.modules():
        remove_layout_fix(module)
        for name, value in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            weight = known.setdefault(id(value), nn.Parameter(value.detach().cpu(), requires_grad=False))
            setattr(module, name, weight)
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            setattr(module, name, buffer.cpu())
    return twin


def find_shared(network: nn.Module, weight: Tensor) -> nn.Parameter | None:
    """Return the parameter of a network with these values, so that a file contains them once."""
    for parameter in network.parameters():
        if parameter.numel() == weight.numel() and torch.equal(parameter.reshape(weight.shape), weight.cpu()):
            return parameter
    return None
