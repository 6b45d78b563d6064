"""Random networks with everything that makes recording difficult, and what each of their layers must give.

A network is a list of `Step`s. `Direct` runs it as PyTorch does: modules, in-place operations, views that share memory.
`Pure` runs the same steps without hooks and without any in-place operation: a `Cell` holds the current value of one piece of
memory, every value is a new tensor, and an in-place step replaces the value in the cell. `Pure` keeps the tensor that each
call of a module returned, so A is that tensor and G is `autograd.grad(score, tensor)`.

Operands are chosen by the numbers of a step among the values that fit, so every sublist of the steps is a network too. This
is how a failing network is made smaller (`shrink`).
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

CHANNELS, SIZE, CLASSES = 4, 12, 3
MAX_CHANNELS = 16


@dataclass(frozen=True)
class Step:
    """One step; `a` and `b` are random numbers that choose operands and settings, `inner` the steps of a block."""

    kind: str
    a: int = 0
    b: int = 0
    inner: tuple[Step, ...] = ()


# --- machines ---------------------------------------------------------------------------------------------------


class Direct:
    """Runs steps with real modules and real memory. Values are tensors."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def call(self, name: str, value: Any) -> Any:
        module = self.block.get_submodule(name)
        output = module(value)
        return first(output)

    def apply(self, function: Callable[..., Tensor], *values: Any) -> Any:
        return function(*values)

    def write(self, in_place: Callable[..., Tensor], pure: Callable[..., Tensor], value: Any, *others: Any) -> Any:
        return in_place(value, *others)

    def parts(self, value: Any, *, as_chunks: bool) -> list[Any]:
        half = (value.shape[1] + 1) // 2
        return list(value.chunk(2, 1)) if as_chunks else [value[:, :half], value[:, half:]]

    def without_gradient(self, name: str, value: Any) -> Any:
        with torch.no_grad():
            return self.call(name, value)

    def checkpointed(self, name: str, value: Any) -> Any:
        return first(checkpoint(self.block.get_submodule(name), value, use_reentrant=False))


@dataclass(eq=False)
class Cell:
    """One piece of memory. `read` caches its parts, so equal reads return the same tensor until the next write."""

    value: Tensor
    is_split: bool = False  # views of it were taken
    reads: dict[tuple[int, int], Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class View:
    """The channels `start` to `stop` of a cell."""

    cell: Cell
    start: int
    stop: int

    def read(self) -> Tensor:
        if (self.start, self.stop) == (0, self.cell.value.shape[1]):
            return self.cell.value
        key = (self.start, self.stop)
        if key not in self.cell.reads:
            self.cell.reads[key] = self.cell.value[:, self.start : self.stop].clone()
        return self.cell.reads[key]

    def write(self, new: Tensor) -> None:
        old = self.cell.value
        self.cell.value = torch.cat([old[:, : self.start], new, old[:, self.stop :]], 1)
        self.cell.reads.clear()
        if (self.start, self.stop) != (0, old.shape[1]):
            self.cell.reads[self.start, self.stop] = new


@dataclass(eq=False)
class Tap:
    """What one call of a module returned."""

    name: str
    number: int
    output: Tensor
    cell: Cell
    is_constant: bool = False  # under torch.no_grad


class Pure:
    """Runs steps without in-place operations. Values are `View`s; `taps` collects the outputs of modules."""

    def __init__(
        self, block: Block, prefix: str, taps: list[Tap], counts: Counter[str], is_constant: bool = False
    ) -> None:
        self.block, self.prefix, self.taps, self.counts, self.is_constant = block, prefix, taps, counts, is_constant

    def call(self, name: str, value: View) -> View:
        module = self.block.get_submodule(name)
        path = self.prefix + name
        if is_alias(module):
            result = value
        elif isinstance(module, Block):
            result = module.run(Pure(module, f"{path}.", self.taps, self.counts, self.is_constant), value)
        elif getattr(module, "inplace", False):
            result = self.write(None, self.plain(module), value)
        else:
            result = self.apply(module, value)
        self.counts[path] += 1
        output = result.read()
        self.taps.append(Tap(path, self.counts[path], output, result.cell, self.is_constant))
        return result

    def plain(self, module: nn.Module) -> nn.Module:
        if getattr(module, "inplace", False):
            module = copy.copy(module)
            module.inplace = False  # type: ignore[assignment]
        return module

    def apply(self, function: Callable[..., Tensor], *values: View) -> View:
        result = function(*(value.read() for value in values))
        return whole(result.detach() if self.is_constant else result)

    def write(self, in_place: Any, pure: Callable[..., Tensor], value: View, *others: View) -> View:
        old = value.read()
        new = pure(old, *(other.read() for other in others))
        if (
            self.is_constant
        ):  # without a graph, an in-place operation changes the value and leaves the gradient as it was
            new = old + (new - old).detach()
        value.write(new)
        return value

    def parts(self, value: View, *, as_chunks: bool) -> list[View]:
        value.cell.is_split = True
        middle = (value.start + value.stop + 1) // 2
        return [View(value.cell, value.start, middle), View(value.cell, middle, value.stop)]

    def without_gradient(self, name: str, value: View) -> View:
        inner = Pure(self.block, self.prefix, self.taps, self.counts, is_constant=True)
        return inner.call(name, value)

    def checkpointed(self, name: str, value: View) -> View:
        return self.call(name, value)


def whole(tensor: Tensor) -> View:
    return View(Cell(tensor), 0, tensor.shape[1])


def first(output: Any) -> Tensor:
    if isinstance(output, dict):
        output = output["out"]
    return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]


