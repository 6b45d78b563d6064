"""Models whose forward hooks or functions refer to the model, and kinds of models that have no maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import ModelError, TargetError

activations: dict[str, Tensor] = {}


def keep_activation(name: str) -> Any:
    """As in MiDaS and DPT: a hook that stores features in a global dict."""

    def hook(module: nn.Module, args: object, output: Tensor) -> None:
        activations[name] = output

    return hook


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.deep = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.deep(self.cnn(x).relu())
        return self.fc(torch.cat([value.relu().mean((2, 3)) for value in self.features().values()], 1))  # type: ignore[no-any-return]

    def features(self) -> dict[str, Tensor]:
        raise NotImplementedError


class WithGlobal(Backbone):
    def __init__(self) -> None:
        super().__init__()
        activations.clear()
        self.stored = activations
        for name in ("cnn", "deep"):
            getattr(self, name).register_forward_hook(keep_activation(name))

    def features(self) -> dict[str, Tensor]:
        return self.stored


class WithClosure(Backbone):
    def __init__(self) -> None:
        super().__init__()
        stored: dict[str, Tensor] = {}
        self.stored = stored
        for name in ("cnn", "deep"):

            def hook(module: nn.Module, args: object, output: Tensor, name: str = name) -> None:
                stored[name] = output

            getattr(self, name).register_forward_hook(hook)

    def features(self) -> dict[str, Tensor]:
        return self.stored


class WithItself(Backbone):
    """Hooks that write to attributes of the model, and a function as an attribute that calls a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, Tensor] = {}
        self.cnn.register_forward_hook(lambda module, args, output: self.last.__setitem__("cnn", output))
        self.deep.register_forward_hook(lambda module, args, output: self.last.__setitem__("deep", output))
        self.scale = lambda x: self.cnn.weight.abs().mean() * x

    def features(self) -> dict[str, Tensor]:
        return {name: self.scale(value) for name, value in self.last.items()}


