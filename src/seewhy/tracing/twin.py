"""A twin of a model: new module objects that share its weights, so that the model itself is never modified.

seewhy sets eval mode, registers hooks and detaches parameters on a twin, which lives for one call. The user's model
therefore needs no cleanup after an exception and no lock between threads, and its state never changes. The copier walks
the module tree once. It shares what a forward pass only reads (weights, functions, configuration), copies what a
forward pass may write to (buffers, lists, dicts), and redirects every reference to a module, wherever it is stored, to
the module's twin.
"""

from __future__ import annotations

import copy
import functools
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from seewhy.errors import ModelError
from seewhy.tracing.folded_norm import PASSES_ON
from seewhy.tracing.function_references import redirect_functions
from seewhy.tracing.memory_format import fix_gradient_layout
from seewhy.tracing.single_input import SingleInputModel
from seewhy.tracing.torch_private import (
    BACKWARD_HOOK_TABLES,
    BUFFERS,
    CALL_WRAPPER,
    CHILDREN,
    FORWARD_HOOK_TABLES,
    NORM_WITH_STATISTICS,
    PARAMETERS,
    STATE_DICT_TABLES,
    child_table,
    compiled_original,
    disable_fused_encoder,
)

# Values of these exact types are shared: they are immutable (or only read) and contain no module.
SHARED_TYPES = frozenset(
    {bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, torch.Size}
    | {torch.memory_format, types.FunctionType, types.BuiltinFunctionType, torch.Generator}
)
# Attributes of every module that `_Copier.module` treats separately, or shares because a forward pass only reads them.
HANDLED_ATTRIBUTES = {*FORWARD_HOOK_TABLES, *BACKWARD_HOOK_TABLES, *STATE_DICT_TABLES, PARAMETERS, BUFFERS, CHILDREN}
# Flags of checkpointing, which calls modules again in the backward pass and, if reentrant, hides their outputs from autograd.
CHECKPOINTING_FLAGS = ("grad_checkpointing", "gradient_checkpointing", "use_checkpoint", "with_cp", "memory_efficient")
PARALLEL_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def make_twin(model: nn.Module, known: Mapping[int, nn.Module] | None = None) -> nn.Module:
    """Return a twin of `model` in eval mode, with the same classes, names, forward hooks and weights.

    `known` are twins of modules inside `model` that exist already, by the id of the original.

    Parameters are shared and detached, so no gradient reaches them. BatchNorm statistics are shared, because eval mode
    only reads them; other buffers and plain tensors are copied, as are lists, dicts and sets. Backward hooks are
    dropped: those of a training run (logging, clipping) must not run in seewhy's backward pass. Compiled modules and
    DataParallel are replaced by the module inside. Hooks, and functions that are attributes, refer to the twin in their
    closures and globals. Other references, such as a weak one, still point to the original.

    Raises:
        ModelError: The model does not support hooks: TorchScript, uninitialized lazy modules, quantized modules.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    >>> twin = make_twin(model)
    >>> twin.training, model.training, twin[0].weight.data_ptr() == model[0].weight.data_ptr()
    (False, True, True)
    """
    with torch.inference_mode(False), torch.no_grad():
        copier = _Copier()
        copier.copies.update(known or {})
        twin = copier.module(model)
        redirect_functions(copier.functions, copier.copies, copier.module)
    return twin


