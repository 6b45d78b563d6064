"""Build the twin of a model that runs in its place: norms folded, weights in the faster memory layout."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from seewhy.errors import INPUT_ERRORS
from seewhy.fast.folding import Pair, fold
from seewhy.fast.later_reads import find_later_reads
from seewhy.fast.layer_forward import FORWARD, store_fast_weights
from seewhy.fast.norm_observer import observe_norms
from seewhy.tensors.map_functions import nearly_equal
from seewhy.tensors.nested import tensors_in
from seewhy.tracing.model_properties import PERMUTED, PREPARED_FROM, copy_properties
from seewhy.tracing.torch_private import CONVOLUTION, parameter_table
from seewhy.tracing.twin import make_twin
from seewhy.tracing.twin_reuse import IDLE_TWINS, IdleTwins

SAME_OUTPUT = 1e-3  # relative difference between the outputs of the model and of its prepared twin

Run = Callable[[nn.Module], Any]  # runs a module in place of the model on one input


@dataclass(frozen=True)
class Recipe:
    """What to change in a twin.

    Attributes:
        pairs: The norms to fold, with their convolutions.
        activations: Modules that must not work in place, because they would overwrite the output of a convolution.
        channels_last: Store the weights of convolutions channels last.
        refused: By convolution, why the norm after it is not folded.
        permuted: Layers whose memory has the channels last in the model itself, which the twin's memory does not show.
        has_half_gradients: Compute the gradients of large layers in bfloat16.
        is_packed: Store the weights of convolutions in the format of the processor as well.
    """

    pairs: tuple[Pair, ...] = ()
    activations: tuple[str, ...] = ()
    channels_last: bool = True
    refused: tuple[tuple[str, str], ...] = ()
    permuted: frozenset[str] = frozenset()
    has_half_gradients: bool = False
    is_packed: bool = True

    def alternatives(self) -> Iterator[Recipe]:
        """Yield this recipe, then those that change less."""
        yield self
        yield replace(self, is_packed=False)
        yield replace(self, is_packed=False, channels_last=False)
        if self.pairs:
            yield replace(self, is_packed=False, pairs=(), activations=(), channels_last=False)


def find_recipe(model: nn.Module, run: Run, *, has_half_gradients: bool = False) -> Recipe | None:
    """Return what can be changed in a twin of `model` so that it still gives the same output; None for nothing."""
    if FORWARD in model.__dict__:
        return None
    with torch.inference_mode(False), torch.no_grad():
        expected = run(make_twin(model))
        twin = make_twin(model)
        observer = observe_norms(twin, lambda: run(twin))
        refused = tuple(sorted(observer.refused.items()))
        best = Recipe(
            tuple(observer.pairs), tuple(observer.activations), refused=refused, permuted=frozenset(observer.permuted),
            has_half_gradients=has_half_gradients,
        )  # fmt: skip
        best = replace(best, activations=without_later_reads(best, model, run))
        return next((recipe for recipe in best.alternatives() if gives(recipe, model, run, expected)), None)


def without_later_reads(recipe: Recipe, model: nn.Module, run: Run) -> tuple[str, ...]:
    """Return the activations of a recipe that can work on copies, because nothing reads what they overwrite in the model."""
    if not recipe.activations:
        return ()
    twin = build(model, replace(recipe, is_packed=False))
    try:
        found = find_later_reads(twin, recipe.activations, lambda: run(twin))
    except torch.OutOfMemoryError:
        raise
    except INPUT_ERRORS:  # `gives` rejects this recipe
        return recipe.activations
    return tuple(name for name in recipe.activations if name not in found)


def gives(recipe: Recipe, model: nn.Module, run: Run, expected: Any) -> bool:
    """Return True if a twin that is changed by `recipe` gives the expected output, up to rounding."""
    try:
        output = run(build(model, recipe))
    except torch.OutOfMemoryError:
        raise
    except INPUT_ERRORS:
        return False
    pairs = list(zip(tensors_in(output), tensors_in(expected), strict=False))
    return bool(pairs) and all(nearly_equal(own, other, SAME_OUTPUT) for own, other in pairs)


def build(model: nn.Module, recipe: Recipe, earlier: nn.Module | None = None) -> nn.Module:
    """Return a twin of `model` that is changed by `recipe`. `earlier` is the one with former weights."""
    with torch.inference_mode(False), torch.no_grad():
        twin = make_twin(model)
        fold(twin, recipe.pairs, recipe.activations)
        if recipe.channels_last:
            use_channels_last(twin)
        store_fast_weights(twin, is_packed=recipe.is_packed, has_half_gradients=recipe.has_half_gradients)
    twin.__dict__[IDLE_TWINS] = IdleTwins()
    twin.__dict__[PERMUTED] = recipe.permuted
    twin.__dict__[PREPARED_FROM] = weakref.ref(model)
    if earlier is not None:
        copy_properties(earlier, twin)
    return twin


def use_channels_last(twin: nn.Module) -> None:
    """Store the weights of 2-D convolutions channels last. Their outputs, and those of most later layers, then are as well."""
    for module in twin.modules():
        weight = parameter_table(module).get("weight") if isinstance(module, CONVOLUTION) else None
        if weight is not None and weight.dim() == 4:
            channels_last = weight.contiguous(memory_format=torch.channels_last)
            parameter_table(module)["weight"] = channels_last
