"""`check_method`: test in one line that your own method keeps its contract."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.engine.explain import explain
from seewhy.errors import MethodError
from seewhy.explanation.result import Explanation
from seewhy.methods.base import AnyMethod, MultiMapMethod, NetworkMethod
from seewhy.methods.parsing import as_methods
from seewhy.targets import ClassScore
from seewhy.tracing.torch_private import has_hooks

TOLERANCE = 1e-4  # of a map's own maximum, for float32 sums in another order
ROUNDING = 1e-6  # for scores of magnitude 1


def check_method(
    method: str | AnyMethod, *, supports: Collection[str] = (), ordered_channels: bool = False
) -> list[str]:
    """Run a method on small networks and check its contract.

    The checks: the method is a frozen value that equals its copy. Maps have shape `(B, *grid)`, float32 or float64, and
    finite values. Results are reproducible, and independent of the batch and of the order of images and channels. The
    model is unchanged afterwards. The networks include in-place operations, a module that is called twice, 1-D and 3-D
    grids, and a transformer. Networks for which the method raises MethodError are skipped; at least one must be supported.

    Args:
        method: A `Method`, `MultiMapMethod` or `NetworkMethod`, or a name with settings.
        supports: Names in `NETWORKS` that the method must support. Without it, a method that stops supporting a network
            still passes if it supports another.
        ordered_channels: The result depends on the order of the channels (groups of channels, random weights).

    Returns:
        The descriptions of the checks that ran.

    Raises:
        AssertionError: A check failed; the message names the check and the network.

    Example:
        >>> from seewhy.testing import check_method
        >>> "A batch gives the maps of its images" in check_method("gradcam", supports=["pooled", "volumes"])
        True
    """
    (instance,) = as_methods(method).values()
    unknown = set(supports) - set(NETWORKS)
    assert not unknown, f"supports={sorted(unknown)}: the networks are {', '.join(NETWORKS)}"
    check_is_value(instance)
    descriptions = ["a frozen value"]
    checks = (*CHECKS, *(() if ordered_channels else (channels_in_any_order,)))
    reasons: dict[str, str] = {}
    for name, build in NETWORKS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net, inputs, layers = build()
        try:
            e = run(instance, net, inputs, layers)
        except MethodError as error:
            reasons[name] = error.reason
            continue
        for check in checks:
            description = (check.__doc__ or "").strip(" .")
            try:
                check(instance, net, inputs, layers, e)
            except AssertionError as error:
                raise AssertionError(f"{instance} on network '{name}': {description}: {error}") from error
            if description not in descriptions:
                descriptions.append(description)
    for name in supports:
        assert name not in reasons, f"{instance}: it must support network '{name}', but: {reasons[name]}"
    assert len(reasons) < len(NETWORKS), f"{instance}: it supports no network: {reasons}"
    return descriptions


def run(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str]) -> Explanation:
    return explain(net, inputs, methods=method, layers=layers, targets=ClassScore(torch.arange(len(inputs)) % 3))


def check_is_value(method: AnyMethod) -> None:
    """Check that a method is immutable, and equal to its copy."""
    other = copy.deepcopy(method)
    assert method == other and hash(method) == hash(other), f"{method} does not equal its copy, or has another hash"
    try:
        object.__getattribute__(type(method), "__setattr__")(method, "some_setting", 1)
    except AttributeError:
        pass
    else:
        raise AssertionError(f"{method} is mutable: make it a frozen dataclass")
    assert str(method) and "\n" not in str(method), "its string must be one line"


# Checks on every network


def shape_and_type(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """Shape, type, device, finite numbers."""
    assert e.maps, "it returned no map"
    for (_, _, layer), maps in e.maps.items():
        assert len(maps) == len(inputs), f"{len(maps)} maps of {len(inputs)} images at {layer}"
        assert maps.dtype in (torch.float32, torch.float64), f"the map at {layer} is {maps.dtype}"
        assert maps.device == inputs.device, f"the map at {layer} is on {maps.device}"
        assert not maps.requires_grad, f"the map at {layer} has a graph"
        assert bool(maps.isfinite().all()), f"the map at {layer} has values that are not finite"
        if isinstance(method, (NetworkMethod, MultiMapMethod)):
            continue
        grid, size = e.layer_info[layer].grid, tuple(inputs.shape[2:])
        assert tuple(maps.shape[1:]) in (grid, size), f"shape {tuple(maps.shape)} on the grid {grid} of {layer}"


def same_again(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """The same result twice, independent of the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        again = run(method, net, inputs, layers)
    for key, maps in e.maps.items():
        assert torch.equal(maps, again.maps[key]), f"the map at {key[2]} differs the second time"


