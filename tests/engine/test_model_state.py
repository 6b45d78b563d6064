"""`explain` does not change the model, its gradients, the inputs or the random state; frozen parts are supported."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError
from support.layers import is_same, small_network, snapshot_model
from support.maps import assert_equal_maps
from support.networks import (
    InplaceNet,
    tiny_network,
)

METHODS = ["gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "gradcamelementwise"]


def test_model_in_train_mode_is_explained_in_eval_mode() -> None:
    model = small_network()
    inputs = torch.rand(4, 3, 16, 16)
    expected = seewhy.explain(model.eval(), inputs, layers="every", targets=1)
    before = snapshot_model(model.train())
    assert_equal_maps(seewhy.explain(model, inputs, layers="every", targets=1), expected)
    assert is_same(snapshot_model(model), before)


def test_accumulated_gradients_are_kept() -> None:
    model = small_network().eval()
    inputs = torch.rand(2, 3, 16, 16)
    model(inputs).sum().backward()
    before = snapshot_model(model)
    seewhy.explain(model, inputs, layers="every")
    assert is_same(snapshot_model(model), before)


def test_graph_of_the_inputs_is_kept() -> None:
    model = small_network().eval()
    leaf = torch.rand(2, 3, 16, 16, requires_grad=True)
    (expected,) = torch.autograd.grad(model(leaf * 2).sum(), leaf)
    inputs = leaf * 2
    seewhy.explain(model, inputs, layers="every")
    assert leaf.grad is None
    model(inputs).sum().backward()  # fails if the graph was freed
    assert torch.equal(leaf.grad, expected)


class NormalizesInPlace(nn.Module):
    """A model that normalizes its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small_network()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.sub_(0.5))


def test_inputs_are_not_overwritten() -> None:
    inputs = torch.rand(2, 3, 16, 16)
    before = inputs.clone()
    model = NormalizesInPlace().eval()
    for layers in ("every", None):
        seewhy.explain(model, inputs, layers=layers)
    assert torch.equal(inputs, before)


class FailsWhenArmed(nn.Module):
    """Raises an error after five layers."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.body, self.error, self.armed = small_network(), error, False

    def forward(self, x: Tensor) -> Tensor:
        x = self.body[:5](x)
        if self.armed:
            raise self.error
        return self.body[5:](x)


@pytest.mark.parametrize("error", [IndexError("in the model"), KeyboardInterrupt()])
def test_model_is_unchanged_after_an_exception(error: BaseException) -> None:
    model = FailsWhenArmed(error)
    model.armed = True
    before = snapshot_model(model)
    with pytest.raises(type(error)):
        seewhy.explain(model, torch.rand(1, 3, 16, 16), layers="every")
    assert is_same(snapshot_model(model), before)
    assert torch.is_grad_enabled()


class Noisy(nn.Module):
    """A model that draws random numbers in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small_network()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x + torch.randn_like(x))


def test_random_state_is_restored() -> None:
    model, inputs = Noisy(), torch.rand(1, 3, 16, 16)
    before = torch.get_rng_state()
    seewhy.explain(model, inputs)
    assert torch.equal(torch.get_rng_state(), before)


class FrozenBackbone(nn.Module):
    """A common way to freeze a backbone: no_grad inside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = small_network()[:5], small_network()[5:]

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.backbone(x)
        return self.head(x)


def test_no_grad_inside_the_model() -> None:
    model = FrozenBackbone().eval()
    inputs = torch.rand(2, 3, 16, 16)
    e = seewhy.explain(model, inputs, layers="every", targets=1)
    plain = nn.Sequential(*model.backbone, *model.head)
    expected = seewhy.explain(plain, inputs, layers="every", targets=1)
    assert [f"backbone.{layer}" for layer in expected.layers] == list(e.layers)
    for layer in expected.layers:
        torch.testing.assert_close(e.map(layer=f"backbone.{layer}"), expected.map(layer=layer))
    assert seewhy.explain(model, inputs, targets=1).suggested == "backbone"


class FrozenInplace(nn.Module):
    """A convolution without gradients whose output is overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 5)
        self.frozen = True

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(not self.frozen):
            x = self.body(x)
        return self.head(x.square().mean((2, 3)))


def test_no_grad_with_in_place_layers() -> None:
    model, inputs = FrozenInplace().eval(), torch.randn(2, 3, 12, 12)
    first = seewhy.explain(model, inputs, methods=METHODS, layers="every", targets=1)
    model.frozen = False
    assert_equal_maps(first, seewhy.explain(copy.deepcopy(model), inputs, methods=METHODS, layers="every", targets=1))


class InferenceBackbone(FrozenBackbone):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            x = self.backbone(x)
        return self.head(x.clone())


def test_inference_mode_inside_the_model_is_refused() -> None:
    with pytest.raises(LayerError, match="inference mode"):
        seewhy.explain(InferenceBackbone(), torch.rand(1, 3, 16, 16), layers="every")


def test_no_tensors_are_leaked() -> None:
    """The graph of a call is freed by reference counts, without the garbage collector."""
    net, inputs = tiny_network(InplaceNet)
    seewhy.explain(net, inputs, methods=METHODS, layers="every")
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(item), Tensor) for item in gc.get_objects())
        for _ in range(20):
            seewhy.explain(net, inputs, methods=METHODS, layers="every")
        after = sum(issubclass(type(item), Tensor) for item in gc.get_objects())
    finally:
        gc.enable()
    assert after <= before
