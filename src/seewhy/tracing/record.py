"""Run one forward pass through a twin and record the outputs of the requested layers.

`record_forward` copies the model (`twin`), registers hooks on the copy (`recorder`) and runs it once. The recorded outputs keep
their autograd graph, so all layers, methods and targets share this forward pass. The graph starts at the earliest
requested layer (`graph_start`), which saves the backward pass through everything before it. Some properties of a model make a
first pass unusable (`ModelProperties`). They are detected during the pass and cached for the model, and the pass is repeated
with the matching correction.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from seewhy.errors import INPUT_ERRORS, ModelError, SeewhyError, shorten_error
from seewhy.nested import tensors_in
from seewhy.tracing.function_modes import CaptureAttention, CaptureBias, GuidedReLU, KeepGradients
from seewhy.tracing.graph_start import GraphStart
from seewhy.tracing.grid import GridHint
from seewhy.tracing.recorder import ModelProperties, Recorder
from seewhy.tracing.single_input import SingleInputModel
from seewhy.tracing.torch_private import CONVOLUTION
from seewhy.tracing.trace import RecordingRequest, Trace
from seewhy.tracing.twin import make_twin

# ModelErrors that are also of the original type: callers may catch the type that their model raises.
REJECTED_INPUT: dict[type[Exception], Any] = {
    kind: type("RejectedInput", (ModelError, kind), {}) for kind in INPUT_ERRORS
}

OVERWRITTEN = "modified by an inplace operation"  # in PyTorch's error message

_properties: weakref.WeakKeyDictionary[nn.Module, ModelProperties] = weakref.WeakKeyDictionary()


@contextmanager
def record_forward(
    model: nn.Module,
    inputs: Tensor,
    request: RecordingRequest,
    *,
    from_input: bool = False,
    exact: bool = True,
    guided: GuidedReLU | None = None,
    grid: GridHint | None = None,
) -> Iterator[Trace]:
    """Run a twin of `model` on `inputs` (B, C, *size) and yield the recorded calls; the graph lives as long as the block.

    Inside the block gradients are enabled, whatever the mode of the caller. The random state is restored afterwards.

    Args:
        model: The model, or a `SingleInputModel`. It is not modified.
        inputs: The main input.
        request: What to record.
        from_input: Start the graph at the input instead of the earliest requested call.
        exact: Repeat the pass if an in-place operation overwrote a recorded output. If False, gradients are still
            correct, but the values of a call whose `is_overwritten` is True are not those that the layer returned.
        guided: Makes each ReLU pass only positive gradients back.
        grid: The `grid` setting of the user.

    Raises:
        ModelError: The model is of a kind that hooks do not support, or rejects the inputs.
        LayerError: A requested layer runs in inference mode.
    """
    with torch.inference_mode(False), torch.enable_grad(), preserve_rng(inputs.device):
        while True:  # a repeated pass can reveal another property; properties are only added, so the loop ends
            known = cached_properties(model)
            trace, start, properties = _run(model, inputs, request, known, from_input, guided, grid)
            if properties == known:
                break
            _properties[model_of(model)] = properties
            if not exact and properties == replace(known, overwritten=properties.overwritten):
                break
            start.remove_marks()
            del trace
        try:
            with explain_checkpointing(model):
                yield trace
        finally:
            start.remove_marks()


def model_of(model: nn.Module) -> nn.Module:
    """Return the user's module: a `SingleInputModel` exists for one call only."""
    return model.model if isinstance(model, SingleInputModel) else model


def cached_properties(model: nn.Module) -> ModelProperties:
    """Return the properties found in earlier passes through `model`."""
    return _properties.get(model_of(model), ModelProperties())


Result = TypeVar("Result")


def retry_with_copies(model: nn.Module, function: Callable[[], Result]) -> Result:
    """Return what `function` returns. It is called again if its backward pass failed because of in-place operations.

    PyTorch cannot differentiate if an operation overwrites a value that the backward pass reads. Then the model is
    recorded again with a copy of every such value.

    Raises:
        ModelError: The backward pass fails in any case.
    """
    try:
        return function()
    except RuntimeError as error:
        if OVERWRITTEN not in str(error):
            raise
    _properties[model_of(model)] = replace(cached_properties(model), saves_copies=True)
    try:
        return function()
    except RuntimeError as error:
        if OVERWRITTEN not in str(error):
            raise
        raise ModelError(
            type(model_of(model)).__name__,
            "PyTorch cannot differentiate it: an in-place operation overwrites a value that the gradient needs. Replace that "
            "operation, such as x += y, by one that is not in place (x = x + y).",
        ) from None


