"""Runs every method at every layer for every target, with as few passes through the model as they can share.

1. Methods with the same scoring share one backward pass per target. Methods without gradients need none.
2. Methods that run the model again come next, when the graph is released.
3. Methods that look at variants of the inputs run in step (`variant_passes`).
4. Methods of the entire model come last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from seewhy.engine.map_collector import Job, MapCollector
from seewhy.engine.missing_gradients import no_output_gradient
from seewhy.engine.variant_passes import VariantPasses
from seewhy.errors import LayerError, MethodError
from seewhy.explanation.components import NETWORK
from seewhy.methods.base import AnyMethod, Method, MultiMapMethod, NetworkMethod, VariantMethod, Weighted
from seewhy.signals.backward import NoCurvatureError, differentiate
from seewhy.signals.evaluator import Evaluator
from seewhy.signals.layer import Need, Signals
from seewhy.signals.model import ModelSignals
from seewhy.signals.recorded import signals_at, with_derivatives
from seewhy.signals.scoring import Scoring, TargetScore
from seewhy.targets import ResolvedTarget
from seewhy.tracing.layer_selection import LayerSelection
from seewhy.tracing.record import has_graph
from seewhy.tracing.trace import LayerCall, Trace


@dataclass(eq=False)
class Round:
    """Jobs that share one backward pass: the same target and the same scoring."""

    target: ResolvedTarget
    scoring: Scoring
    jobs: list[Job]

    @property
    def needs(self) -> Need:
        needs = Need.NOTHING
        for job in self.jobs:
            needs |= job.method.needs
        return needs

    @property
    def order(self) -> int:
        """Position among the rounds. A plain backward pass comes last, because it can free the graph as it runs."""
        if not self.needs & Need.GRADIENTS:
            return 0
        return 1 if self.needs & Need.CURVATURE else 2


@dataclass(eq=False)
class Passes:
    """Runs `methods` at `calls`, which are recorded in `trace`. The maps are collected in `collector`.

    Attributes:
        selection: The layers that the user selected. A method that does not fit a layer selected by name is an error.
        independent: After `run`, the calls that no target depends on.
    """

    evaluator: Evaluator
    trace: Trace
    calls: Sequence[LayerCall]
    methods: Mapping[str, AnyMethod]
    selection: LayerSelection
    collector: MapCollector
    independent: list[LayerCall] = field(default_factory=list)

    def run(self, targets: list[ResolvedTarget]) -> None:
        """Compute all maps. The graphs of `targets` are released: the list then holds the same targets without graphs.

        Raises:
            MethodError: A method fits no layer, or does not fit a layer that was selected by name.
            LayerError: A target does not depend on a layer that was selected by name.
        """
        self.evaluator.keep_forward(self.trace)
        self.evaluator.has_several_targets = len(targets) > 1
        self.variants = VariantPasses(self.evaluator, self.collector)
        self.deferred: list[Callable[[], None]] = []
        layer_signals = self.record_layers(targets[0])
        self.run_backward_passes(targets)
        self.release_graph()
        for job in self.deferred:
            job()
        self.variants.run()
        for target in targets:
            for name, method in self.methods.items():
                if isinstance(method, NetworkMethod):
                    self.run_network_method(name, method, target, layer_signals if method.keeps_layers else {})
        self.collector.raise_if_unsupported()

    def record_layers(self, target: ResolvedTarget) -> dict[str, Signals]:
        """Return the signals of all layers, without gradients, for network methods that read them."""
        if not any(isinstance(method, NetworkMethod) and method.keeps_layers for method in self.methods.values()):
            return {}
        detached = target.without_graph()
        return {call.name: signals_at(call, self.evaluator, detached, TargetScore()) for call in self.calls}

    def release_graph(self) -> None:
        """Free the outputs of all layers: nothing after the backward passes reads them."""
        self.trace.output, self.trace.calls = None, []
        for call in self.calls:
            if "output" in call.__dict__:  # the backward passes release what they have used
                call.release()

    # 1. Backward passes

    def run_backward_passes(self, targets: list[ResolvedTarget]) -> None:
        unreached = dict.fromkeys(self.calls)
        rounds = [item for target in targets for item in self.rounds_of(target)]
        targets[:] = [target.without_graph() for target in targets]
        rounds.sort(key=lambda item: item.order)
        has_rounds = bool(rounds)
        while rounds:
            for call in self.run_round(rounds.pop(0), is_last=not rounds):
                unreached.pop(call, None)
        self.independent = list(unreached) if has_rounds else []

    def rounds_of(self, target: ResolvedTarget) -> list[Round]:
        """Return the jobs of one target, grouped by scoring."""
        rounds: dict[Scoring, Round] = {}
        detached = target.without_graph()
        for name, method in self.methods.items():
            job = None
            if isinstance(method, (Method, MultiMapMethod)):
                job = Job(name, method, detached)
            elif method.base_method is not None:
                job = Job(name, method.base_method, detached, is_base=True)
            if job is not None:
                scoring = job.method.scoring
                rounds.setdefault(scoring, Round(target, scoring, [])).jobs.append(job)
        return list(rounds.values())

    def run_round(self, item: Round, *, is_last: bool) -> list[LayerCall]:
        """Run the jobs of one round; return the calls that its gradient reached (all, if none was needed)."""
        target = item.target.without_graph()
        if not item.needs & Need.GRADIENTS:
            for call in self.calls:
                signals = signals_at(call, self.evaluator, target, item.scoring)
                for job in item.jobs:
                    self.dispatch(job, call, signals)
            return list(self.calls)
        scores = self.scores_of(item)
        if scores is None:
            return list(self.calls)

        # The backward pass evicts everything from the processor's caches, so each line of Python in it takes several times as
        # long as elsewhere. What needs no gradient is computed before it, and what needs only a sum of the gradient after it.
        signals_of = {call: signals_at(call, self.evaluator, target, item.scoring) for call in self.calls}
        weighted: list[WeightedJob] = []

        def consume(call: LayerCall, gradient: Tensor, curvature: Tensor | None) -> None:
            recorded = signals_of.pop(call)
            signals = with_derivatives(recorded, gradient, curvature)
            for job in item.jobs:
                if job.is_weighted:
                    self.weigh(weighted, job, call, signals, recorded)
                else:
                    self.dispatch(job, call, signals)

        with_curvature = bool(item.needs & Need.CURVATURE)
        try:
            unreached = differentiate(
                self.trace, scores, self.calls, consume, retain_graph=not is_last, with_curvature=with_curvature
            )
        except NoCurvatureError as error:
            return self.run_without_curvature(item, error, is_last=is_last)
        for waiting in weighted:
            self.store(waiting.job, waiting.call, waiting.run, lambda waiting=waiting: waiting.has_gradient)  # type: ignore[misc]
        for call in unreached:
            is_named = self.selection.names_explicitly(call) and not call.obstacle
            if not self.collector.skip_unsupported and (is_named or len(unreached) == len(self.calls)):
                raise LayerError(call.name, no_gradient_reason(call, target, self.trace))
        return [call for call in self.calls if call not in unreached]

    def run_without_curvature(self, item: Round, error: NoCurvatureError, *, is_last: bool) -> list[LayerCall]:
        """Run the jobs of a round that do not need the curvature. `error` is why there is none."""

        def fail() -> None:
            raise error

        others = [job for job in item.jobs if not job.method.needs & Need.CURVATURE]
        for job in item.jobs:
            if job not in others:
                self.collector.attempt(job.name, NETWORK, fail)
        return self.run_round(replace(item, jobs=others), is_last=is_last) if others else list(self.calls)

    def scores_of(self, item: Round) -> Tensor | None:
        """Return the scores `(B,)` of a round with their graph; None if the output cannot be scored like this."""
        scores = [
            self.collector.attempt(job.name, NETWORK, lambda: item.scoring(item.target, self.trace.output))
            for job in item.jobs
        ]
        return scores[0]

    def weigh(
        self, weighted: list[WeightedJob], job: Job, call: LayerCall, signals: Signals, recorded: Signals
    ) -> None:
        """Compute the weights of the channels, which need the gradient. The map is their sum, after the backward pass.

        `recorded` are the same signals without the gradient.
        """
        method = job.method
        assert isinstance(method, Weighted)
        weights = self.attempt(job, call, lambda: method.weights(signals))
        if weights is not None:
            is_blank = not (weights.any() if len(weights) == 1 else weights.any(1).all())
            has_gradient = reached_images(call, signals) if is_blank else None
            weighted.append(WeightedJob(job, call, recorded, weights, has_gradient))

    def dispatch(self, job: Job, call: LayerCall, signals: Signals) -> None:
        """Run a job now, or later if it runs the model again."""
        if isinstance(job.method, VariantMethod):
            # It reads gradients of changed inputs only, so the ones at hand need not be kept while it waits.
            kept = replace(signals, tensors=signals.tensors.without_derivatives())
            self.variants.start(job, call, kept, is_required=self.selection.names_explicitly(call))
        elif job.method.needs & Need.EVALUATOR:
            self.deferred.append(partial(self.run_job, job, call, signals))
        else:
            self.run_job(job, call, signals)

    def run_job(self, job: Job, call: LayerCall, signals: Signals) -> None:
        def has_gradient() -> Tensor | None:
            return None if signals.tensors.output_gradient is None else reached_images(call, signals)

        self.store(job, call, lambda: job.method(signals), has_gradient)

    def store(
        self, job: Job, call: LayerCall, run: Callable[[], Tensor], has_gradient: Callable[[], Tensor | None]
    ) -> None:
        """Store the maps that `run` returns and, if one is blank, which images have a gradient: reading it takes time."""
        maps = self.attempt(job, call, run)
        if maps is None:
            return
        self.collector.add(job, call, maps)
        assert call.grid is not None
        is_blank = not (maps.any() if len(maps) == 1 else call.grid.split_parts(maps).flatten(1).any(1).all())
        if is_blank and (reached := has_gradient()) is not None:
            self.collector.has_gradient[job.target.key, call.name] = reached

    def attempt(self, job: Job, call: LayerCall, run: Callable[[], Tensor]) -> Tensor | None:
        """Return what `run` returns; None if the method does not fit the layer, which is an error for a named layer."""
        return self.collector.attempt(job.name, call.name, run, lambda: self.selection.names_explicitly(call))

    # 4. The entire model

    def run_network_method(
        self, name: str, method: NetworkMethod, target: ResolvedTarget, layer_signals: Mapping[str, Signals]
    ) -> None:
        base_maps = self.collector.base_maps.get((name, target.key), {})
        maps = {call.name: base_maps[call.name] for call in self.calls if call.name in base_maps}
        signals = ModelSignals(self.evaluator, target, method.scoring, maps, layer_signals)

        def run() -> Tensor:
            split = [layer for layer, own in layer_signals.items() if own.site.grid.has_part_axis]
            if split:
                raise MethodError("", f"it combines layers, and '{split[0]}' has several rows per input.")
            return method(signals)

        result = self.collector.attempt(name, NETWORK, run)
        if result is not None:
            self.collector.maps[name, target.key, NETWORK] = result


@dataclass(frozen=True, eq=False)
class WeightedJob:
    """A job with known weights of the channels `(B, K)`. `reached`: if all
    weights of an image are 0, which images have a gradient."""

    job: Job
    call: LayerCall
    signals: Signals
    weights: Tensor
    reached: Tensor | None

    def run(self) -> Tensor:
        """Return the maps."""
        return self.signals.weighted_sum(self.weights)

    @property
    def has_gradient(self) -> Tensor:
        """Which images have a gradient at the layer: bool (B,)."""
        if self.reached is not None:
            return self.reached
        assert self.call.grid is not None
        return self.call.grid.split_parts(self.weights).flatten(1).any(1)


def reached_images(call: LayerCall, signals: Signals) -> Tensor:
    """Return which images have a gradient at a layer: bool (B,)."""
    assert call.grid is not None
    return call.grid.split_parts(signals.gradients).flatten(1).any(1)


def no_gradient_reason(call: LayerCall, target: ResolvedTarget, trace: Trace) -> str:
    if call.obstacle:
        return f"{call.obstacle}, so it has no gradient. Use a method without gradients (eigencam), or another layer."
    if not has_graph(trace.output):
        return no_output_gradient()
    return f"target {target.name!r} does not depend on it: no gradient reaches it."
