"""Well-known networks, tiny and random, with the default call: the map equals one that is computed without hooks, by hand."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.tensors.nested import map_tensors
from support.listed_networks import LISTED, Listed

SLOW = ("Perceiver", "SSD")


def create(listed: Listed) -> tuple[torch.nn.Module, Any]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net, inputs = listed.make()

    def convert(tensor: Tensor) -> Tensor:
        return tensor.to(listed.dtype) if tensor.is_floating_point() else tensor

    return net.to(listed.dtype).eval(), map_tensors(inputs, convert)


def run(net: torch.nn.Module, inputs: Any) -> Any:
    torch.manual_seed(7)  # ViT-MAE and ViLT draw random numbers
    if isinstance(inputs, dict):
        return net(**inputs)
    return net(*inputs) if isinstance(inputs, tuple) else net(inputs)


def output_and_gradient(net: torch.nn.Module, inputs: Any, layer: str, listed: Listed) -> tuple[Tensor, Tensor]:
    """Return the output of a call of a layer, and the gradient of the score. The layer's `forward` is replaced in a copy."""
    net = copy.deepcopy(net)
    name, _, number = layer.partition("#")
    module, calls = net.get_submodule(name), list[Tensor]()
    forward = module.forward

    def keep(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        tensor = (
            output
            if isinstance(output, Tensor)
            else output[0]
            if isinstance(output, tuple)
            else next(iter(output.values()))
        )
        calls.append(tensor)
        return output

    module.forward = keep  # type: ignore[method-assign]
    score = listed.score(run(net, inputs))
    kept = calls[int(number or 1) - 1]
    (gradient,) = torch.autograd.grad(score, kept)
    return kept.detach(), gradient


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [name if name not in SLOW else pytest.param(name, marks=pytest.mark.full) for name in LISTED]
)
def test_the_default_call_is_what_hand_written_code_computes(name: str) -> None:
    listed = LISTED[name]
    net, inputs = create(listed)
    torch.manual_seed(7)
    e = seewhy.explain(net, inputs)
    (layer,) = e.layers
    assert layer.startswith(listed.layer)
    output, gradient = output_and_gradient(net, inputs, layer, listed)
    a, g = listed.arrange(output), listed.arrange(gradient)
    channels = 1 if name == "TimeSformer" else 0
    axes = list(range(channels + 1, a.dim()))
    weights = g if listed.method == "hirescam" else g.mean(axes, keepdim=True)
    want = (weights * a).sum(channels)
    assert e.methods == (listed.method,)
    assert e.map().shape == (1, *want.shape)
    error = 1e-7 if listed.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(e.map()[0], want, rtol=error, atol=error * float(want.abs().max()), check_dtype=False)
    assert want.abs().max() > 0
    assert e.heatmap().shape[1:] == listed.size