@pytest.mark.parametrize("kind", [WithGlobal, WithClosure, WithItself])
@pytest.mark.parametrize("method", ["gradcam", "scorecam", "eigencam", "ablationcam"])
def test_hooks_that_store_features(kind: type[Backbone], method: str) -> None:
    net = kind().double().eval()
    for seed in range(3):
        inputs = torch.randn(2, 3, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        e = seewhy.explain(net, inputs, methods=method, layers=["cnn", "deep"], targets=1)
        expected = net(inputs)
        assert torch.allclose(e.logits, expected.detach())  # type: ignore[arg-type]
        if method == "gradcam":
            features = net.features()["deep"] if kind is not WithItself else net.last["deep"]  # type: ignore[index, operator]
            (gradient,) = torch.autograd.grad(expected[:, 1].sum(), features)
            assert torch.allclose(e.map(layer="deep"), (gradient.mean((2, 3), keepdim=True) * features).sum(1).detach())
    stored = dict(net.stored) if kind is not WithItself else dict(net.last)  # type: ignore[arg-type, call-overload]
    seewhy.explain(net, inputs, methods=method, layers="cnn", targets=1)
    now = net.stored if kind is not WithItself else net.last
    assert all(now[name] is value for name, value in stored.items())  # type: ignore[index]


def test_a_first_call_without_features() -> None:
    e = seewhy.explain(WithClosure().eval(), torch.randn(1, 3, 12, 10))
    assert e.layers


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, torch.randn(1, 3, 12, 10))])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript_is_refused_in_one_line(make: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    scripted = make(net)
    for model in (scripted, nn.Sequential(scripted, nn.Identity())):
        with pytest.raises(ModelError, match="TorchScript does not support hooks"):
            seewhy.explain(model, torch.randn(1, 3, 12, 10))


def test_complex_outputs_are_refused_in_one_line() -> None:
    class Spectrum(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft(super().forward(x))

    net = Spectrum(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(TargetError, match="not class scores"):
        seewhy.explain(net, torch.randn(1, 3, 12, 10))
    assert seewhy.explain(net, torch.randn(1, 3, 12, 10), targets=lambda output: output[:, 1].abs()).map().shape


def test_functions_as_targets_do_not_share_a_suggested_layer() -> None:
    """Python gives a new function the address of one that is gone."""

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.early, self.late, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            first = self.early(x).relu()
            return {"early": self.fc(first.mean((2, 3))), "late": self.fc(self.late(first).relu().mean((2, 3)))}

    net, inputs = TwoHeads().eval(), torch.randn(1, 3, 12, 10)
    for _ in range(6):
        for head in ("early", "late"):
            e = seewhy.explain(net, inputs, targets=lambda output, head=head: output[head][:, 0])
            assert e.layers == (head,)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: (y.square().mean(), y),
        lambda y: (y.argmax(1), y.softmax(1).log()),
        lambda y: {"pred": y.argmax(1), "prob": y},
        lambda y: {"embedding": y.repeat(1, 3), "scores": y},
        lambda y: {"loss": y.mean(), "logits": y},
    ],
)
def test_class_scores_behind_other_values(wrap: Any) -> None:
    class Wrapped(nn.Sequential):
        def forward(self, x: Tensor) -> Any:
            return wrap(super().forward(x))

    net = Wrapped(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    for images in (1, 2):
        inputs = torch.randn(images, 3, 12, 10)
        expected = nn.Sequential.forward(net, inputs).detach().argmax(1)
        assert torch.equal(seewhy.explain(net, inputs).target_results[0].classes, expected)  # type: ignore[arg-type]


last_output: Tensor


class WithVariable(nn.Module):
    """The hook stores its output in a global variable, and names the model, which is one as well."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fc, self.scale = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        self.cnn(x)
        return self.fc(last_output.relu().mean((2, 3)))  # type: ignore[no-any-return]


global_model = WithVariable().double().eval()


def store_globally(module: nn.Module, args: object, output: Tensor) -> None:
    global last_output
    last_output = output * global_model.scale


global_model.cnn.register_forward_hook(store_globally)


@pytest.mark.parametrize("method", ["gradcam", "eigencam", "ablationcam"])
def test_a_hook_that_stores_in_a_global_variable(method: str) -> None:
    for seed in range(3):
        inputs = torch.randn(1, 3, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        e = seewhy.explain(global_model, inputs, methods=method, layers="cnn", targets=1)
        assert torch.allclose(e.logits, global_model(inputs).detach())  # type: ignore[arg-type]


def plain_network() -> nn.Sequential:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
        .double()
        .eval()
    )


def wrapped_method(net: nn.Sequential) -> None:
    original = net.forward
    net.forward = lambda x: original(x) * 2  # type: ignore[method-assign]


def named_in_a_closure(net: nn.Sequential) -> None:
    net.forward = lambda x: net[4](net[3](net[2](net[1](net[0](x)))))  # type: ignore[method-assign]


def listed_in_a_closure(net: nn.Sequential) -> None:
    layers = list(net)

    def forward(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    net.forward = forward  # type: ignore[method-assign]


def default_argument(net: nn.Sequential) -> None:
    net.forward = lambda x, body=net[:4], head=net[4]: head(body(x))  # type: ignore[method-assign, misc]


@pytest.mark.parametrize("patch", [wrapped_method, named_in_a_closure, listed_in_a_closure, default_argument])
def test_a_replaced_forward(patch: Any) -> None:
    net, inputs = plain_network(), torch.randn(2, 3, 12, 10, dtype=torch.float64)
    patch(net)
    e = seewhy.explain(net, inputs, layers="0", targets=1)
    kept: list[Tensor] = []
    handle = net[0].register_forward_hook(lambda module, args, output: kept.append(output))
    score = net(inputs)[:, 1].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    assert torch.allclose(e.map(), (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).detach())
