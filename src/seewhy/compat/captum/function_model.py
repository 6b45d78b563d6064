"""A plain function that calls a model, as a module: captum accepts functions such as one that sums up a segmentation."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from seewhy.errors import UsageError
from seewhy.tracing.function_references import names_in


class FunctionModel(nn.Module):
    """A module that calls a function. Its children are the modules that the function refers to.

    A twin of it calls a copy of the function that refers to the twins of these modules, so the originals are not hooked.

    Args:
        function: A Python function that calls modules through its closure, its globals or default arguments.
    """

    def __init__(self, function: types.FunctionType) -> None:
        super().__init__()
        self.function = function
        for number, module in enumerate(dict.fromkeys(referenced_modules(function, set()))):
            self.add_module(f"model{number or ''}", module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def as_module(forward: object) -> nn.Module:
    """Return a forward function as a module.

    Args:
        forward: A module, its `forward` or another method, a function that calls modules, or a partial of one.

    Raises:
        UsageError: The function refers to no module, or it is something else.
    """
    if isinstance(forward, nn.Module):
        return forward
    if (
        isinstance(forward, types.MethodType)
        and isinstance(forward.__self__, nn.Module)
        and forward.__name__ == "forward"
    ):
        return forward.__self__
    function = as_function(forward)
    model = None if function is None else FunctionModel(function)
    if model is None or not list(model.children()):
        raise UsageError(
            f"forward_func is of type {type(forward).__name__} and refers to no module; pass the model, or a function that "
            "calls it by a name outside of the function."
        )
    return model


def as_function(forward: object) -> types.FunctionType | None:
    """Return a callable as a function whose closure contains what it calls; None if that is not possible."""
    if isinstance(forward, types.FunctionType):
        return forward
    if isinstance(forward, types.MethodType):
        return method_caller(forward)
    if isinstance(forward, functools.partial) and isinstance(forward.func, types.FunctionType | types.MethodType):
        return partial_caller(forward.func, forward.args, forward.keywords)
    return None


def method_caller(method: types.MethodType) -> types.FunctionType:
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    assert isinstance(call, types.FunctionType)
    return call


def partial_caller(function: Callable[..., Any], first: tuple[Any, ...], names: dict[str, Any]) -> types.FunctionType:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*first, *args, **{**names, **kwargs})

    assert isinstance(call, types.FunctionType)
    return call


def referenced_modules(function: types.FunctionType, seen: set[int]) -> Iterator[nn.Module]:
    """Yield the modules that a function, and functions that it refers to, use from outside."""
    if id(function) in seen:
        return
    seen.add(id(function))
    for value in outside_values(function):
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
            yield value.__self__
        elif isinstance(value, types.FunctionType):
            yield from referenced_modules(value, seen)
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, nn.Module))


def outside_values(function: types.FunctionType) -> Iterator[object]:
    """Yield what a function refers to: values of its closure, globals that its code names, and defaults."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # empty
            continue
    for name in names_in(function.__code__):
        if name in function.__globals__:
            yield function.__globals__[name]
    yield from function.__defaults__ or ()


def first_input(inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the first of a model's inputs."""
    first = inputs[0] if isinstance(inputs, tuple) and inputs else inputs
    if not isinstance(first, Tensor):
        raise UsageError(
            f"inputs is of type {type(inputs).__name__}; pass a tensor (B, C, *size), or a tuple of tensors."
        )
    return first
