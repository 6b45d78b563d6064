"""Recording changes nothing that the network computes, and a map does not depend on what else is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy.errors import LayerError

INPUTS = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class PreActivation(nn.Module):
    """An in-place activation changes the tensor that a shortcut passed on before."""

    def __init__(self, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.shortcut, self.act = nn.Conv2d(3, 8, 3), shortcut, activation
        self.conv, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        shortcut = self.shortcut(x)
        return self.fc((self.conv(self.act(x)) + shortcut).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "shortcut",
    [nn.Sequential(), nn.Identity(), nn.Dropout(), nn.Sequential(nn.Identity()), nn.Sequential(nn.Dropout2d())],
)
@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.ELU(inplace=True), nn.SiLU(inplace=True)])
@pytest.mark.parametrize("layers", ["all", "shortcut", ["shortcut", "act"], ["shortcut", "conv"]])
def test_shortcuts_that_return_their_input(shortcut: nn.Module, activation: nn.Module, layers: Any) -> None:
    net = PreActivation(shortcut, activation).double().eval()
    e = seewhy.explain(net, INPUTS, methods=["hirescam", "gradcam"], layers=layers, targets=1)
    assert e.logits is not None
    torch.testing.assert_close(e.logits, net(INPUTS), rtol=1e-12, atol=1e-12)
    stem = net.stem(INPUTS).detach().requires_grad_()
    rectified = net.act(stem.clone())  # both the convolution and the sum read it
    score = net.fc((net.conv(rectified) + rectified).mean((2, 3)))[:, 1].sum()
    (gradient,) = torch.autograd.grad(score, stem)
    torch.testing.assert_close(e.map(method="hirescam", layer="shortcut"), (gradient * stem).sum(1).detach())


class Gated(nn.Module):
    """A gate that PyTorch does not differentiate."""

    def __init__(self, compute: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.gate, self.fc = (
            nn.Conv2d(3, 8, 3),
            nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()),
            nn.Linear(8, 5),
        )
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc((x * torch.sigmoid(self.compute(self.gate, x))).mean((2, 3)))  # type: ignore[no-any-return]


def under_no_grad(gate: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return gate(x)  # type: ignore[no-any-return]


def under_set_grad_enabled(gate: nn.Module, x: Tensor) -> Tensor:
    with torch.set_grad_enabled(False):
        return gate(x)  # type: ignore[no-any-return]


@torch.no_grad()
def decorated(gate: nn.Module, x: Tensor) -> Tensor:
    return gate(x)  # type: ignore[no-any-return]


def detached_after(gate: nn.Module, x: Tensor) -> Tensor:
    return gate(x).detach()  # type: ignore[no-any-return]


def detached_before(gate: nn.Module, x: Tensor) -> Tensor:
    return gate(x.detach())  # type: ignore[no-any-return]


def thresholded(gate: nn.Module, x: Tensor) -> Tensor:
    return (gate(x) > 0.3).to(x.dtype)  # type: ignore[no-any-return]


def functional(gate: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return F.relu(F.conv2d(x, gate[0].weight, gate[0].bias))  # type: ignore[index]


COMPUTATIONS = (
    under_no_grad,
    under_set_grad_enabled,
    decorated,
    detached_after,
    detached_before,
    thresholded,
    functional,
)


@pytest.mark.parametrize("compute", COMPUTATIONS)
def test_a_gate_without_gradient_is_a_constant_whatever_is_selected(
    compute: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    stem = Gated(compute).double().stem(INPUTS).detach().requires_grad_()
    reference = Gated(compute).double().eval()
    gate = compute(reference.gate, stem).detach()
    score = reference.fc((stem * torch.sigmoid(gate)).mean((2, 3)))[:, 1].sum()
    expected = (torch.autograd.grad(score, stem)[0] * stem).sum(1).detach()
    used = [] if compute is functional else [["stem", "gate"], ["stem", "gate.0"], ["stem", "gate.1"]]
    for layers in (["stem"], "all", "convs", *used):
        net = Gated(compute).double().eval()
        try:
            e = seewhy.explain(net, INPUTS, methods="hirescam", layers=layers, targets=1)
        except LayerError as error:  # a layer before detach: no gradient reaches it
            assert compute in (detached_after, thresholded) and "no gradient reaches it" in str(error)
            continue
        torch.testing.assert_close(e.map(layer="stem"), expected)


def test_a_layer_under_no_grad_is_named_in_a_note_or_an_error() -> None:
    net = Gated(under_no_grad).double().eval()
    e = seewhy.explain(net, INPUTS, layers=["stem", "gate"], targets=1)
    assert e.layers == ("stem",) and any("torch.no_grad" in note and "gate" in note for note in e.notes)
    with pytest.raises(LayerError, match=r"under torch\.no_grad.*eigencam"):
        seewhy.explain(net, INPUTS, layers="gate", targets=1)
    assert seewhy.explain(net, INPUTS, methods="eigencam", layers="gate", targets=1).layers == ("gate",)


class Frozen(nn.Module):
    """A frozen backbone; its output is then changed in place."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 8, 3), nn.Sigmoid())
        self.fc, self.change, self.frozen = nn.Linear(8, 5), change, True

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(not self.frozen):
            x = self.backbone(x)
        return self.fc(self.change(x).mean((2, 3)))  # type: ignore[no-any-return]


