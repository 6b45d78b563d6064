"""The suggested layer: the last grid of a model that the gradient of the output still reaches.

It is found by observation, not by module names: one forward pass records every output that has a grid, and one backward pass
shows which of them the output depends on. The result is cached per model and input shape.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.engine.branches import covers_box, depends_on_input, is_spread, parallel_layers, strongest
from seewhy.engine.missing_gradients import suggestion_obstacle
from seewhy.engine.named_layers import has_equal_output, is_attention_weights, layer_before_head, outermost_equal
from seewhy.errors import LayerError, SeewhyError
from seewhy.targets import ClassScore, Target, TopScore
from seewhy.targets.class_scores import check_output, class_scores
from seewhy.targets.dense_output import is_dense
from seewhy.targets.detections import is_detections
from seewhy.targets.names import Labels
from seewhy.targets.values import is_value_grid
from seewhy.tensors.nested import first_tensor
from seewhy.tracing.grid import GridHint, GridSpec, parse_grid
from seewhy.tracing.layer_selection import (
    LIST_LAYERS,
    calls_with_grid,
    check_unambiguous,
    folded_calls,
    folded_reason,
    has_other_axes,
    no_grid_reason,
    wrong_order,
)
from seewhy.tracing.model_errors import explain_failures, retry_with_copies
from seewhy.tracing.model_properties import input_key, model_of
from seewhy.tracing.record import record_forward
from seewhy.tracing.single_input import for_image
from seewhy.tracing.token_cache import Placement
from seewhy.tracing.token_places import needs_placing, place_tokens
from seewhy.tracing.token_probes import key_of
from seewhy.tracing.torch_private import has_own_parameters
from seewhy.tracing.trace import LayerCall, RecordingRequest, Trace
from seewhy.tracing.twin import find_module, named_modules

MAX_CACHED = 64  # targets per model
PLACED_TOGETHER = 8  # layers with tokens that are checked in the same passes

ZERO_HEAD = "the head passes no gradient (are its weights still zero?), so the gradient of its input was used"
NOT_FINITE = "the output is not a finite number, so the gradient of the head's input was used"
UNCHECKED = (
    "each of its tokens depends on the entire image alike, so their order could not be checked; row order is assumed"
)

# The inputs, the user's grid, and the targets that are not classes
Key = tuple[Hashable, GridHint | None, tuple[str, ...]]
_cache: weakref.WeakKeyDictionary[nn.Module, dict[Key, Suggestion]] = weakref.WeakKeyDictionary()
_varying: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # models that call other layers for other inputs


@dataclass(frozen=True)
class Suggestion:
    """The suggested layer.

    Attributes:
        layer: Its name.
        note: What was inferred, or "".
        branches: The last layers of the branches parallel to it, as in an ensemble.
    """

    layer: str
    note: str = ""
    branches: tuple[str, ...] = ()


def suggest(
    model: nn.Module,
    inputs: Tensor,
    grid: GridSpec = None,
    *,
    targets: Sequence[Target] = (),
    labels: Labels = None,
) -> Suggestion:
    """Suggest the layer of a model whose map shows most about its output.

    Of all modules whose output is a grid over the image with at least 2 cells per axis, this is the last in execution order
    where the score has a gradient in at least half of the cells, or in other cells for each channel, as before a global
    maximum. For classes, the score is a random direction of all class scores, so that the layer is the same for all of them.
    For a detection, the gradient of its score must reach a third of the cells in its box.

    Of modules with equal outputs, the outermost is taken. Layers whose tokens are not in the order of the input are skipped. Of
    parallel branches, as in an ensemble, it is the one with the strongest evidence; the note names the others. If the head is
    all zeros (just initialized), the input of the last linear layer replaces the output. The first call costs one forward and a
    few backward passes; later calls use the cached result, except for targets with a location.

    Args:
        model: Any module that `seewhy.explain` accepts.
        inputs: A float tensor `(B, C, *size)`; only the first image is used.
        grid: As in `seewhy.explain`.
        targets: What is explained. Default: the class scores, or the first tensor of the output.
        labels: Class names of the model.

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
    others = tuple(repr(target) for target in targets if not isinstance(target, (ClassScore, TopScore)))
    # The default target is a class unless the output contains detections, which `Finder` finds out.
    key = input_key(model, inputs), hint, others
    suggestion = cached.get(key)
    if suggestion is None or find_module(model, suggestion.layer) is None:  # the layer may have been removed since
        finder = Finder(model, inputs, hint, tuple(targets), labels)
        with explain_failures(model, inputs):
            suggestion = retry_with_copies(model, finder.find)
        # Training changes a head of zeros, each image has other locations, and Python reuses the address of a function.
        is_temporary = ZERO_HEAD in suggestion.note or NOT_FINITE in suggestion.note or finder.has_location
        is_temporary |= model_of(model) in _varying
        if not is_temporary and not any(" at 0x" in other for other in others):
            if len(cached) >= MAX_CACHED:
                del cached[next(iter(cached))]
            cached[key] = suggestion
    return suggestion


