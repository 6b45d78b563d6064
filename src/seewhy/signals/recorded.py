"""Signals of recorded calls: built from a trace, or by a further forward and backward pass on changed inputs."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from seewhy.errors import MethodError
from seewhy.signals.backward import differentiate
from seewhy.signals.evaluator import CallSite, Evaluator
from seewhy.signals.folded_tensors import FoldedTensors
from seewhy.signals.layer import Need, Signals, Variant
from seewhy.signals.layer_tensors import LayerTensors
from seewhy.signals.part_layer import PartSignals
from seewhy.signals.region_layer import RegionSignals
from seewhy.signals.scoring import Scoring
from seewhy.targets import ResolvedTarget
from seewhy.tracing.grid import Grid
from seewhy.tracing.trace import LayerCall, RecordingRequest

MOVED_PARTS = "it moves or resizes the input, and this layer has several rows per input, whose places would change."
MOVED_REGION = "it moves or resizes the input, but this layer sees only a region of it, so the maps would not align."


def check_moves(grid: Grid | None, variant: Variant) -> None:
    """Raise MethodError if a variant moves the input and the layer does not see all of it at once."""
    if variant.moves_content and grid is not None and grid.parts is not None:
        raise MethodError("", MOVED_PARTS)
    if variant.moves_content and grid is not None and grid.region is not None:
        raise MethodError("", MOVED_REGION)


def request_for(needs: Need, request: RecordingRequest) -> RecordingRequest:
    """Return `request` with what `needs` require. Fused attention has no second derivative, so curvature disables it."""
    return dataclasses.replace(request, linear_calls=bool(needs & Need.HEAD), attention=bool(needs & Need.CURVATURE))


def signals_at(
    call: LayerCall,
    evaluator: Evaluator,
    target: ResolvedTarget,
    scoring: Scoring,
    gradient: Tensor | None = None,
    curvature: Tensor | None = None,
) -> Signals:
    """Return the signals of a recorded call, channels first and in float32 or float64."""
    assert call.grid is not None
    of_layer = RegionSignals if call.grid.region else PartSignals if call.grid.parts else Signals
    return of_layer(
        evaluator,
        target,
        scoring,
        call.name,
        CallSite(call.module, call.number, call.grid, norm=call.norm),
        tensors_of(call, call.grid, gradient, curvature),
    )


def with_derivatives(signals: Signals, gradient: Tensor, curvature: Tensor | None) -> Signals:
    """Return the signals of a recorded call with its gradient and curvature."""
    grid, tensors = signals.site.grid, signals.tensors
    own = None if curvature is None else grid.channels_first(curvature)
    new = tensors.with_derivatives(grid.channels_first(gradient), own)
    return dataclasses.replace(signals, tensors=new)


def tensors_of(
    call: LayerCall, grid: Grid, gradient: Tensor | None = None, curvature: Tensor | None = None
) -> LayerTensors:
    """Return what was recorded of a call, channels first."""
    output, *derivatives = (
        None if tensor is None else grid.channels_first(tensor) for tensor in (call.value, gradient, curvature)
    )
    assert output is not None
    return (
        LayerTensors(output, *derivatives) if call.norm is None else FoldedTensors(output, *derivatives, norm=call.norm)
    )


def signals_for_variant(original: Signals, variant: Variant) -> Signals:
    """Return a layer's signals for changed inputs: one more forward and backward pass.

    Raises:
        MethodError: The model does not accept their size, or no gradient reaches the layer.
    """
    check_moves(original.site.grid, variant)
    with_curvature, results = original.tensors.output_curvature is not None, list[Signals]()
    request = RecordingRequest(frozenset({original.site.module}), linear_calls=True, attention=with_curvature)
    with original.evaluator.run_changed(variant(original.evaluator.inputs), request) as (changed, trace):
        calls = [call for call in trace.calls if call.number == original.site.number]
        target = original.target.for_variants(trace.output)

        def consume(call: LayerCall, gradient: Tensor, curvature: Tensor | None) -> None:
            results.append(signals_at(call, changed, target, original.scoring, gradient, curvature))

        scores = original.scoring(target, trace.output)
        differentiate(trace, scores, calls, consume, with_curvature=with_curvature)
    if not results:
        raise MethodError("", f"for changed inputs no gradient reaches layer '{original.layer}'.")
    return results[0]