CHANGES: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
    (lambda x: x.mul_(2), lambda x: x * 2),
    (lambda x: F.relu(x.sub_(0.4), inplace=True), lambda x: F.relu(x - 0.4)),
    (lambda x: x.add_(x), lambda x: x + x),
    (lambda x: x.exp_().mul_(x), lambda x: x.exp() * x.exp()),
    (lambda x: x.mul_(x), lambda x: x * x),
]


@pytest.mark.parametrize(("change", "pure_change"), CHANGES, ids=["mul_", "relu_", "add_", "exp_", "square"])
def test_in_place_operations_on_values_that_the_gradient_needs(
    change: Callable[[Tensor], Tensor], pure_change: Callable[[Tensor], Tensor]
) -> None:
    """Plain PyTorch raises an error here as soon as the backbone has gradients: a sigmoid saves its output."""
    net = Frozen(change).double().eval()
    pure = net.backbone
    first = pure[0](INPUTS).detach().requires_grad_()
    changed = pure_change(pure[3](pure[2](pure[1](first))))
    (gradient,) = torch.autograd.grad(net.fc(changed.mean((2, 3)))[:, 1].sum(), first)
    for layers in ("backbone.0", "every", "all"):
        e = seewhy.explain(net, INPUTS, methods="hirescam", layers=layers, targets=1)
        torch.testing.assert_close(e.map(layer="backbone.0"), (gradient * first).sum(1).detach())
    assert seewhy.explain(net, INPUTS, targets=1).layers == ("backbone",)


def test_the_uses_of_a_returned_tensor_are_those_of_the_tensor() -> None:
    """y.add_(x) with x = Identity(y) is y + y: the map of the identity is that of y, twice the gradient of the sum."""

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.same, self.fc = nn.Conv2d(3, 8, 3), nn.Identity(), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            y.add_(self.same(y))
            return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]

    net = Doubled().double().eval()
    y = net.conv(INPUTS).detach()
    expected = 2 * (net.fc.weight[1].detach()[:, None, None] * y).sum(1) / y[0, 0].numel()
    for layers in ("same", "conv", ["conv", "same"], "all"):
        e = seewhy.explain(net, INPUTS, methods="hirescam", layers=layers, targets=1)
        for layer in e.layers:
            torch.testing.assert_close(e.map(layer=layer), expected)


