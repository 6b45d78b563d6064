"""Methods that raise: the model keeps no hook, no gradient and no changed mode."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy.methods.base import Method, NetworkMethod, VariantMethod
from seewhy.signals.layer import Need, Signals, Variant
from seewhy.signals.model import ModelSignals
from support.catalog_networks import (
    as_it_is,
    explained,
    stage,
)
from support.identity_maps import alike
from support.parameters import stable_id


class Stop(Exception):
    """Nothing that seewhy raises or expects."""


@dataclass(frozen=True)
class Raises(Method):
    """Raises at once, in the middle of the pass that others share, or while the network runs again."""

    where: str = "at once"

    @property
    def needs(self) -> Need:  # type: ignore[override]
        return {"in curvature": Need.GRADIENTS | Need.CURVATURE, "at once": Need.GRADIENTS}.get(
            self.where, Need.GRADIENTS | Need.EVALUATOR
        )

    def __call__(self, signals: Signals) -> Tensor:
        def build(rows: slice) -> Tensor:
            raise Stop

        match self.where:
            case "in inputs":
                signals.score_inputs(0, 3, build)
            case "in activations":
                signals.score_activations(0, 3, build)
            case "after guided":
                assert signals.guided_gradients.any()
            case "after a score":
                with torch.enable_grad():
                    assert signals.differentiable_scores(0, signals.inputs.clone().requires_grad_()).requires_grad
        raise Stop


class Bad(Variant):
    """A variant that cannot be made."""

    def __call__(self, inputs: Tensor) -> Tensor:
        raise Stop


@dataclass(frozen=True)
class RaisesLater(VariantMethod):
    """Raises after the first variant, or with a variant that cannot be made."""

    bad: bool = False
    needs = Need.GRADIENTS | Need.EVALUATOR

    def passes(self, signals: Signals) -> Generator[Variant, Signals, Tensor]:
        from seewhy.methods.variants import ScaledInputs

        yield Bad() if self.bad else ScaledInputs(0.5)
        raise Stop


@dataclass(frozen=True)
class RaisesForAll(NetworkMethod):
    """Raises while biases are recorded."""

    def __call__(self, signals: ModelSignals) -> Tensor:
        def consume(bias: Tensor, gradient: Tensor) -> None:
            raise Stop

        return signals.visit_biases(consume)


def stopping(output: Tensor) -> Tensor:
    """A target that answers the recorded forward only."""
    if not output.requires_grad:
        raise Stop
    return output[:, 0]


BREAKING: list[tuple[Any, Any]] = [
    *((Raises(where), 1) for where in ("at once", "in curvature", "in inputs", "in activations", "after guided")),
    (Raises("after a score"), 1), (RaisesLater(), 1), (RaisesLater(bad=True), 1), (RaisesForAll(), 1),
    ("ablationcam", stopping),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target"), BREAKING, ids=stable_id)
@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_is_left_of_a_method_that_raised(method: Any, target: Any, frozen: bool) -> None:
    """No hook, no gradient, no changed mode: the model trains on as if nothing had been asked."""
    net, inputs, _ = stage("gradcam")
    net.train()
    net.second.eval()
    net.first.weight.grad = torch.ones_like(net.first.weight)
    net.second.requires_grad_(not frozen)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    dicts = {name: set(module.__dict__) for name, module in net.named_modules()}
    with pytest.raises(Stop):
        explained(net, inputs, ["gradcam", method, "smooth(samples=2)"], ["first", "second"], target)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    for name, module in net.named_modules():
        assert module.training == (name != "second")
        assert not any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks))
        assert set(module.__dict__) == dicts[name]
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad == (not (frozen and name.startswith("second")))
        assert (parameter.grad is None) == (name != "first.weight")
    assert bool((net.first.weight.grad == 1).all())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    alike(explained(net, inputs, "gradcam", ["first", "end"]), as_it_is("gradcam"), 1e-12)
