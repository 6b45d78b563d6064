"""Which layers of a model with several inputs depend on the explained one: observed by changing it."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.tensors.nested import tensors_in
from seewhy.tracing.model_properties import input_key, model_of
from seewhy.tracing.record import record_forward
from seewhy.tracing.single_input import SingleInputModel, for_image
from seewhy.tracing.token_cache import CallKey
from seewhy.tracing.trace import LayerCall, RecordingRequest

_cache: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, dict[CallKey, bool]]] = weakref.WeakKeyDictionary()


def independent_calls(model: nn.Module, inputs: Tensor, calls: Sequence[LayerCall]) -> list[LayerCall]:
    """Return the calls whose output does not depend on the explained input, such as an encoder of another input.

    Runs one more forward pass for each image size, and only for models with other tensors as arguments.
    """
    if not isinstance(model, SingleInputModel) or not any(
        True for place, value in model.named_arguments().items() if place != model.main for _ in tensors_in(value)
    ):
        return []
    known = _cache.setdefault(model_of(model), {}).setdefault(input_key(model, inputs), {})
    keys = {call: (call.module, call.number) for call in calls}
    new = frozenset(call.module for call in calls if keys[call] not in known)
    if new:
        known.update(observe(for_image(model, 0), inputs[:1], new))
    return [call for call in calls if not known.get(keys[call], True)]


def observe(model: nn.Module, inputs: Tensor, names: frozenset[str]) -> dict[CallKey, bool]:
    """Return whether each call of the layers changes with the input."""
    noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0)).to(inputs)
    low, high = inputs.amin(), inputs.amax()
    changed = (inputs + noise * (high - low + 1)).clamp(low, high) if high > low else inputs + noise
    try:
        before, after = (values_of(model, one, names) for one in (inputs, changed))
    except SeewhyError:  # the model rejects the changed input
        return {}
    return {key: key not in after or not torch.equal(value, after[key]) for key, value in before.items()}


def values_of(model: nn.Module, inputs: Tensor, names: frozenset[str]) -> dict[CallKey, Tensor]:
    with record_forward(model, inputs, RecordingRequest(names)) as trace:
        return {(call.module, call.number): call.value.detach() for call in trace.calls}