@pytest.mark.parametrize("method", ["gradcam", "fullgrad", "guidedgradcam"])
@pytest.mark.parametrize("layers", ["suggested", "0", "all"])
def test_forward_hooks_of_the_user_may_register_tensor_hooks(method: str, layers: str) -> None:
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *head).eval()
    inputs, seen = torch.randn(1, 3, 16, 16), list[Tensor]()
    plain = seewhy.explain(net, inputs, methods=method, targets=1, layers=layers)

    def hook(module: nn.Module, args: object, output: Tensor) -> None:
        output.register_hook(seen.append)  # fails for a tensor without a graph

    net[0].register_forward_hook(hook)
    e = seewhy.explain(net, inputs, methods=method, targets=1, layers=layers)
    assert all(torch.allclose(maps, plain.maps[key]) for key, maps in e.maps.items())


class NotDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return None


class RoundedBranch(nn.Module):
    """Two branches, of which one is rounded by a function without a gradient."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hard, self.soft, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc((NotDifferentiable.apply(self.hard(x)) + self.soft(x)).relu().mean((2, 3)))


def test_a_function_whose_backward_returns_none():
    net, inputs = RoundedBranch().eval(), torch.randn(1, 3, 16, 16)
    assert seewhy.explain(net, inputs, targets=1).layers == ("soft",)
    e = seewhy.explain(net, inputs, targets=1, layers="all")
    assert e.layers == ("soft",) and any("no target depends on them: hard" in note for note in e.notes)
    with pytest.raises(seewhy.errors.LayerError, match="no gradient reaches it"):
        seewhy.explain(net, inputs, targets=1, layers="hard")


class FrozenPart(nn.Module):
    """A frozen stem, whose features are passed on by `pass_on`."""

    def __init__(self, pass_on):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.cnn, self.fc, self.pass_on = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 5), pass_on

    def forward(self, x):
        with torch.no_grad():
            features = self.pass_on(self.stem(x))
        return self.fc(self.cnn(features).relu().mean((2, 3)))


def test_features_that_require_a_gradient_behind_a_frozen_part():
    """As for feature attribution: the graph starts at the features, so the output has one, but none to the input."""
    net, inputs = FrozenPart(lambda features: features.requires_grad_(True)).eval(), torch.randn(1, 3, 16, 16)
    plain = FrozenPart(lambda features: features).eval()
    for layers in ("suggested", "all", "stem", "cnn"):
        got, want = (seewhy.explain(one, inputs, layers=layers, targets=1) for one in (net, plain))
        assert got.layers == want.layers
        for layer in got.layers:
            assert torch.equal(got.map(layer=layer), want.map(layer=layer))


def test_numpy_in_a_frozen_part():
    """Its tensors cannot have gradients, so the frozen part stays a constant."""
    net, inputs = FrozenPart(lambda features: torch.from_numpy(features.numpy() * 2)).eval(), torch.randn(1, 3, 16, 16)
    plain = FrozenPart(lambda features: features * 2).eval()
    want = seewhy.explain(plain, inputs, layers="cnn", targets=1).map()
    for layers in ("cnn", "all"):
        e = seewhy.explain(net, inputs, layers=layers, targets=1)
        assert e.layers == ("cnn",) and torch.equal(e.map(), want)
    with pytest.raises(seewhy.errors.LayerError, match=r"under torch\.no_grad"):
        seewhy.explain(net, inputs, layers="stem", targets=1)
    with pytest.raises(seewhy.SeewhyError, match="forward fails on inputs"):
        seewhy.explain(net, inputs[:, :2], layers="cnn", targets=1)


class InferenceGate(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.gate, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1), nn.Linear(8, 5)

    def forward(self, x):
        features = self.cnn(x)
        with torch.inference_mode():
            gate = (self.gate(features) > 0).float()
        return self.fc((features * gate.clone()).relu().mean((2, 3)))


def test_a_gate_in_inference_mode_is_skipped():
    net, inputs = InferenceGate().eval(), torch.randn(1, 3, 16, 16)
    want = seewhy.explain(net, inputs, layers="cnn", targets=1).map()
    for layers in ("suggested", "all"):
        e = seewhy.explain(net, inputs, layers=layers, targets=1)
        assert e.layers == ("cnn",) and torch.equal(e.map(), want)
    with pytest.raises(seewhy.errors.LayerError, match="inference mode"):
        seewhy.explain(net, inputs, layers="gate", targets=1)
