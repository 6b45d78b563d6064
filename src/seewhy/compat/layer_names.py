"""The name of a layer that is given as a module object."""

from __future__ import annotations

from torch import nn

from seewhy.errors import UnknownName, UsageError
from seewhy.tracing.layer_selection import LIST_LAYERS
from seewhy.tracing.twin import named_modules


def name_of_layer(model: nn.Module, layer: object) -> str:
    """Return the name of a layer in the model.

    Args:
        model: The model.
        layer: A module of the model, or its name.

    Raises:
        UnknownName: The model has no layer of this name.
        UsageError: The module is not part of the model, or `layer` is something else.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is of type {type(model).__name__}; pass a torch.nn.Module.")
    names = {name: module for name, module in named_modules(model) if name}
    if isinstance(layer, str):
        if layer not in names:
            raise UnknownName("layer", layer, list(names), hint=LIST_LAYERS)
        return layer
    if not isinstance(layer, nn.Module):
        raise UsageError(
            f"a layer of type {type(layer).__name__}; pass a module of the model, such as model.{last(names)}."
        )
    for name, module in names.items():
        if module is layer:
            return name
    raise UsageError(
        f"this {type(layer).__name__} is not a module of the model; pass one of its modules, such as model.{last(names)}. "
        "A layer of a copy of the model is another module."
    )


def last(names: dict[str, nn.Module]) -> str:
    """Return the name of the last layer, for an example; "layer" if there are none."""
    return next(reversed(names), "layer")
