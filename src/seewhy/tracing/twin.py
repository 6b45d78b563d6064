"""A twin of a model: new module objects that share its weights, so that the model itself is never touched.

Everything seewhy does to a model (eval mode, hooks, detached parameters) it does to a twin, which lives as long as one
call. The user's model needs no restoring after an exception, no lock between threads, and comes back bit for bit.
"""

from __future__ import annotations

import copy
import functools
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.lazy import LazyModuleMixin

from seewhy.errors import ModelError
from seewhy.tracing.memory_format import settle_layouts
from seewhy.tracing.single_input import SingleInputModel

# Values of these exact types can be shared as they are: they cannot be written to, and hold no module.
SHARED = frozenset(
    {bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, torch.Size}
    | {torch.memory_format, types.FunctionType, types.BuiltinFunctionType, torch.Generator}
)
HOOK_TABLES = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
# The backward hooks of a training run (logging, clipping) must not hear our backward pass.
DROPPED = ("_backward_hooks", "_backward_pre_hooks")
# What every module has, and a twin treats in its own way or, as a forward only reads it, shares.
HANDLED = {
    *HOOK_TABLES,
    *DROPPED,
    "_parameters",
    "_buffers",
    "_modules",
    "_non_persistent_buffers_set",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
}
# Recomputing in the backward pass calls modules twice and, when reentrant, hides their outputs from autograd.
CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing", "use_checkpoint", "with_cp", "memory_efficient")
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@dataclass(frozen=True)
class Kind:
    """What is known of a module's class, looked up once."""

    slots: tuple[str, ...]
    refused: str  # why it cannot be watched, or ""
    wrapper: bool
    lazy: bool
    norm: bool
    fused: bool


def make_twin(model: nn.Module) -> nn.Module:
    """A twin of `model` in eval mode: the same classes, names, hooks and weights, but no object that can be written to.

    Parameters are shared and detached (no gradient can reach them); BatchNorm statistics are shared (eval mode only reads
    them), other buffers and plain tensors are copied, as are lists, dicts and sets. Compiled modules and DataParallel
    wrappers are replaced by what they wrap. A reference that Python code cannot see (a closure over a module, a weak
    reference) still points to the original.

    Raises ModelError for what cannot be watched: TorchScript, uninitialised lazy modules, quantised modules.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    >>> other = make_twin(model)
    >>> other.training, model.training, other[0].weight.data_ptr() == model[0].weight.data_ptr()
    (False, True, True)
    """
    with torch.inference_mode(False), torch.no_grad():
        return _Copier().module(model)


def unwrapped(module: nn.Module) -> nn.Module:
    """What is inside torch.compile, DataParallel, DistributedDataParallel and `SingleInputModel`; other modules as they are."""
    while True:
        if "_orig_mod" in module._modules:
            inner = module._modules["_orig_mod"]
        elif isinstance(module, WRAPPERS):
            inner = module._modules["module"]
        elif isinstance(module, SingleInputModel):
            inner = module._modules["model"]
        else:
            return module
        assert inner is not None
        module = inner


