"""Passes for methods that look at variants of the inputs (noise, flips, scales, a path).

Each such method is a generator at each layer: it yields the variant it needs next and receives its layer's signals. All
generators run in step: one forward pass serves every layer, method and target that waits for an equal variant.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from seewhy.engine.map_collector import Job, MapCollector
from seewhy.errors import MethodError
from seewhy.methods.base import VariantMethod
from seewhy.signals.backward import differentiate
from seewhy.signals.evaluator import TRAINING_STEP, Evaluator
from seewhy.signals.layer import Need, Signals, Variant
from seewhy.signals.recorded import check_moves, request_for, signals_at
from seewhy.signals.scoring import Scoring
from seewhy.targets import ResolvedTarget
from seewhy.tracing.trace import LayerCall, RecordingRequest, Trace


@dataclass(frozen=True, eq=False)
class PendingJob:
    """A job at one layer that waits for the signals of a variant. `is_required`: no map there is an error."""

    job: Job
    call: LayerCall
    generator: Generator[Variant, Signals, Tensor]
    is_required: bool


@dataclass(eq=False)
class VariantPasses:
    """Runs the generators of variant methods until each has returned its map."""

    evaluator: Evaluator
    collector: MapCollector
    waiting: dict[Variant, list[PendingJob]] = field(default_factory=dict)

    def start(self, job: Job, call: LayerCall, signals: Signals, *, is_required: bool) -> None:
        """Start a method at one layer, up to the first variant that it needs."""
        assert isinstance(job.method, VariantMethod)
        pending = PendingJob(job, call, job.method.passes(signals), is_required)
        self.advance(pending, lambda: next(pending.generator))

    def run(self) -> None:
        """Run one variant after the other until no job is waiting."""
        while self.waiting:
            variant = next(iter(self.waiting))
            group = self.waiting.pop(variant)
            try:
                self.run_variant(variant(self.evaluator.inputs), group)
            except MethodError as error:
                self.fail(group, error.reason)
            self.evaluator.on_progress(TRAINING_STEP * len(self.evaluator.inputs))

    def advance(self, pending: PendingJob, step: Callable[[], Variant]) -> None:
        """Run a generator to the next variant that it needs, or to its map."""

        def variant_or_maps() -> Variant | Tensor:
            try:
                return step()
            except StopIteration as end:
                maps: Tensor = end.value
                return maps

        result = self.collector.attempt(
            pending.job.name, pending.call.name, variant_or_maps, lambda: pending.is_required
        )
        if isinstance(result, Variant):
            try:
                check_moves(pending.call.grid, result)
            except MethodError as error:
                self.fail([pending], error.reason)
                return
            self.waiting.setdefault(result, []).append(pending)
        elif result is not None:
            self.collector.add(pending.job, pending.call, result)

    def fail(self, group: Sequence[PendingJob], reason: str) -> None:
        """Record for each job of a group why it has no map."""

        def raise_reason() -> None:
            raise MethodError("", reason)

        for pending in group:
            is_required = partial(bool, pending.is_required)
            self.collector.attempt(pending.job.name, pending.call.name, raise_reason, is_required)

    def run_variant(self, inputs: Tensor, group: list[PendingJob]) -> None:
        """Run one forward pass on changed inputs, and one backward pass for each target and scoring that needs it."""
        modules = frozenset(pending.call.module for pending in group)
        request = request_for(needs_of(group) | Need.HEAD, RecordingRequest(modules))
        by_score: dict[tuple[str, Scoring], list[PendingJob]] = {}
        for pending in group:
            by_score.setdefault((pending.job.target.key, pending.job.method.scoring), []).append(pending)
        with self.evaluator.run_changed(inputs, request) as (changed, trace):
            for number, ((_, scoring), sharing) in enumerate(by_score.items(), 1):
                target = sharing[0].job.target.for_variants(trace.output)
                is_last = number == len(by_score)
                self.run_backward(changed, trace, target, scoring, sharing, retain_graph=not is_last)

    def run_backward(
        self,
        changed: Evaluator,
        trace: Trace,
        target: ResolvedTarget,
        scoring: Scoring,
        sharing: list[PendingJob],
        *,
        retain_graph: bool,
    ) -> None:
        """Run one backward pass and send each layer's signals to the jobs that wait at this layer."""
        waiting = self.match_calls(trace, sharing)
        detached = target.without_graph()

        def consume(call: LayerCall, gradient: Tensor, curvature: Tensor | None) -> None:
            signals = signals_at(call, changed, detached, scoring, gradient, curvature)
            for pending in waiting[call]:
                self.advance(pending, lambda pending=pending: pending.generator.send(signals))  # type: ignore[misc]

        unreached = differentiate(
            trace,
            scoring(target, trace.output),
            list(waiting),
            consume,
            retain_graph=retain_graph,
            with_curvature=bool(needs_of(sharing) & Need.CURVATURE),
        )
        for call in unreached:
            self.fail(waiting[call], "for changed inputs, no gradient reaches the layer.")

    def match_calls(self, trace: Trace, pending_jobs: Sequence[PendingJob]) -> dict[LayerCall, list[PendingJob]]:
        """Return the jobs by the call of their layer in `trace`; jobs without one fail."""
        calls = {(call.module, call.number): call for call in trace.calls if call.grid is not None}
        matched: dict[LayerCall, list[PendingJob]] = {}
        for pending in pending_jobs:
            call = calls.get((pending.call.module, pending.call.number))
            if call is None:
                self.fail([pending], "for changed inputs, the layer is not called or its output has no grid.")
            else:
                matched.setdefault(call, []).append(pending)
        return matched


def needs_of(group: Sequence[PendingJob]) -> Need:
    """Return the needs of all jobs of a group."""
    needs = Need.NOTHING
    for pending in group:
        needs |= pending.job.method.needs
    return needs