def _run(
    model: nn.Module,
    inputs: Tensor,
    request: RecordingRequest,
    known: ModelProperties,
    from_input: bool,
    guided: GuidedReLU | None,
    grid: GridHint | None,
) -> tuple[Trace, GraphStart, ModelProperties]:
    """Run one forward pass. Return its trace, its graph start, and the known properties with those that it revealed."""
    from_input = from_input or not known.aliases.isdisjoint(request.names or ())
    leaf = inputs.detach().clone().requires_grad_(from_input)
    twin = make_twin(model)
    recorder = Recorder(leaf, request, known, twin, grid)
    recorder.attach(twin)
    attention = CaptureAttention(recorder.record_attention)
    with (
        attention if request.attention else nullcontext(),
        CaptureBias(recorder.record_bias) if request.bias_terms else nullcontext(),
        guided or nullcontext(),
        KeepGradients() if known.ignores_no_grad else nullcontext(),
        saved_tensors_hooks(torch.clone, lambda saved: saved) if known.saves_copies else nullcontext(),
        explain_rejected_input(model, inputs),
    ):
        output = twin(leaf.clone() if from_input else leaf)  # autograd forbids in-place operations on a leaf
    recorder.finish()
    trace = Trace(
        inputs=leaf,
        output=output,
        calls=recorder.calls,
        leaves=(recorder.start.anchor, leaf) if from_input else (recorder.start.anchor,),
        call_counts=recorder.call_counts,
        attentions=recorder.attentions,
        linear_calls=recorder.linear_calls,
        bias_terms=recorder.bias_terms,
        has_cross_attention=attention.has_cross_attention,
    )
    overwritten = known.overwritten.union(call.module for call in recorder.calls if call.is_overwritten)
    aliases = known.aliases if from_input else known.aliases | recorder.start.unsafe
    ignores_no_grad = known.ignores_no_grad
    if ignores_no_grad is None and (recorder.grad_disabled or not has_graph(output)):
        ignores_no_grad = not follows_input(model, inputs)
    return trace, recorder.start, replace(
        known, overwritten=overwritten, aliases=aliases, ignores_no_grad=ignores_no_grad
    )  # fmt: skip


def follows_input(model: nn.Module, inputs: Tensor) -> bool:
    """Return True if a graph leads from the input to the output, so that `torch.no_grad` in the model hides a part at most."""
    with explain_rejected_input(model, inputs):
        return has_graph(make_twin(model)(inputs.detach().clone().requires_grad_().clone()))


def has_graph(output: Any) -> bool:
    return any(tensor.requires_grad for tensor in tensors_in(output))


@contextmanager
def explain_rejected_input(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Re-raise a model's exception as a one-line `ModelError` that also subclasses the original type."""
    try:
        yield
    except (SeewhyError, torch.OutOfMemoryError):
        raise
    except INPUT_ERRORS as error:
        network = model_of(model)
        convolution = next((module for module in network.modules() if isinstance(module, CONVOLUTION)), None)
        is_unbatched = convolution is not None and inputs.dim() == len(convolution.kernel_size) + 1
        advice = "add the batch axis: x[None]" if is_unbatched else "pass inputs that the model accepts"
        reason = f"its forward fails on inputs of shape {tuple(inputs.shape)} ({shorten_error(error)}); {advice}."
        kind = next(kind for kind in INPUT_ERRORS if isinstance(error, kind))
        raise REJECTED_INPUT[kind](type(network).__name__, reason) from error


@contextmanager
def explain_checkpointing(model: nn.Module) -> Iterator[None]:
    """Re-raise PyTorch's error about reentrant checkpointing as a `ModelError` that says how to fix it."""
    try:
        yield
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise ModelError(
            type(model).__name__,
            "it recomputes layers with checkpoint(use_reentrant=True), which hides them from autograd; set "
            "use_reentrant=False, as PyTorch recommends, or disable checkpointing while explaining.",
        ) from None


@contextmanager
def preserve_rng(device: torch.device) -> Iterator[None]:
    """Restore the random state at the end, but only if the block changed it: other threads may use it meanwhile."""
    before = torch.get_rng_state()
    gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        if not torch.equal(before, torch.get_rng_state()):
            torch.set_rng_state(before)
        if gpu is not None and not torch.equal(gpu, torch.cuda.get_rng_state(device)):
            torch.cuda.set_rng_state(gpu, device)
