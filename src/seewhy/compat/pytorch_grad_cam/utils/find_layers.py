"""Find layers, as in `pytorch_grad_cam.utils.find_layers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn


def find_layer_types_recursive(model: nn.Module, layer_types: Sequence[type[nn.Module]]) -> list[nn.Module]:
    """Return the modules whose class is one of `layer_types`, subclasses excluded."""
    return find_layer_predicate_recursive(model, lambda module: type(module) in layer_types)


def find_layer_predicate_recursive(model: nn.Module, predicate: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """Return the modules inside `model` for which `predicate` is true."""
    return [module for module in list(model.modules())[1:] if predicate(module)]