class _Copier:
    """One walk over a model; `seen` (by id) keeps shared modules, tied weights and cycles what they are."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}

    def module(self, original: nn.Module) -> nn.Module:
        known: nn.Module | None = self.seen.get(id(original))
        if known is not None:
            return known
        cls: Any = type(original)
        kind = kind_of(cls)
        if kind.refused or (kind.lazy and cast(Any, original).has_uninitialized_params()):
            raise ModelError(
                cls.__name__, kind.refused or "this lazy module has no weights yet; run the model once first."
            )
        old = original.__dict__
        if kind.wrapper or "_orig_mod" in old["_modules"]:
            inner = self.seen[id(original)] = self.module(unwrapped(original))
            return inner
        new: nn.Module = object.__new__(cls)
        self.seen[id(original)] = new
        for slot in kind.slots:
            if hasattr(original, slot):
                object.__setattr__(new, slot, self.value(getattr(original, slot)))
        state = new.__dict__
        state.update(old)
        for name, value in old.items():
            if type(value) not in SHARED and name not in HANDLED:
                state[name] = self.value(value)
        if old["_parameters"]:
            state["_parameters"] = self.parameters(old["_parameters"])
        if old["_buffers"]:
            # BatchNorm only reads its statistics in eval mode, so they are shared; a model has a hundred of them.
            state["_buffers"] = self.parameters(old["_buffers"]) if kind.norm else self.mapping(old["_buffers"])
        if old["_modules"]:
            state["_modules"] = {
                key: child if child is None else self.module(child) for key, child in old["_modules"].items()
            }
        for name in HOOK_TABLES:
            table = old[name]
            state[name] = (
                OrderedDict((key, self.value(hook)) for key, hook in table.items()) if table else OrderedDict()
            )
        for name in DROPPED:
            state[name] = OrderedDict()
        for name in CHECKPOINTING:
            if state.get(name) is True:
                state[name] = False
        state["training"] = False
        state["_compiled_call_impl"] = None  # or the original's compiled forward would run
        if kind.fused:
            state["activation_relu_or_gelu"] = 0  # off the fused path, which never calls the modules inside
        if kind.norm:
            settle_layouts(new)
        return new

    def value(self, value: Any) -> Any:
        kind = type(value)
        if kind in SHARED:
            return value
        if id(value) in self.seen:
            return self.seen[id(value)]
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, nn.Parameter):
            return self.parameter(value)
        if isinstance(value, Tensor):
            return self.remember(value, value.detach().clone())
        if kind in CONTAINERS:
            return CONTAINERS[kind](self, value)
        if isinstance(value, tuple):  # named tuples
            return kind(*map(self.value, value))
        if kind is types.MethodType and isinstance(value.__self__, nn.Module):
            return types.MethodType(value.__func__, self.module(value.__self__))
        if kind is functools.partial:
            return self.partial(value)
        return value

    def parameter(self, value: Tensor) -> Tensor:
        known = self.seen.get(id(value))
        if known is None:
            # Tensors made under inference_mode can never be part of a graph.
            known = self.remember(value, value.detach().clone() if value.is_inference() else value.detach())
        return known  # type: ignore[no-any-return]

    def parameters(self, table: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        return {name: None if value is None else self.parameter(value) for name, value in table.items()}

    def partial(self, value: functools.partial[Any]) -> functools.partial[Any]:
        arguments = map(self.value, value.args)
        new = functools.partial(
            self.value(value.func), *arguments, **{k: self.value(v) for k, v in value.keywords.items()}
        )
        new.__dict__.update({name: self.value(item) for name, item in value.__dict__.items()})
        return new

    def tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        for item in value:
            if type(item) not in SHARED:
                return tuple(map(self.value, value))
        return value

    def sequence(self, value: Any) -> Any:
        new = self.remember(value, copy.copy(value))
        for index, item in enumerate(value):
            new[index] = self.value(item)
        return new

    def mapping(self, value: Any) -> Any:
        new = self.remember(value, copy.copy(value))
        for key, item in value.items():
            new[key] = self.value(item)
        return new

    def remember(self, original: Any, new: Any) -> Any:
        self.seen[id(original)] = new
        return new


CONTAINERS: dict[type, Callable[[_Copier, Any], Any]] = {
    list: _Copier.sequence,
    deque: _Copier.sequence,
    dict: _Copier.mapping,
    OrderedDict: _Copier.mapping,
    defaultdict: _Copier.mapping,
    tuple: _Copier.tuple,
    set: lambda copier, value: set(map(copier.value, value)),
}


@functools.cache
def kind_of(cls: Any) -> Kind:
    slots: list[str] = []
    for base in cls.__mro__:
        declared = base.__dict__.get("__slots__", ())
        slots += [declared] if isinstance(declared, str) else list(declared)
    refused = ""
    if issubclass(cls, torch.jit.ScriptModule):
        refused = "TorchScript cannot be watched; use the original Python model and its weights."
    elif cls.__module__.startswith("torch.") and "quantized" in cls.__module__:
        refused = "quantised modules have no gradients; explain the float model instead."
    return Kind(
        slots=tuple(name for name in slots if name not in ("__dict__", "__weakref__")),
        refused=refused,
        wrapper=issubclass(cls, WRAPPERS),
        lazy=issubclass(cls, LazyModuleMixin),
        norm=issubclass(cls, _NormBase),
        fused=issubclass(cls, nn.TransformerEncoderLayer),
    )


def find_module(model: nn.Module, name: str) -> nn.Module | None:
    """The module of that name ("layer4.1", or "relu#2" for its second call), as `named_modules` has it; None without."""
    module: nn.Module | None = unwrapped(model)
    for part in filter(None, name.partition("#")[0].split(".")):
        module = None if module is None else module._modules.get(part)
        module = None if module is None else unwrapped(module)
    return module


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) for everything inside `model`, with the names its twin has; the model itself is left out."""
    seen: set[int] = set()
    waiting = [("", model)]
    while waiting:  # depth first, so that a shared module has the name that torch gives it
        prefix, module = waiting.pop()
        if "_orig_mod" in module._modules or isinstance(module, (*WRAPPERS, SingleInputModel)):
            module = unwrapped(module)
        if id(module) in seen:
            continue
        seen.add(id(module))
        if prefix:
            yield prefix[:-1], module
        if module._modules:
            waiting += [
                (f"{prefix}{key}.", child) for key, child in reversed(module._modules.items()) if child is not None
            ]