def discard_suggestion(model: nn.Module, layer: str) -> bool:
    """Drop a layer from the cached suggestions, because the model does not call it for every input.

    From then on, suggestions for this model are not cached. Return False if the layer was not suggested.
    """
    cached = _cache.get(model_of(model), {})
    keys = [key for key, suggestion in cached.items() if suggestion.layer == layer or layer in suggestion.branches]
    for key in keys:
        del cached[key]
    if keys:
        _varying.add(model_of(model))
    return bool(keys)


@dataclass(eq=False)
class Finder:
    """Finds the suggested layer of one model, input and list of targets. `hint` is the user's grid."""

    model: nn.Module
    inputs: Tensor
    hint: GridHint | None
    targets: tuple[Target, ...]
    labels: Labels
    has_location: bool = False
    box: Tensor | None = None  # of a detection, as fractions of the input
    has_skipped: bool = False  # a layer was checked before, and skipped

    def find(self) -> Suggestion:
        model, request = for_image(self.model, 0), RecordingRequest()
        with record_forward(model, self.inputs[:1], request, from_input=True, exact=False, grid=self.hint) as trace:
            return self.observe(trace)

    def observe(self, trace: Trace) -> Suggestion:
        """Return the suggestion from one forward pass."""
        all_calls = [call for call in calls_with_grid(trace.calls) if not is_attention_weights(call)]
        calls = [call for call in all_calls if not issubclass(call.module_class, nn.Linear)] or all_calls
        score, note = self.score_of(trace.output), ""
        reached = reached_by(score, calls, trace, self.box)
        if not reached and not self.has_location:  # a head of zeros: use its input instead
            linear = [call for call in trace.calls if issubclass(call.module_class, nn.Linear)]
            head_inputs = [call.input for call in linear if call.input is not None]
            if head_inputs:
                is_finite = score is None or bool(score.isfinite())
                score, note = random_direction(head_inputs[-1]), ZERO_HEAD if is_finite else NOT_FINITE
                reached = reached_by(score, calls, trace)
        if not reached and (folded := folded_calls(trace)):
            raise LayerError("suggested", folded_reason(folded[-1], trace))
        other = [call for call in trace.calls if has_other_axes(call, trace)]
        if not calls and other:
            raise LayerError(other[-1].name, no_grid_reason(other[-1], trace))
        if not reached or score is None:
            check_output(trace.output, "top1")
            raise LayerError("suggested", suggestion_obstacle(trace, all_calls))
        reached = without_constants(reached, trace)
        if not reached:
            raise LayerError(
                "suggested",
                f"the layers that the output depends on do not depend on the image. Name a layer. {LIST_LAYERS}",
            )
        return self.choose(reached, trace, score, note)

    def score_of(self, output: Any) -> Tensor | None:
        """Return the number whose gradient shows what the targets depend on; None without a graph."""
        terms = []
        for target in self.targets:
            if isinstance(target, (ClassScore, TopScore)) and not is_detections(output):
                continue
            try:
                resolved = target.resolve(output, self.labels)
            except SeewhyError:  # it fits no single image, or not this output, which is an error later
                continue
            if resolved.classes is None and resolved.region is None:
                terms.append(resolved.scores.sum())
                self.has_location |= resolved.has_location
                if resolved.boxes is not None and len(self.targets) == 1 and self.inputs.dim() == 4:
                    height, width = self.inputs.shape[2:]
                    box = resolved.boxes[0].float().cpu()
                    self.box = box if box.max() <= 1 else box / torch.tensor([width, height, width, height])
        if len(terms) < max(1, len(self.targets)):
            tensor = class_scores(output)
            tensor = first_tensor(output) if tensor is None else tensor
            terms += [] if tensor is None else [random_direction(tensor)]
        score = sum(terms[1:], terms[0]) if terms else None
        return score if score is not None and score.requires_grad else None

    def choose(self, reached: list[LayerCall], trace: Trace, score: Tensor, note: str) -> Suggestion:
        """Return the last of the reached calls that shows where in the input it looks."""
        modules = modules_with_weights(self.model)
        skipped, unchecked = list[LayerCall](), list[Suggestion]()
        while reached:
            last, branches, remark = reached[-1], list[LayerCall](), note
            if not self.has_location and is_grid(trace.output, trace.inputs):
                last, remark = layer_before_head(reached, trace, modules, score)
            elif not note:
                branches = [last, *parallel_layers(last, score, reached, trace.inputs)]
                last = strongest(branches, score)
            best = outermost_equal(last, reached)
            check_unambiguous(best)
            others = [outermost_equal(call, reached).name for call in branches if call is not last]
            placement = self.place(best, reached)
            notes = [remark, *branch_notes(others), *skipped_notes(skipped)]
            if placement.grid is not None:
                suggestion = Suggestion(best.name, "; ".join(filter(None, notes)), tuple(others))
                if placement.is_known:
                    return suggestion
                unchecked.append(replace(suggestion, note="; ".join(filter(None, [*notes, UNCHECKED]))))
            else:
                skipped.append(best)
            reached = [call for call in reached if call is not last and not has_equal_output(call, last)]
            reached = without_constants(reached, trace)
        if unchecked:
            return unchecked[0]
        assert skipped[0].grid is not None
        raise LayerError(skipped[0].name, wrong_order(skipped[0].grid))

    def place(self, best: LayerCall, reached: Sequence[LayerCall]) -> Placement:
        """Return where the cells of a call lie. Tokens are checked together with those of a few earlier calls."""
        if not needs_placing(best, self.hint):
            return Placement(best.grid, is_known=True)
        earlier = [call for call in reached if call is not best and needs_placing(call, self.hint)]
        together = [best, *earlier[-PLACED_TOGETHER:]] if self.has_skipped else [best]
        self.has_skipped = True
        placements = place_tokens(self.model, self.inputs, together, self.hint)
        return placements[key_of(best)]


