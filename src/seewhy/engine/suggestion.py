"""The suggested layer: the last grid of a model that the gradient of the output still reaches.

It is found by observation, not by module names: one forward pass records every output that has a grid, and one backward pass
shows which of them the output depends on. The result is cached per model and input shape.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from seewhy.engine.branches import depends_on_input, is_spread, parallel_layers, strongest
from seewhy.engine.token_order import check_token_order
from seewhy.errors import LayerError
from seewhy.nested import first_tensor
from seewhy.targets.dense import is_dense
from seewhy.tracing.grid import TOKEN_LAYOUTS, GridHint, GridSpec, parse_grid
from seewhy.tracing.layer_selection import (
    GROUP_NAMES,
    LIST_LAYERS,
    calls_with_grid,
    check_unambiguous,
    folded_calls,
    folded_reason,
)
from seewhy.tracing.model_errors import retry_with_copies
from seewhy.tracing.model_properties import model_of
from seewhy.tracing.record import record_forward
from seewhy.tracing.single_input import SingleInputModel, for_image
from seewhy.tracing.torch_private import has_own_parameters
from seewhy.tracing.trace import LayerCall, RecordingRequest, Trace
from seewhy.tracing.twin import find_module, named_modules

MAX_TRIED = 16  # layers before the head of a dense output that are tried

ZERO_HEAD = "the head passes no gradient (are its weights still zero?), so the gradient of its input was used"

Key = tuple[tuple[int, ...], GridHint | None]  # input shape, and the user's grid
_cache: weakref.WeakKeyDictionary[nn.Module, dict[Key, Suggestion]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Suggestion:
    """The suggested layer.

    Attributes:
        layer: Its name.
        note: What was inferred, or "".
    """

    layer: str
    note: str = ""


def suggest(model: nn.Module, inputs: Tensor, grid: GridSpec = None) -> Suggestion:
    """Suggest the layer of a model whose map shows most about its output.

    Of all modules whose output is a grid over the image with at least 2 cells per axis, this is the last in execution order
    where a random direction of the model's output sends a gradient to at least half of the cells, or to other cells for each
    channel, as before a global maximum. Of modules with equal outputs, the outermost is taken. Of parallel branches, as in
    an ensemble, it is the one with the strongest evidence; the note names the others. If the head is all zeros (just
    initialized), the input of the last linear layer replaces the output. Costs one forward and a few backward passes for the
    first call; later calls use the cached result.

    Args:
        model: Any module that `seewhy.explain` accepts.
        inputs: A float tensor `(B, C, *size)`; only the first image is used.
        grid: As in `seewhy.explain`.

    Returns:
        The layer's name and a note about what was inferred.

    Raises:
        LayerError: No layer qualifies.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> suggest(net, torch.rand(1, 3, 8, 8)).layer
        '1'
    """
    cached = _cache.setdefault(model_of(model), {})
    hint = None if grid is None else parse_grid(grid)
    key = tuple(inputs.shape[1:]), hint
    suggestion = cached.get(key)
    if suggestion is None or find_module(model, suggestion.layer) is None:  # the layer may have been removed since
        suggestion = retry_with_copies(model, partial(find_suggestion, model, inputs, hint))
        if suggestion.note != ZERO_HEAD:  # training changes that
            cached[key] = suggestion
    return suggestion


def find_suggestion(model: nn.Module, inputs: Tensor, hint: GridHint | None) -> Suggestion:
    request = RecordingRequest()
    with record_forward(for_image(model, 0), inputs[:1], request, from_input=True, exact=False, grid=hint) as trace:
        has_other_inputs = isinstance(model, SingleInputModel)
        return observe(trace, modules_with_weights(model), hint, has_other_inputs=has_other_inputs)


def modules_with_weights(model: nn.Module) -> frozenset[str]:
    return frozenset(name for name, module in named_modules(model) if has_own_parameters(module))


def observe(trace: Trace, with_weights: frozenset[str], hint: GridHint | None, *, has_other_inputs: bool) -> Suggestion:
    """Return the suggestion from one forward pass. `hint` is the user's grid."""
    generator = torch.Generator().manual_seed(0)
    calls = [call for call in calls_with_grid(trace.calls) if not issubclass(call.module_class, nn.Linear)]
    reached = reached_by(first_tensor(trace.output), calls, trace, generator)
    note = ""
    if not reached:  # a head of zeros: use its input instead
        linear = [call for call in trace.calls if issubclass(call.module_class, nn.Linear)]
        head_inputs = [call.input for call in linear if call.input is not None]
        if head_inputs:
            reached = reached_by(head_inputs[-1], calls, trace, generator)
            note = ZERO_HEAD
    if not reached and (folded := folded_calls(trace)):
        raise LayerError("suggested", folded_reason(folded[-1], trace))
    if not reached:
        raise LayerError("suggested", f"no layer with a grid gets a gradient from the model's output. {LIST_LAYERS}")
    while has_other_inputs and not depends_on_input(reached[-1], trace.inputs):  # for example, layers of a text encoder
        reached.pop()
        if not reached:
            raise LayerError("suggested", f"no layer with a grid depends on the image. {LIST_LAYERS}")
    last, branches = reached[-1], list[LayerCall]()
    output = first_tensor(trace.output)
    if is_dense(trace.output, trace.inputs.dim() - 2):
        last, note = layer_before_head(reached, trace, with_weights, generator)
    elif not note and output is not None:
        branches = [last, *parallel_layers(last, output, reached, trace.inputs, generator)]
        last = strongest(branches, output, generator)
    best = outermost_equal(last, reached)
    assert best.grid is not None
    check_unambiguous(best)
    if best.grid.layout in TOKEN_LAYOUTS and not (hint and best.grid.source == hint.source):
        note = "; ".join(filter(None, (note, check_token_order(best, trace, generator))))
    others = [outermost_equal(call, reached).name for call in branches if call is not last]
    if others:
        branch_note = (
            f"the output also depends on branches parallel to this layer, which has the strongest evidence: "
            f"{', '.join(others)}; their maps are not part of this one, so select these layers too"
        )
        note = "; ".join(filter(None, (note, branch_note)))
    return Suggestion(best.name, note)


