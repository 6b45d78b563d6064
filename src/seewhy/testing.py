"""`check_method`: whether a method of your own keeps the contract, in one line of a test."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.engine.pipeline import explain
from seewhy.errors import MethodError
from seewhy.explanation.result import Explanation
from seewhy.methods.base import AnyMethod, MultiMapMethod, NetworkMethod
from seewhy.methods.parsing import as_methods
from seewhy.targets import ClassScore
from seewhy.tracing.torch_private import has_hooks

TOLERANCE = 1e-4  # of a map's own maximum: sums in another order, in float32
ROUNDING = 1e-6  # of scores of the size of 1


def check_method(method: Any, *, ordered_channels: bool = False) -> list[str]:
    """Run a method on small networks and hold it to its contract; gives the names of what was checked.

    `method` is a Method, SeveralMaps or NetworkMethod, or a name with settings. Checked: it is a frozen value that equals and
    hashes as its copy; each map has shape (B, *grid), the activations' device, float32 or wider, and finite numbers; the same
    again the second time; a batch is its pictures one by one, in any order; the model comes back bit for bit, in its mode,
    without hooks or gradients, also if it is frozen; in-place operations, modules called twice and 1-D and 3-D grids are no
    matter; the order of the channels is none (unless `ordered_channels` says that it is one). A network that the method says
    it does not fit (MethodError) is left out; it must fit one at least.

    Raises AssertionError that says which of these does not hold, on which network.

    >>> from seewhy.testing import check_method
    >>> "A batch is its pictures one by one" in check_method("gradcam")
    True
    """
    (found,) = as_methods(method).values()
    checked: list[str] = []
    is_value(found)
    checked.append("a frozen value")
    fitting = 0
    for name, build in NETWORKS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net, inputs, layers = build()
        try:
            e = run(found, net, inputs, layers)
        except MethodError:
            continue
        fitting += 1
        for check in (*EVERYWHERE, *(() if ordered_channels else (channels_in_any_order,))):
            try:
                check(found, net, inputs, layers, e)
            except AssertionError as error:
                raise AssertionError(f"{found} on {name}: {said(check)}: {error}") from error
            if said(check) not in checked:
                checked.append(said(check))
    assert fitting, f"{found}: it fits none of the networks {', '.join(NETWORKS)}"
    return checked


def run(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str]) -> Explanation:
    return explain(net, inputs, methods=method, layers=layers, targets=ClassScore(torch.arange(len(inputs)) % 3))


def said(check: Callable[..., None]) -> str:
    return (check.__doc__ or "").strip(" .")


def is_value(method: AnyMethod) -> None:
    other = copy.deepcopy(method)
    assert method == other and hash(method) == hash(other), f"{method} does not equal its copy, or not its hash"
    try:
        object.__getattribute__(type(method), "__setattr__")(method, "some_setting", 1)
    except AttributeError:
        pass
    else:
        raise AssertionError(f"{method} can be changed: make it a frozen dataclass")
    assert str(method) and "\n" not in str(method), "its string is one line"


# What is checked on every network


def shape_and_type(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """Shape, type, device, finite numbers."""
    assert e.maps, "it made no map"
    for (_, _, layer), maps in e.maps.items():
        assert len(maps) == len(inputs), f"{len(maps)} maps of {len(inputs)} pictures at {layer}"
        assert maps.dtype in (torch.float32, torch.float64), f"the map at {layer} is {maps.dtype}"
        assert maps.device == inputs.device, f"the map at {layer} is on {maps.device}"
        assert not maps.requires_grad, f"the map at {layer} hangs on a graph"
        assert bool(maps.isfinite().all()), f"the map at {layer} has numbers that are not finite"
        if isinstance(method, (NetworkMethod, MultiMapMethod)):
            continue
        grid, size = e.layer_info[layer].grid, tuple(inputs.shape[2:])
        assert tuple(maps.shape[1:]) in (grid, size), f"shape {tuple(maps.shape)} on the grid {grid} of {layer}"


def same_again(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """The same result twice, whatever the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        again = run(method, net, inputs, layers)
    for key, maps in e.maps.items():
        assert torch.equal(maps, again.maps[key]), f"another map at {key[2]} the second time"


