"""Hooks on all or some modules of a twin, for code that observes a forward pass without recording it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from seewhy.tensors.nested import first_tensor, replace_first
from seewhy.tracing.twin import find_module, named_modules


def pass_on_copies(twin: nn.Module, names: Iterable[str]) -> None:
    """Make modules of a twin return copies of their first output tensor."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        tensor = first_tensor(output)
        return None if tensor is None else replace_first(output, tensor.clone())

    for name in names:
        module = find_module(twin, name)
        assert module is not None
        module.register_forward_hook(hook)


def call_before_modules(
    twin: nn.Module, hook: Callable[[nn.Module, Any, Any], None], kind: type[nn.Module] = nn.Module
) -> None:
    """Call `hook` with the arguments of each module of a twin that is of a kind."""
    for module in (module for _, module in named_modules(twin) if isinstance(module, kind)):
        module.register_forward_pre_hook(hook, with_kwargs=True)


def call_after_modules(twin: nn.Module, hook: Callable[[nn.Module, Any, Any], None]) -> None:
    """Call `hook` with the output of each module of a twin."""
    for _, module in named_modules(twin):
        module.register_forward_hook(hook)


def call_after_module(twin: nn.Module, name: str, hook: Callable[[nn.Module, Any, Any], Any]) -> None:
    """Call `hook` with the output of one module of a twin. What it returns replaces the output, unless it is None."""
    module = find_module(twin, name)
    assert module is not None
    module.register_forward_hook(hook)