def reached_by(
    output: Tensor | None, calls: list[LayerCall], trace: Trace, generator: torch.Generator
) -> list[LayerCall]:
    """Return the calls where a random direction of `output` sends a finite gradient to the cells (`is_spread`)."""
    is_reached: dict[LayerCall, bool] = {}
    if output is None or not output.requires_grad:
        return []

    def observe_gradient(call: LayerCall, gradient: Tensor) -> None:
        assert call.grid is not None
        is_reached[call] = bool(torch.isfinite(gradient).all()) and is_spread(call.grid.channels_first(gradient))

    for call in calls:
        call.listener.on_gradient = partial(observe_gradient, call)
    direction = torch.randn(output.shape, generator=generator).to(output)
    torch.autograd.grad((output * direction).sum(), trace.leaves, retain_graph=True, allow_unused=True)
    for call in calls:
        call.listener.on_gradient = None
    return [call for call in calls if is_reached.get(call)]


def outermost_equal(last: LayerCall, calls: list[LayerCall]) -> LayerCall:
    """Return the outermost of the calls whose output equals that of `last`."""
    equal = [call for call in calls if has_equal_output(call, last)]
    # A module that returns several tensors may pass on others than this one, for example after pooling it.
    return min(equal, key=lambda call: (not call.is_sole_output, is_awkward_name(call), call.name.count(".")))


def layer_before_head(
    reached: list[LayerCall], trace: Trace, with_weights: frozenset[str], generator: torch.Generator
) -> tuple[LayerCall, str]:
    """For an output that is a grid itself, return the last layer before the head through which all paths go.

    The last grid of all would be the output, whose map only repeats the target. All paths go through a layer if no gradient
    reaches the input once the layer's gradient is set to zero. Otherwise one of several heads would be taken for all.
    """
    output = first_tensor(trace.output)
    assert output is not None
    order = {call: number for number, call in enumerate(trace.calls)}
    readers = [
        number
        for call, number in order.items()
        if call.module in with_weights and (call in reached or call.grid is None)
    ]
    before = [call for call in reached if order[call] < max(readers, default=0)]
    if not before:
        return reached[-1], "the output is a grid and no layer comes before it, so its map repeats the target"
    direction = torch.randn(output.shape, generator=generator).to(output)
    for call in before[: -MAX_TRIED - 1 : -1]:
        call.listener.on_gradient = torch.zeros_like
        score = (output * direction).sum()
        gradient = torch.autograd.grad(score, trace.inputs, retain_graph=True, allow_unused=True)[0]
        call.listener.on_gradient = None
        if gradient is None or not gradient.any():
            return call, "the output is a grid: this is the last layer before its head through which all paths go"
    return before[-1], "the output is a grid: this is the input of its last layer, although other paths bypass it"


def is_awkward_name(call: LayerCall) -> bool:
    """Return True for a name that is also a group name, so that it cannot be passed on, and for an Identity."""
    return call.name in GROUP_NAMES or issubclass(call.module_class, nn.Identity)


def has_equal_output(call: LayerCall, other: LayerCall) -> bool:
    if call.output is other.output:
        return call.version == other.version  # otherwise an in-place operation lies between them
    if call.is_overwritten or other.is_overwritten:
        return False
    return call.output.shape == other.output.shape and torch.equal(call.output, other.output)
