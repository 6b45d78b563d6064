"""Run one forward pass through a twin and record the outputs of the requested layers.

`record_forward` copies the model (`twin`), registers hooks on the copy (`recorder`) and runs it once. The recorded outputs keep
their autograd graph, so all layers, methods and targets share this forward pass. The graph starts at the earliest
requested layer (`graph_start`), which saves the backward pass through everything before it. Some properties of a model make a
first pass unusable (`ModelProperties`). They are detected during the pass and cached for the model, and the pass is repeated
with the matching correction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from seewhy.errors import ModelError
from seewhy.places.parts import PartsOfModel
from seewhy.tensors.map_functions import nearly_equal
from seewhy.tensors.nested import tensors_in
from seewhy.tensors.random_state import preserve_rng
from seewhy.tracing.field_of_view import field_of_view
from seewhy.tracing.followed_tensor import ancestors
from seewhy.tracing.function_modes import CaptureAttention, CaptureBias, GuidedReLU, KeepGradients
from seewhy.tracing.graph_start import GraphStart
from seewhy.tracing.grid import GridHint
from seewhy.tracing.grid_tracker import GridTracker
from seewhy.tracing.known_grids import GridCache, Grids, KnownGrids
from seewhy.tracing.model_errors import explain_rejected_input
from seewhy.tracing.model_properties import (
    PERMUTED,
    ModelProperties,
    cache_properties,
    cached_properties,
    executed_model,
)
from seewhy.tracing.part_places import find_parts, known_parts
from seewhy.tracing.recorder import Recorder
from seewhy.tracing.token_cache import placements_of
from seewhy.tracing.trace import RecordingRequest, Trace
from seewhy.tracing.twin import make_twin
from seewhy.tracing.twin_hooks import pass_on_copies
from seewhy.tracing.twin_reuse import BorrowedTwin, borrowed_twin

NEED_GRAPH = ("in-place operation", "hook on a tensor that doesn't require gradient")  # in PyTorch's error messages
SAME_OUTPUT = 1e-5  # relative difference of outputs, from another memory layout at most


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
    with torch.inference_mode(False), torch.enable_grad(), preserve_rng(inputs.device), ExitStack() as stack:
        needs_no_grad = False  # a part of the model rejects tensors with gradients, such as `numpy()`
        cache = GridCache(model, inputs, request, grid)
        while True:  # a repeated pass can reveal another property; properties are only added, so the loop ends
            known, parts = cached_properties(model), known_parts(model, inputs)
            known = replace(known, ignores_no_grad=False) if needs_no_grad else known
            if parts is not None and parts.depends_on_values:
                parts = find_parts(model, inputs)
            twins = stack.enter_context(ExitStack())
            try:
                twin = twins.enter_context(borrowed_twin(model))
                view = field_of_view(model, inputs)
                grids: Grids = cache.get(parts, view) or GridTracker(
                    twin.module, inputs.shape, grid, parts or PartsOfModel(), view
                )
                trace, start, properties = _run(model, twin, inputs, request, known, grids, from_input, guided, grid)
            except ModelError as error:
                twins.close()
                if known.ignores_no_grad:
                    needs_no_grad = True
                    continue
                # PyTorch rejects some in-place operations on views if the graph starts at another view of the same tensor.
                # A forward hook of the user that registers tensor hooks needs a graph everywhere.
                from_input = not from_input and any(sign in str(error) for sign in NEED_GRAPH)
                if from_input:
                    continue
                raise
            if isinstance(grids, KnownGrids):
                is_new = grids.is_incomplete
                if is_new:
                    cache.discard()
            else:
                is_new = grids.has_unknown_parts and parts is None and bool(find_parts(model, inputs))
            cache_properties(model, properties)
            if properties == known and not is_new:
                if isinstance(grids, GridTracker):
                    cache.store(grids, parts, view)
                break
            if not exact and not is_new and properties == replace(known, overwritten=properties.overwritten):
                break
            start.remove_marks()
            del trace
            twins.close()
        try:
            yield trace
        finally:
            start.remove_marks()


def _run(
    model: nn.Module,
    twin: BorrowedTwin,
    inputs: Tensor,
    request: RecordingRequest,
    known: ModelProperties,
    grids: Grids,
    from_input: bool,
    guided: GuidedReLU | None,
    hint: GridHint | None,
) -> tuple[Trace, GraphStart, ModelProperties]:
    """Run one forward pass through a twin; return its trace, its graph start, and the known properties with new ones."""
    from_input = from_input or not known.aliases.isdisjoint(request.names or ())
    leaf = inputs.detach().clone().requires_grad_(from_input)
    start = GraphStart(leaf, twin.memory)
    permuted = executed_model(model).__dict__.get(PERMUTED)
    recorder = Recorder(start, request, known, grids, hint, placements_of(model, inputs), permuted)
    recorder.attach(twin.modules)
    attention = CaptureAttention(recorder.record_attention)
    with (
        attention if request.attention else nullcontext(),
        CaptureBias(recorder.record_bias) if request.bias_terms else nullcontext(),
        guided or nullcontext(),
        KeepGradients() if known.ignores_no_grad else nullcontext(),
        saved_tensors_hooks(torch.clone, lambda saved: saved) if known.saves_copies else nullcontext(),
        explain_rejected_input(model, inputs),
    ):
        output = twin.module(leaf.clone() if from_input else leaf)  # autograd forbids in-place operations on a leaf
    recorder.finish()
    trace = Trace(
        inputs=leaf,
        output=output,
        calls=recorder.calls,
        leaves=(start.anchor, leaf) if from_input else (start.anchor,),
        call_counts=recorder.call_counts,
        attentions=recorder.attentions,
        linear_calls=recorder.linear_calls,
        bias_terms=recorder.bias_terms,
        grid_sources=grids.sources,
        cross_attention_ranks=attention.cross_attention_ranks,
        has_keys_first=attention.has_keys_first,
    )
    properties = learned_from(recorder, trace, model, inputs, known, is_from_input=from_input)
    return trace, start, properties


def learned_from(
    recorder: Recorder, trace: Trace, model: nn.Module, inputs: Tensor, known: ModelProperties, *, is_from_input: bool
) -> ModelProperties:
    """Return the known properties with those that a pass revealed."""
    overwritten = {call.module: call for call in trace.calls if call.is_overwritten}
    views = {name for name, call in overwritten.items() if call.is_view} - known.views - known.shared_views
    shared = {name for name in views if overwritten[name].is_input}
    if views - shared:
        shared |= shared_views(model, inputs, trace.output, views - shared)
    ignores_no_grad = known.ignores_no_grad
    if ignores_no_grad is None and (recorder.grad_disabled or not has_graph(trace.output)):
        ignores_no_grad = not follows_input(model, inputs)
    return replace(
        known,
        overwritten=known.overwritten | overwritten.keys(),
        views=known.views | (views - shared),
        shared_views=known.shared_views | shared,
        aliases=known.aliases if is_from_input else known.aliases | recorder.start.unsafe,
        ignores_no_grad=ignores_no_grad,
    )


def shared_views(model: nn.Module, inputs: Tensor, output: Any, names: Iterable[str]) -> set[str]:
    """Return the layers of `names` that change the model's output if they return a copy."""

    def is_changed_by(copied: Iterable[str]) -> bool:
        twin = make_twin(model)
        pass_on_copies(twin, copied)
        with torch.no_grad():
            changed = twin(inputs.detach().clone())
        pairs = zip(tensors_in(changed), tensors_in(output), strict=True)
        return not all(nearly_equal(new, old.detach(), SAME_OUTPUT) for new, old in pairs)

    names = set(names)
    return {name for name in names if is_changed_by([name])} if is_changed_by(names) else set()


def follows_input(model: nn.Module, inputs: Tensor) -> bool:
    """Return True if a graph leads from the input to the output, so that `torch.no_grad` in the model hides a part at most."""
    leaf = inputs.detach().clone().requires_grad_()
    with explain_rejected_input(model, inputs):
        output = make_twin(model)(leaf.clone())
    # The model can start another graph behind its frozen part.
    nodes = (node for tensor in tensors_in(output) for node in ancestors(tensor.grad_fn))
    return any(getattr(node, "variable", None) is leaf for node in nodes)


def has_graph(output: Any) -> bool:
    return any(tensor.requires_grad for tensor in tensors_in(output))