def one_by_one(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """A batch gives the maps of its images."""
    for index in range(len(inputs)):
        target = ClassScore(index % 3)
        single = explain(net, inputs[index : index + 1], methods=method, layers=layers, targets=target)
        for (name, _, layer), maps in e.maps.items():
            near(single.map(method=name, layer=layer)[0], maps[index], f"image {index} at {layer}")


def in_any_order(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """The order of the images has no effect."""
    classes = torch.arange(len(inputs)) % 3
    reordered = explain(net, inputs.flip(0), methods=method, layers=layers, targets=ClassScore(classes.flip(0)))
    for (name, _, layer), maps in e.maps.items():
        near(reordered.map(method=name, layer=layer).flip(0), maps, f"the reversed batch at {layer}")


def model_untouched(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """The model is unchanged, bit for bit."""
    net.train()
    net.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    original = inputs.clone()
    run(method, net, inputs, layers)
    assert torch.equal(random, torch.get_rng_state()), "the global random state changed"
    assert torch.equal(original, inputs), "the inputs were changed"
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} was changed"
    for name, module in net.named_modules():
        assert module.training, f"{name or 'the model'} left training mode"
        assert not has_hooks(module), f"a hook remains on {name}"
    for name, parameter in net.named_parameters():
        assert parameter.grad is None, f"{name} got a gradient"
        assert parameter.requires_grad, f"{name} was frozen"
    net.eval()


def frozen_model(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """A frozen model under no_grad gives the same maps."""
    net.requires_grad_(False)
    with torch.no_grad():
        frozen = run(method, net, inputs, layers)
    net.requires_grad_(True)
    for key, maps in e.maps.items():
        near(frozen.maps[key], maps, f"the map of the frozen model at {key[2]}")


def channels_in_any_order(method: AnyMethod, net: nn.Module, inputs: Tensor, layers: list[str], e: Explanation) -> None:
    """The order of the channels has no effect."""
    if not isinstance(net, Plain):
        return
    reordered = run(method, net.with_channels_reversed(), inputs, layers)
    for key, maps in e.maps.items():
        near(reordered.maps[key], maps, f"the map with the channels reversed at {key[2]}")


CHECKS = (shape_and_type, same_again, one_by_one, in_any_order, model_untouched, frozen_model)


def near(actual: Tensor, expected: Tensor, name: str) -> None:
    difference = float((actual - expected).abs().amax())
    assert difference <= TOLERANCE * float(expected.abs().amax()) + ROUNDING, f"{name} differs by {difference:.3g}"


# Networks, each with inputs and the layers to explain


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
        """Return the same function with the channels of `last` reversed."""
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
    # Distinct biases keep the scores away from 0: some methods divide by them.
    with torch.no_grad():
        net.head.bias.add_(torch.tensor([2.0, 3.0, 4.0]))
    return net, inputs, ["twice", "last"]


def pooled_from_last() -> tuple[nn.Module, Tensor, list[str]]:
    net, inputs, _ = plain(2)
    return net, inputs, ["last"]


def tokens() -> tuple[nn.Module, Tensor, list[str]]:
    return Tokens().eval(), torch.randn(3, 3, 12, 16), ["blocks.1", "blocks.2.norm1"]


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor, list[str]]]] = {
    "pooled": lambda: plain(2),  # mean pooling and a linear head
    "last_layer": pooled_from_last,  # only the layer before the pooling
    "flat": lambda: plain(2, nn.Tanh()),  # a linear head on all cells
    "signals": lambda: plain(1),
    "volumes": lambda: plain(3),
    "transformer": tokens,
}