class _Copier:
    """Copies one model. `copies` maps ids of originals to copies, which preserves shared modules, tied weights and cycles."""

    def __init__(self) -> None:
        self.copies: dict[int, Any] = {}
        self.functions: list[
            tuple[dict[Any, Any], Any]
        ] = []  # tables and keys of functions that may refer to originals

    def module(self, original: nn.Module) -> nn.Module:
        known: nn.Module | None = self.copies.get(id(original))
        if known is not None:
            return known
        cls: Any = type(original)
        traits = class_traits(cls)
        if traits.unsupported or (traits.is_lazy and cast(Any, original).has_uninitialized_params()):
            raise ModelError(
                cls.__name__,
                traits.unsupported or "this lazy module has no weights yet; run the model once on an input first.",
            )
        if traits.is_parallel_wrapper or compiled_original(original) is not None:
            inner = self.copies[id(original)] = self.module(unwrap(original))
            return inner
        old = original.__dict__
        new: nn.Module = object.__new__(cls)  # without __init__, which would need arguments
        self.copies[id(original)] = new
        for slot in traits.slots:
            if hasattr(original, slot):
                object.__setattr__(new, slot, self.value(getattr(original, slot)))
        state = new.__dict__
        state.update(old)
        for name, value in old.items():
            if type(value) not in SHARED_TYPES and name not in HANDLED_ATTRIBUTES:
                state[name] = self.value(value)
            elif type(value) is types.FunctionType:
                self.functions.append((state, name))
        if old[PARAMETERS]:
            state[PARAMETERS] = self.parameters(old[PARAMETERS])
        if old[BUFFERS]:
            # BatchNorm only reads its statistics in eval mode, so they are shared: a model can have hundreds of them.
            state[BUFFERS] = self.parameters(old[BUFFERS]) if traits.is_norm else self.mapping(old[BUFFERS])
        if old[CHILDREN]:
            state[CHILDREN] = {
                name: child if child is None else self.module(child) for name, child in old[CHILDREN].items()
            }
        for name in FORWARD_HOOK_TABLES:
            table = state[name] = OrderedDict()
            for key, hook in old[name].items():
                table[key] = self.value(hook)
                if type(hook) is types.FunctionType:
                    self.functions.append((table, key))
        for name in BACKWARD_HOOK_TABLES:
            state[name] = OrderedDict()
        for name in CHECKPOINTING_FLAGS:
            if state.get(name) is True:
                state[name] = False
        state["training"] = False
        state[CALL_WRAPPER] = None  # a module compiled in place would run its compiled forward, which skips the hooks
        if traits.is_encoder_layer:
            disable_fused_encoder(state)
        if traits.is_norm and PASSES_ON not in old:
            fix_gradient_layout(new)
        return new

    def value(self, value: Any) -> Any:
        cls = type(value)
        if cls in SHARED_TYPES:
            return value
        if id(value) in self.copies:
            return self.copies[id(value)]
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, nn.Parameter):
            return self.parameter(value)
        if isinstance(value, Tensor):
            return self.register(value, value.detach().clone())
        if cls in CONTAINERS:
            return CONTAINERS[cls](self, value)
        if isinstance(value, tuple):  # a named tuple
            return cls(*map(self.value, value))
        if cls is types.MethodType and isinstance(value.__self__, nn.Module):
            return types.MethodType(value.__func__, self.module(value.__self__))
        if cls is functools.partial:
            return self.partial(value)
        return value

    def parameter(self, value: Tensor) -> Tensor:
        known = self.copies.get(id(value))
        if known is None:
            # A tensor created in inference mode can never be part of a graph; its clone can.
            known = self.register(value, value.detach().clone() if value.is_inference() else value.detach())
        return known  # type: ignore[no-any-return]

    def parameters(self, table: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        return {name: None if value is None else self.parameter(value) for name, value in table.items()}

    def partial(self, value: functools.partial[Any]) -> functools.partial[Any]:
        arguments = map(self.value, value.args)
        keywords = {name: self.value(item) for name, item in value.keywords.items()}
        new = functools.partial(self.value(value.func), *arguments, **keywords)
        new.__dict__.update({name: self.value(item) for name, item in value.__dict__.items()})
        return new

    def tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        for item in value:  # not all(): it is 2.5 times slower, and a CNN has hundreds of kernel sizes
            if type(item) not in SHARED_TYPES:
                return tuple(map(self.value, value))
        return value

    def sequence(self, value: Any) -> Any:
        new = self.register(value, copy.copy(value))
        for index, item in enumerate(value):
            new[index] = self.value(item)
        return new

    def mapping(self, value: Any) -> Any:
        new = self.register(value, copy.copy(value))
        for key, item in value.items():
            new[key] = self.value(item)
        return new

    def register(self, original: Any, new: Any) -> Any:
        self.copies[id(original)] = new
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


@dataclass(frozen=True)
class ClassTraits:
    """Properties of a module class that decide how its instances are copied."""

    slots: tuple[str, ...]
    unsupported: str  # why hooks do not work on it, or ""
    is_parallel_wrapper: bool
    is_lazy: bool
    is_norm: bool
    is_encoder_layer: bool


@functools.cache
def class_traits(cls: Any) -> ClassTraits:
    slots: list[str] = []
    for base in cls.__mro__:
        declared = base.__dict__.get("__slots__", ())
        slots += [declared] if isinstance(declared, str) else list(declared)
    unsupported = ""
    if issubclass(cls, torch.jit.ScriptModule):
        unsupported = "TorchScript does not support hooks; use the original Python model and its weights."
    elif cls.__module__.startswith("torch.") and "quantized" in cls.__module__:
        unsupported = "quantized modules have no gradients; explain the float model instead."
    return ClassTraits(
        slots=tuple(name for name in slots if name not in ("__dict__", "__weakref__")),
        unsupported=unsupported,
        is_parallel_wrapper=issubclass(cls, PARALLEL_WRAPPERS),
        is_lazy=issubclass(cls, LazyModuleMixin),
        is_norm=issubclass(cls, NORM_WITH_STATISTICS),
        is_encoder_layer=issubclass(cls, nn.TransformerEncoderLayer),
    )


# Names: a twin and its original call each module the same, without the names of wrappers


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module inside torch.compile, DataParallel, DistributedDataParallel and `SingleInputModel` wrappers."""
    while True:
        inner = compiled_original(module)
        if inner is None and isinstance(module, PARALLEL_WRAPPERS):
            inner = child_table(module)["module"]
        elif inner is None and isinstance(module, SingleInputModel):
            inner = child_table(module)["model"]
        if inner is None:
            return module
        module = inner


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (name, module) for every module inside `model`, with the names of its twin. The model itself is not included."""
    visited: set[int] = set()
    stack = [("", model)]
    while stack:  # depth first, so that a shared module gets the name that `nn.Module.named_modules` gives it
        prefix, module = stack.pop()
        module = unwrap(module)
        if id(module) in visited:
            continue
        visited.add(id(module))
        if prefix:
            yield prefix[:-1], module
        children = child_table(module)
        stack += [(f"{prefix}{name}.", child) for name, child in reversed(children.items()) if child is not None]


def find_module(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module with a name as in `named_modules` ("layer4.1", or "relu#2" for a call of "relu"), or None."""
    module: nn.Module | None = unwrap(model)
    for part in filter(None, name.partition("#")[0].split(".")):
        module = None if module is None else child_table(module).get(part)
        module = None if module is None else unwrap(module)
    return module
