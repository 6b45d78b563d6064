"""What the first forward passes through a model showed about it, cached as long as the model exists."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from torch import Tensor, nn

from seewhy.tracing.single_input import SingleInputModel


@dataclass(frozen=True)
class ModelProperties:
    """Properties of a model that its first forward passes show, cached for later calls.

    Attributes:
        overwritten: Layers whose output an in-place operation changes, so that a snapshot is needed.
        views: Those of them that return a view. PyTorch has no gradient for an overwritten view, so a copy is passed on.
        shared_views: Other overwritten views: a copy would change the model's output, or the layer returned its input.
        aliases: Layers that need a graph from the input (see `graph_start`).
        ignores_no_grad: True if the model cuts its input off with `torch.no_grad`, so gradients are enabled there. None:
            unknown.
        saves_copies: True if in-place operations overwrite values that the backward pass reads.
    """

    overwritten: frozenset[str] = frozenset()
    views: frozenset[str] = frozenset()
    shared_views: frozenset[str] = frozenset()
    aliases: frozenset[str] = frozenset()
    ignores_no_grad: bool | None = None
    saves_copies: bool = False


_properties: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, ModelProperties]] = weakref.WeakKeyDictionary()


PREPARED_FROM = (
    "_prepared_from"  # the entry in the `__dict__` of a prepared model: a weak reference to the user's module
)
PERMUTED = (
    "_permuted_layers"  # in that of a prepared model: layers whose memory in the user's module has the channels last
)


def model_of(model: nn.Module) -> nn.Module:
    """Return the user's module: a `SingleInputModel` exists for one call only, and a prepared model until weights change."""
    module = executed_model(model)
    original: Callable[[], nn.Module | None] | None = module.__dict__.get(PREPARED_FROM)
    return module if original is None else original() or module


def executed_model(model: nn.Module) -> nn.Module:
    """Return the module that runs: the user's, or the one that was prepared from it."""
    return model.model if isinstance(model, SingleInputModel) else model


def cached_properties(model: nn.Module) -> ModelProperties:
    """Return the properties found in earlier passes through `model`."""
    return _properties.get(executed_model(model), {}).get(explained_input(model), ModelProperties())


def cache_properties(model: nn.Module, properties: ModelProperties) -> None:
    """Store what a pass through `model` showed."""
    _properties.setdefault(executed_model(model), {})[explained_input(model)] = properties


def copy_properties(earlier: nn.Module, model: nn.Module) -> None:
    """Store for `model` what was found for the same network with other weights."""
    if earlier in _properties:
        _properties[model] = dict(_properties[earlier])


def explained_input(model: nn.Module) -> Hashable:
    """Return which of a model's inputs is explained, as a key for a cache."""
    return model.main if isinstance(model, SingleInputModel) else 0


def input_key(model: nn.Module, inputs: Tensor) -> tuple[Hashable, ...]:
    """Return what the layers' grids can depend on: the shape of one input, and the other arguments of the model."""
    if not isinstance(model, SingleInputModel):
        return (0, False, False, False, *inputs.shape[1:])
    output = (model.is_grouped, model.reads_last_token, model.stacks_rows)
    return (model.main, *output, *inputs.shape[1:], model.argument_key)