def is_alias(module: nn.Module) -> bool:
    return isinstance(module, (nn.Identity, nn.Dropout)) or (type(module) is nn.Sequential and not len(module))


# --- networks ---------------------------------------------------------------------------------------------------

Shape = tuple[int, int]  # channels, side

MODULES: dict[str, Callable[[int], nn.Module]] = {
    "conv": lambda c: nn.Conv2d(c, c, 3, padding=1),
    "pointwise": lambda c: nn.Conv2d(c, c, 1, bias=False),
    "depthwise": lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c),
    "weight_norm": lambda c: parametrizations.weight_norm(nn.Conv2d(c, c, 1)),
    "batch_norm": nn.BatchNorm2d,
    "group_norm": lambda c: nn.GroupNorm(2, c),
    "instance_norm": lambda c: nn.InstanceNorm2d(c, affine=True),
    "relu": lambda c: nn.ReLU(),
    "relu_in_place": lambda c: nn.ReLU(inplace=True),
    "leaky_in_place": lambda c: nn.LeakyReLU(0.2, inplace=True),
    "elu_in_place": lambda c: nn.ELU(inplace=True),
    "hardswish_in_place": lambda c: nn.Hardswish(inplace=True),
    "silu_in_place": lambda c: nn.SiLU(inplace=True),
    "silu": lambda c: nn.SiLU(),
    "gelu": lambda c: nn.GELU(),
    "tanh": lambda c: nn.Tanh(),
    "identity": lambda c: nn.Identity(),
    "empty": lambda c: nn.Sequential(),
    "dropout": lambda c: nn.Dropout(0.5),
}
RESIZING: dict[str, Callable[[int], nn.Module]] = {
    "stride": lambda c: nn.Conv2d(c, c, 3, stride=2, padding=1),
    "max_pool": lambda c: nn.MaxPool2d(2),
    "avg_pool": lambda c: nn.AvgPool2d(2, ceil_mode=True),
    "upsample": lambda c: nn.Upsample(scale_factor=2, mode="bilinear"),
    "transpose": lambda c: nn.ConvTranspose2d(c, c, 2, stride=2),
}
IN_PLACE: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "functional_relu_": (lambda x: F.relu(x, inplace=True), F.relu),
    "scale_": (lambda x: x.mul_(1.5), lambda x: x * 1.5),
    "sigmoid_": (Tensor.sigmoid_, torch.sigmoid),
    "exp_": (lambda x: x.clamp_(max=1).exp_(), lambda x: x.clamp(max=1).exp()),
}
PAIRS = ("add", "add_", "multiply", "multiply_", "cat")
BLOCKS = ("block", "residual", "pre_activation", "dict_block", "tuple_block", "checkpoint", "no_grad_gate")
OTHERS = ("chunk", "detach_gate", "reuse", "share", "fold", "excite", "jump")
KINDS = (*MODULES, *RESIZING, *IN_PLACE, *PAIRS, *BLOCKS, *OTHERS)
MAX_SIDE = 2 * SIZE


