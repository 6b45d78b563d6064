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
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedTensorMixin

from seewhy.errors import ModelError

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
# Tables that a forward only reads.
READ_ONLY = (
    "_non_persistent_buffers_set",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
# A training run's backward hooks (logging, clipping) must not see our backward pass.
DROPPED = ("_backward_hooks", "_backward_pre_hooks")
# Recomputing in the backward pass calls modules twice and, when reentrant, hides their outputs from autograd.
CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing", "use_checkpoint", "with_cp", "memory_efficient")
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def twin(model: nn.Module) -> nn.Module:
    """A twin of `model` in eval mode: the same classes, names, hooks and weights, but no object that can be written to.

    Parameters are shared and detached (no gradient can reach them); BatchNorm statistics are shared (eval mode only reads
    them), other buffers and plain tensors are copied, as are lists, dicts and sets. Compiled modules and DataParallel
    wrappers are replaced by what they wrap. A reference that Python code cannot see (a closure over a module, a weak
    reference) still points to the original.

    Raises ModelError for what cannot be watched: TorchScript, uninitialised lazy modules, quantised modules.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    >>> other = twin(model)
    >>> other.training, model.training, other[0].weight.data_ptr() == model[0].weight.data_ptr()
    (False, True, True)
    """
    with torch.inference_mode(False), torch.no_grad():
        return _Copier().module(model)


def unwrapped(module: nn.Module) -> nn.Module:
    """What is inside torch.compile, DataParallel and DistributedDataParallel wrappers; other modules as they are."""
    while True:
        if "_orig_mod" in module._modules:
            inner = module._modules["_orig_mod"]
        elif isinstance(module, WRAPPERS):
            inner = module.module
        else:
            return module
        assert inner is not None
        module = inner


class _Copier:
    """One walk over a model; `seen` keeps shared modules, tied weights and cycles what they are."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}
        self.originals: list[Any] = []  # keeps every id in `seen` alive, and so unique

    def module(self, original: nn.Module) -> nn.Module:
        if id(original) in self.seen:
            return self.seen[id(original)]  # type: ignore[no-any-return]
        inner = unwrapped(original)
        if inner is not original:
            return self.remember(original, self.module(inner))  # type: ignore[no-any-return]
        kind = type(original)
        refuse(original)
        new = self.remember(original, object.__new__(kind))
        for slot in slots_of(kind):
            if hasattr(original, slot):
                object.__setattr__(new, slot, self.value(getattr(original, slot)))
        state = new.__dict__
        for name, value in original.__dict__.items():
            if type(value) not in SHARED:
                special = SPECIAL.get(name)
                value = self.value(value) if special is None else special(self, value, original)
            state[name] = value
        state["training"] = False
        state["_compiled_call_impl"] = None  # or the original's compiled forward would run
        for flag in CHECKPOINTING:
            if state.get(flag) is True:
                state[flag] = False
        if isinstance(original, nn.TransformerEncoderLayer):
            state["activation_relu_or_gelu"] = 0  # off the fused path, which never calls the modules inside
        return new  # type: ignore[no-any-return]

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

    def parameters(self, table: dict[str, Tensor | None], _: nn.Module) -> dict[str, Tensor | None]:
        return (
            {name: None if value is None else self.parameter(value) for name, value in table.items()} if table else {}
        )

    def buffers(self, table: dict[str, Tensor | None], owner: nn.Module) -> dict[str, Tensor | None]:
        if isinstance(owner, _NormBase):  # read only in eval mode, so sharing is safe; cloning 40 of them is not free
            return self.parameters(table, owner)
        return {name: self.value(value) for name, value in table.items()} if table else {}

    def children(self, table: dict[str, nn.Module | None], _: nn.Module) -> dict[str, nn.Module | None]:
        return {name: None if child is None else self.module(child) for name, child in table.items()}

    def hooks(self, table: dict[int, Any], _: nn.Module) -> OrderedDict[int, Any]:
        return OrderedDict((key, self.value(hook)) for key, hook in table.items()) if table else OrderedDict()

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
        self.originals.append(original)
        return new


SPECIAL: dict[str, Callable[[_Copier, Any, nn.Module], Any]] = {
    "_parameters": _Copier.parameters,
    "_buffers": _Copier.buffers,
    "_modules": _Copier.children,
    **dict.fromkeys(READ_ONLY, lambda _, table, __: table),
    **dict.fromkeys(DROPPED, lambda _, __, ___: OrderedDict()),
    **dict.fromkeys(HOOK_TABLES, _Copier.hooks),
}
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
def slots_of(kind: type) -> tuple[str, ...]:
    """Names of the `__slots__` that a module class and its bases declare."""
    names: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def refuse(module: nn.Module) -> None:
    """Raise ModelError for a module whose inside cannot be watched or differentiated, before anything else fails."""
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(kind.__name__, "TorchScript cannot be watched; use the original Python model and its weights.")
    if "quantized" in kind.__module__ and kind.__module__.startswith("torch."):
        raise ModelError(kind.__name__, "quantised modules have no gradients; explain the float model instead.")
    for value in module._parameters.values():
        if isinstance(value, UninitializedTensorMixin):
            raise ModelError(
                kind.__name__, "this lazy module has no weights yet; run the model once on a picture first."
            )


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) for everything inside `model`, with the names its twin has; the model itself is left out."""
    seen = {unwrapped(model)}
    waiting = [("", unwrapped(model))]
    while waiting:
        name, module = waiting.pop()
        if name:
            yield name, module
        below = []
        for key, child in module._modules.items():
            if child is not None and unwrapped(child) not in seen:
                seen.add(unwrapped(child))
                below.append((f"{name}.{key}" if name else key, unwrapped(child)))
        waiting += reversed(below)