def one_by_one(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """A batch is its pictures one by one."""
    for index in range(len(inputs)):
        target = ClassScore(index % 3)
        alone = explain(net, inputs[index : index + 1], methods=method, layers=layers, targets=target)
        for (name, _, layer), maps in e.maps.items():
            near(alone.map(method=name, layer=layer)[0], maps[index], f"picture {index} at {layer}")


def in_any_order(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """The order of the pictures is no matter."""
    classes = torch.arange(len(inputs)) % 3
    turned = explain(net, inputs.flip(0), methods=method, layers=layers, targets=ClassScore(classes.flip(0)))
    for (name, _, layer), maps in e.maps.items():
        near(turned.map(method=name, layer=layer).flip(0), maps, f"the reversed batch at {layer}")


def model_untouched(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """The model comes back bit for bit."""
    net.train()
    net.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    given = inputs.clone()
    run(method, net, inputs, layers)
    assert torch.equal(random, torch.get_rng_state()), "the global random state moved"
    assert torch.equal(given, inputs), "the inputs were changed"
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} was changed"
    for name, module in net.named_modules():
        assert module.training, f"{name or 'the model'} is no longer in training mode"
        assert not has_hooks(module), f"a hook was left on {name}"
    for name, parameter in net.named_parameters():
        assert parameter.grad is None, f"{name} got a gradient"
        assert parameter.requires_grad, f"{name} was frozen"
    net.eval()


def frozen_model(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """A frozen model, under no_grad, gives the same."""
    net.requires_grad_(False)
    with torch.no_grad():
        frozen = run(method, net, inputs, layers)
    net.requires_grad_(True)
    for key, maps in e.maps.items():
        near(frozen.maps[key], maps, f"the map of the frozen model at {key[2]}")


def channels_in_any_order(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """The order of the channels is no matter."""
    if not isinstance(net, Plain):
        return
    turned = run(method, net.with_channels_reversed(), inputs, layers)
    for key, maps in e.maps.items():
        near(turned.maps[key], maps, f"the map with the channels reversed at {key[2]}")


EVERYWHERE = (shape_and_type, same_again, one_by_one, in_any_order, model_untouched, frozen_model)


def near(found: Tensor, expected: Tensor, what: str) -> None:
    apart = float((found - expected).abs().amax())
    assert apart <= TOLERANCE * float(expected.abs().amax()) + ROUNDING, f"{what} differs by {apart:.3g}"


# Networks: each with inputs, and the layers to explain


class Plain(nn.Module):
    """Convolutions, ReLU in place, one module called twice, mean pooling, a linear head."""

    def __init__(self, dims: int, after: nn.Module | None = None) -> None:
        super().__init__()
        conv, pool, norm = KINDS[dims]
        self.first = conv(2, 6, 3, padding=1)
        self.norm = norm(6)
        self.relu = nn.ReLU(inplace=True)
        self.twice = conv(6, 6, 3, padding=1)
        self.last = conv(6, 6, 3, padding=1, stride=2)
        self.pool = after or pool(1)
        self.head = nn.Linear(6, 3) if after is None else nn.Linear(6 * 3**dims, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.twice(x))
        x = self.relu(self.twice(x))
        x = self.last(x)
        return self.head(self.pool(x).flatten(1))  # type: ignore[no-any-return]

    def with_channels_reversed(self) -> nn.Module:
        """The same function, with the channels of `last` in reverse."""
        other = copy.deepcopy(self)
        with torch.no_grad():
            other.last.weight.copy_(self.last.weight.flip(0))
            other.last.bias.copy_(self.last.bias.flip(0))
            cells = self.head.in_features // 6
            weight = self.head.weight.reshape(3, 6, cells).flip(1)
            other.head.weight.copy_(weight.reshape(3, -1))
        return other


class Tokens(nn.Module):
    """A small transformer with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.place = nn.Parameter(torch.randn(1, 13, 8))
        layers = [nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=True) for _ in range(3)]
        self.blocks = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])  # type: ignore[no-any-return]


KINDS: dict[int, tuple[Any, Any, Any]] = {
    1: (nn.Conv1d, nn.AdaptiveAvgPool1d, nn.BatchNorm1d),
    2: (nn.Conv2d, nn.AdaptiveAvgPool2d, nn.BatchNorm2d),
    3: (nn.Conv3d, nn.AdaptiveAvgPool3d, nn.BatchNorm3d),
}


def plain(dims: int, after: nn.Module | None = None) -> tuple[nn.Module, Tensor, list[str]]:
    net = Plain(dims, after).eval()
    net.norm.running_mean.add_(0.1 * torch.randn(6))
    inputs = torch.randn(3, 2, *[6] * dims)
    # A bias of its own for each class, or a score may be near 0, by which some methods divide.
    with torch.no_grad():
        net.head.bias.add_(torch.tensor([2.0, 3.0, 4.0]))
    return net, inputs, ["twice", "last"]


def pooled_from_last() -> tuple[nn.Module, Tensor, list[str]]:
    net, inputs, _ = plain(2)
    return net, inputs, ["last"]


def tokens() -> tuple[nn.Module, Tensor, list[str]]:
    return Tokens().eval(), torch.randn(3, 3, 12, 16), ["blocks.1", "blocks.2.norm1"]


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor, list[str]]]] = {
    "a network that ends in mean pooling": lambda: plain(2),
    "its last layer": pooled_from_last,
    "a network that ends in a flat layer": lambda: plain(2, nn.Tanh()),
    "a network of signals in time": lambda: plain(1),
    "a network of volumes": lambda: plain(3),
    "a transformer": tokens,
}