class Block(nn.Module):
    """Runs steps. `form` is what it returns: a tensor, a dict or a tuple; `skip` adds its input."""

    def __init__(self, steps: Sequence[Step], shape: Shape, form: str = "tensor", skip: str = "") -> None:
        super().__init__()
        self.form, self.skip = form, skip
        self.plan: list[tuple[Any, ...]] = []
        shapes: list[Shape] = [shape]
        for step in steps:
            self.compile(step, shapes)
        self.shape = shapes[-1]
        if skip:
            self.shortcut = nn.Sequential()
            if self.shape != shape:
                self.skip = ""

    def add(self, module: nn.Module) -> str:
        name = f"m{len(list(self.children()))}"
        self.add_module(name, module)
        return name

    def compile(self, step: Step, shapes: list[Shape]) -> None:
        """Add one step to the plan: (operation, operands, ...). Steps that fit no value are left out."""
        kind, source = step.kind, len(shapes) - 1 - step.a % min(3, len(shapes))  # mostly recent values
        shape = shapes[source]
        channels, side = shape
        if kind in MODULES or kind in RESIZING:
            if kind in RESIZING:
                side = {"upsample": 2 * side, "transpose": 2 * side}.get(kind, (side + 1) // 2)
                side = side // 1 if kind != "max_pool" else shape[1] // 2
                if not 3 <= side <= MAX_SIDE:
                    return
            self.plan.append(("call", self.add({**MODULES, **RESIZING}[kind](channels)), source))
            shapes.append((channels, side))
        elif kind in IN_PLACE:
            self.plan.append(("write", kind, source))
            shapes.append(shape)
        elif kind in PAIRS:
            others = [i for i, other in enumerate(shapes) if other == shape or (kind == "cat" and other[1] == side)]
            other = others[step.b % len(others)]
            new = channels + shapes[other][0] if kind == "cat" else channels
            if new <= MAX_CHANNELS:
                self.plan.append((kind, source, other))
                shapes.append((new, side))
        elif kind in BLOCKS:
            form = {"dict_block": "dict", "tuple_block": "tuple"}.get(kind, "tensor")
            skip = {"residual": "after", "pre_activation": "before"}.get(kind, "")
            steps = step.inner
            if kind == "checkpoint":
                steps = without_writes(steps)
            elif kind == "no_grad_gate":  # a block without steps returns its input, which has a gradient
                steps = (*steps, Step("pointwise"))
            inner = Block(steps, shape, form, skip)
            operation = {"checkpoint": "checkpoint", "no_grad_gate": "gate"}.get(kind, "call")
            if operation == "gate" and inner.shape != shape:
                return
            self.plan.append((operation, self.add(inner), source))
            shapes.append(inner.shape)
        elif kind == "chunk" and channels >= 4 and channels % 2 == 0:
            self.plan.append(("chunk", source, step.b % 4 == 0))
            shapes += [(channels // 2, side)] * 2
        elif kind == "detach_gate":
            self.plan.append(("detach_gate", self.add(nn.Conv2d(channels, channels, 1)), source))
            shapes.append(shape)
        elif kind in ("reuse", "share"):
            usable = [
                name
                for name, module in self.named_children()
                if type(module) is nn.Conv2d and module.in_channels == module.out_channels == channels
                and module.stride == (1, 1)
            ]  # fmt: skip
            if usable:
                name = usable[step.b % len(usable)]
                if kind == "share":
                    old = self.get_submodule(name)
                    assert isinstance(old, nn.Conv2d)
                    new = nn.Conv2d(channels, channels, old.kernel_size, 1, old.padding, groups=old.groups)
                    new.weight = old.weight
                    name = self.add(new)
                self.plan.append(("call", name, source))
                shapes.append(shape)
        elif kind == "fold" and channels % 2 == 0:
            self.plan.append(("fold", self.add(nn.Conv2d(channels // 2, channels // 2, 1)), source))
            shapes.append(shape)
        elif kind == "excite":
            self.plan.append(("excite", self.add(nn.Conv2d(channels, channels, 1)), source))
            shapes.append(shape)
        elif kind == "jump":
            self.plan.append(("jump", step.b % len(shapes)))
            shapes.append(shapes[step.b % len(shapes)])

    def run(self, m: Any, x: Any) -> Any:
        """Run the plan on a machine and return the last value."""
        shortcut = m.call("shortcut", x) if self.skip == "before" else None
        values = [x]
        for operation, *rest in self.plan:
            values += self.execute(m, operation, rest, values)
        result = values[-1]
        if self.skip == "before":
            return m.apply(torch.add, result, shortcut)
        if self.skip == "after":
            return m.apply(torch.add, result, m.call("shortcut", x))
        return result

    def execute(self, m: Any, operation: str, rest: list[Any], values: list[Any]) -> list[Any]:
        match operation:
            case "call":
                return [m.call(rest[0], values[rest[1]])]
            case "checkpoint":
                return [m.checkpointed(rest[0], values[rest[1]])]
            case "write":
                return [m.write(*IN_PLACE[rest[0]], values[rest[1]])]
            case "add" | "multiply":
                function = torch.add if operation == "add" else torch.mul
                return [m.apply(function, values[rest[0]], values[rest[1]])]
            case "add_":
                return [m.write(Tensor.add_, torch.add, values[rest[0]], values[rest[1]])]
            case "multiply_":
                return [m.write(Tensor.mul_, torch.mul, values[rest[0]], values[rest[1]])]
            case "cat":
                return [m.apply(lambda x, y: torch.cat([x, y], 1), values[rest[0]], values[rest[1]])]
            case "chunk":
                return m.parts(values[rest[0]], as_chunks=rest[1])  # type: ignore[no-any-return]
            case "gate":
                gate = m.without_gradient(rest[0], values[rest[1]])
                return [m.apply(lambda x, g: x * torch.sigmoid(g), values[rest[1]], gate)]
            case "detach_gate":
                gate = m.call(rest[0], m.apply(Tensor.detach, values[rest[1]]))
                return [m.apply(lambda x, g: x * torch.sigmoid(g), values[rest[1]], gate)]
            case "excite":
                gate = m.call(rest[0], m.apply(lambda x: x.mean((2, 3), keepdim=True), values[rest[1]]))
                return [m.apply(lambda x, g: x * torch.sigmoid(g), values[rest[1]], gate)]
            case "fold":
                folded = m.apply(lambda x: x.unflatten(1, (2, -1)).flatten(0, 1).clone(), values[rest[1]])
                result = m.call(rest[0], folded)
                return [m.apply(lambda y: y.unflatten(0, (-1, 2)).flatten(1, 2).clone(), result)]
        return [values[rest[0]]]  # jump

    def forward(self, x: Tensor) -> Any:
        output = self.run(Direct(self), x)
        if self.form == "dict":
            return {"out": output, "extra": None}
        return (output, None) if self.form == "tuple" else output


class RandomNetwork(nn.Module):
    """A stem, random steps, and a head (0: mean, 1: maximum, 2: all cells) with a linear layer."""

    def __init__(self, steps: Sequence[Step], head: int = 0, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.head_kind = head % 3
            self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
            self.body = Block(steps, (CHANNELS, SIZE))
            channels, side = self.body.shape
            self.fc = nn.Linear(channels * side * side if self.head_kind == 2 else channels, CLASSES)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    assert module.running_mean is not None and module.running_var is not None
                    module.running_mean.normal_()
                    module.running_var.uniform_(0.5, 2)
        self.eval().double()

    def pooled(self, x: Tensor) -> Tensor:
        return [x.mean((2, 3)), x.amax((2, 3)), x.flatten(1)][self.head_kind] if self.head_kind != 2 else x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pooled(self.body(self.stem(x))))  # type: ignore[no-any-return]

    def reference(self, x: Tensor) -> tuple[Tensor, list[Tap]]:
        """Return the output and the outputs of all calls, without hooks and in-place operations."""
        taps: list[Tap] = []
        counts: Counter[str] = Counter()
        stem = self.stem(x)
        if not stem.requires_grad:
            stem.requires_grad_()
        first = whole(stem)
        taps.append(Tap("stem", 1, stem, first.cell))
        last = self.body.run(Pure(self.body, "body.", taps, counts), first)
        body = last.read()
        taps.append(Tap("body", 1, body, last.cell))
        return self.fc(self.pooled(body)), taps


def without_writes(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps without those in place: PyTorch's checkpoint gives other gradients with them, and no error."""
    kept = [step for step in steps if not (step.kind in IN_PLACE or step.kind.endswith(("_in_place", "_")))]
    return tuple(Step(step.kind, step.a, step.b, without_writes(step.inner)) for step in kept)


def random_steps(rng: random.Random, count: int, depth: int = 0) -> tuple[Step, ...]:
    kinds = [kind for kind in KINDS if depth < 2 or kind not in BLOCKS]
    steps = []
    for _ in range(count):
        kind = rng.choice(kinds)
        inner = random_steps(rng, rng.randint(1, 4), depth + 1) if kind in BLOCKS else ()
        # Mostly the last value, so that networks are deep; sometimes an earlier one, so that branches appear.
        steps.append(Step(kind, rng.choice((0, 0, 0, 0, 1, 2)), rng.randrange(100), inner))
    return tuple(steps)


def random_network(seed: int) -> tuple[tuple[Step, ...], int]:
    """Return the steps and the head of a random network."""
    rng = random.Random(seed)
    return random_steps(rng, rng.randint(3, 12)), rng.randrange(3)


def shrink(steps: tuple[Step, ...], fails: Callable[[tuple[Step, ...]], bool]) -> tuple[Step, ...]:
    """Return a smaller list of steps that still fails: steps and inner steps are removed one by one while it fails."""
    changed = True
    while changed:
        changed = False
        for smaller in smaller_lists(steps):
            if fails(smaller):
                steps, changed = smaller, True
                break
    return steps


def smaller_lists(steps: tuple[Step, ...]) -> list[tuple[Step, ...]]:
    results = []
    for index, step in enumerate(steps):
        results.append((*steps[:index], *steps[index + 1 :]))
        if step.inner:
            results.append((*steps[:index], *step.inner, *steps[index + 1 :]))
            results += [
                (*steps[:index], Step(step.kind, step.a, step.b, inner), *steps[index + 1 :])
                for inner in smaller_lists(step.inner)
            ]
        if step.a:
            results.append((*steps[:index], Step(step.kind, 0, step.b, step.inner), *steps[index + 1 :]))
    return results