def without_constants(calls: list[LayerCall], trace: Trace) -> list[LayerCall]:
    """Return calls up to the last one that depends on the input, which layers of a text encoder or positions do not."""
    while calls and not depends_on_input(calls[-1], trace.inputs):
        calls = calls[:-1]
    return calls


def branch_notes(others: Sequence[str]) -> list[str]:
    if not others:
        return []
    return [
        "the output also depends on branches parallel to this layer, which has the strongest evidence: "
        f"{', '.join(others)}; layers='branches' shows all of them, and combined_map() adds them up"
    ]


def skipped_notes(skipped: Sequence[LayerCall]) -> list[str]:
    if not skipped:
        return []
    return [f"later layers, such as '{skipped[0].name}', have no tokens in the order of the input"]


def is_grid(output: object, inputs: Tensor) -> bool:
    """Return True for an output with one value, or one vector of class scores, at each position."""
    size = tuple(inputs.shape[2:])
    return is_dense(output, len(size)) or is_value_grid(output, size)


def modules_with_weights(model: nn.Module) -> frozenset[str]:
    return frozenset(name for name, module in named_modules(model) if has_own_parameters(module))


def random_direction(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor's values times fixed random numbers, on which all of them have an influence."""
    tensor = tensor.abs() if tensor.is_complex() else tensor
    generator = torch.Generator().manual_seed(0)
    return (tensor * torch.randn(tensor.shape, generator=generator).to(tensor)).sum()


def is_finite(tensor: Tensor) -> bool:
    """Return True if all values are finite. Their sum, which takes a tenth of the time, usually shows it."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def reached_by(
    score: Tensor | None, calls: list[LayerCall], trace: Trace, box: Tensor | None = None
) -> list[LayerCall]:
    """Return the calls where a score sends a finite gradient to the cells (`is_spread`), or to those of a box."""
    is_reached: dict[LayerCall, bool] = {}
    if score is None or not score.requires_grad:
        return []

    def observe_gradient(call: LayerCall, gradient: Tensor) -> None:
        assert call.grid is not None
        values, region = call.grid.channels_first(gradient), call.grid.region
        seen = box if box is None or region is None else region.fractions(box, trace.inputs.shape[2:])
        is_enough = is_spread(values) if seen is None or call.grid.parts else covers_box(values, seen)
        is_reached[call] = is_enough and is_finite(gradient)

    for call in calls:
        call.listener.on_gradient = partial(observe_gradient, call)
    torch.autograd.grad(score, trace.leaves, retain_graph=True, allow_unused=True)
    for call in calls:
        call.listener.on_gradient = None
    return [call for call in calls if is_reached.get(call)]
