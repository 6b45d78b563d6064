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
    example_for,
    explain_maps,
    maps_of_example,
)
from support.identity_maps import assert_all_maps_close
from support.parameters import stable_id


class PlannedError(Exception):
    """An exception that seewhy neither raises nor handles."""


@dataclass(frozen=True)
class RaisingMethod(Method):
    """A method that raises immediately, in the shared backward pass, or during another forward pass."""

    where: str = "at once"

    @property
    def needs(self) -> Need:  # type: ignore[override]
        return {"in curvature": Need.GRADIENTS | Need.CURVATURE, "at once": Need.GRADIENTS}.get(
            self.where, Need.GRADIENTS | Need.EVALUATOR
        )

    def __call__(self, signals: Signals) -> Tensor:
        def build(rows: slice) -> Tensor:
            raise PlannedError

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
        raise PlannedError


class RaisingVariant(Variant):
    """A variant that raises when its inputs are computed."""

    def __call__(self, inputs: Tensor) -> Tensor:
        raise PlannedError


@dataclass(frozen=True)
class RaisingVariantMethod(VariantMethod):
    """A method that raises after the first variant, or whose variant raises."""

    bad: bool = False
    needs = Need.GRADIENTS | Need.EVALUATOR

    def passes(self, signals: Signals) -> Generator[Variant, Signals, Tensor]:
        from seewhy.methods.variants import ScaledInputs

        yield RaisingVariant() if self.bad else ScaledInputs(0.5)
        raise PlannedError


@dataclass(frozen=True)
class RaisingNetworkMethod(NetworkMethod):
    """A method that raises while it visits the biases."""

    def __call__(self, signals: ModelSignals) -> Tensor:
        def consume(bias: Tensor, gradient: Tensor) -> None:
            raise PlannedError

        return signals.visit_biases(consume)


def raise_without_gradient(output: Tensor) -> Tensor:
    """Return the score in the recorded forward pass; raise in passes without gradient."""
    if not output.requires_grad:
        raise PlannedError
    return output[:, 0]


RAISING_CASES: list[tuple[Any, Any]] = [
    *((RaisingMethod(where), 1) for where in ("at once", "in curvature", "in inputs", "in activations", "after guided")),
    (RaisingMethod("after a score"), 1), (RaisingVariantMethod(), 1), (RaisingVariantMethod(bad=True), 1),
    (RaisingNetworkMethod(), 1),
    ("ablationcam", raise_without_gradient),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target"), RAISING_CASES, ids=stable_id)
@pytest.mark.parametrize("frozen", [False, True])
def test_model_is_unchanged_after_a_method_raises(method: Any, target: Any, frozen: bool) -> None:
    """No hook, gradient or mode remains changed, and the next call returns the same maps."""
    net, inputs, _ = example_for("gradcam")
    net.train()
    net.second.eval()
    net.first.weight.grad = torch.ones_like(net.first.weight)
    net.second.requires_grad_(not frozen)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    dicts = {name: set(module.__dict__) for name, module in net.named_modules()}
    with pytest.raises(PlannedError):
        explain_maps(net, inputs, ["gradcam", method, "smooth(samples=2)"], ["first", "second"], target)
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
    assert_all_maps_close(explain_maps(net, inputs, "gradcam", ["first", "end"]), maps_of_example("gradcam"), 1e-12)
