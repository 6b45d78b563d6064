"""Where the time of the all-layer pass goes: the parts that any implementation needs, on a prepared model."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import contenders as run
import seewhy
from nets import NETS, conv_names, images
from race import Job, race
from results import Report, Table
from seewhy.tracing.twin import make_twin

CLASS = 5


class Minimal:
    """Grad-CAM at all convolutions with nothing but the necessary: no checks, no notes, one model, one class."""

    def __init__(self, net: nn.Module, inputs: Tensor) -> None:
        prepared = seewhy.prepare(net)
        seewhy.explain(prepared, inputs, layers="every")
        network = prepared.fast.module_for(prepared.module, inputs)
        assert network is not None
        self.net, self.inputs, self.layers = make_twin(network), inputs, conv_names(net)
        self.modules = {name: self.net.get_submodule(name) for name in self.layers}

    def forward(self) -> Tensor:
        with torch.inference_mode():
            return self.net(self.inputs)

    def with_graph(self) -> Tensor:
        first = self.modules[self.layers[0]]
        handle = first.register_forward_hook(lambda module, args, output: output.requires_grad_())
        output = self.net(self.inputs)
        handle.remove()
        return output

    def with_backward(self) -> None:
        self.with_graph()[:, CLASS].sum().backward()

    def with_maps(self) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        weights: dict[str, Tensor] = {}

        def keep(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
            if name == self.layers[0]:
                output.requires_grad_()
            outputs[name] = output.detach()
            output.register_hook(lambda gradient: weights.__setitem__(name, gradient.mean((2, 3))))

        handles = [module.register_forward_hook(partial(keep, name)) for name, module in self.modules.items()]
        self.net(self.inputs)[:, CLASS].sum().backward()
        for handle in handles:
            handle.remove()
        return {name: torch.einsum("bk,bkhw->bhw", weights[name], outputs[name]) for name in self.layers}


STEPS = {
    "bare": "forward pass of the unchanged network",
    "forward": "forward pass, prepared",
    "graph": "+ recording the graph",
    "backward": "+ backward pass to the first convolution",
    "maps": "+ hooks, channel weights and weighted sums: the floor",
    "seewhy, prepared": "seewhy, prepared: + recording of any layer, checks and notes",
}


def measure_net(net_name: str, batch: int, rounds: int) -> list[str]:
    net, inputs = NETS[net_name](), images(batch)
    minimal = Minimal(net, inputs)
    jobs: dict[str, Job] = {
        "bare": partial(run.bare, net, inputs),
        "forward": minimal.forward,
        "graph": minimal.with_graph,
        "backward": minimal.with_backward,
        "maps": minimal.with_maps,
        "seewhy, prepared": partial(
            seewhy.explain, seewhy.prepare(net), inputs, methods="gradcam", layers="every", targets=CLASS
        ),
    }
    times = race(jobs, rounds)
    return [f"{times.ratio(name, 'bare').median:.2f} ({1000 * times.median(name):.1f} ms)" for name in jobs]


def measure(rounds: int) -> Report:
    settings = [(name, batch) for name in ("ResNet-18", "Lite0") for batch in (1, 8)]
    found = [measure_net(name, batch, rounds) for name, batch in settings]
    rows = [[text, *values] for text, *values in zip(STEPS.values(), *found, strict=True)]
    header = ["step", *(f"{name}, batch {batch}" for name, batch in settings)]
    note = "All convolutions. Multiples of the bare forward pass; from the second row on, each contains those above it."
    return Report([Table("Where the time of the all-layer pass goes", header, rows, note)])
