"""Every method at every layer for every target, with as few passes through the network as they can share.

1. All methods that follow the same number back share one backward pass for each target; those without gradients need none.
2. Methods that ask the network again come after it, when the graph is gone.
3. Methods that look at variants of the inputs go in step: an equal variant is run once for all layers, methods and targets.
4. Methods of the whole network come last.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from seewhy.errors import LayerError, MethodError, UsageError
from seewhy.methods.base import AnyMethod, Method, MultiMapMethod, NetworkMethod, VariantMethod
from seewhy.signals.evaluator import Network
from seewhy.signals.layer import Context, Need, Signals, Variant, differentiate, recording_changed, wanted_for
from seewhy.signals.model import ModelSignals
from seewhy.signals.scoring import Scoring
from seewhy.targets import ResolvedTarget
from seewhy.tracing.layer_selection import LayerSelection
from seewhy.tracing.trace import LayerCall, Trace, RecordingRequest

Key = tuple[str, str, str]  # method, target, layer
NETWORK = "network"  # in place of a layer, for methods that belong to none


@dataclass(eq=False)
class Job:
    """One method for one target at one layer; `base_of`: its map is not wanted itself, but by a method of the network."""

    name: str
    method: Method | MultiMapMethod
    asked: ResolvedTarget
    base_of: bool = False


@dataclass(eq=False)
class PendingJob:
    """A job at one layer, waiting for the signals of a variant of the inputs."""

    job: Job
    call: LayerCall
    generator: Generator[Variant, Signals, Tensor]


@dataclass(eq=False)
class Passes:
    """Runs `methods` at `calls`, all recorded in `trace`. After `run`, `maps` holds what was made.

    `reached` (B,) says for blank maps whether any gradient came there; `silent` are the calls that no target depends on;
    `unfit` says by method and layer why there is no map. `lenient`: that is never an error.
    """

    network: Network
    trace: Trace
    calls: Sequence[LayerCall]
    methods: dict[str, AnyMethod]
    selection: LayerSelection
    lenient: bool = False
    maps: dict[Key, Tensor] = field(default_factory=dict)
    reached: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    unfit: dict[str, dict[str, str]] = field(default_factory=dict)
    silent: list[LayerCall] = field(default_factory=list)

    def run(self, asked: Sequence[ResolvedTarget]) -> None:
        """Make all maps. Raises MethodError for a method that fits none of the layers, or not the one that was named;
        LayerError for a named layer that a target does not depend on."""
        self.network.note_to(self.trace).several_targets = len(asked) > 1
        self.bases: dict[tuple[str, str], dict[str, Tensor]] = {}  # by network method and target
        self.after: list[Callable[[], None]] = []
        self.waiting: dict[Variant, list[PendingJob]] = {}
        self.kept: dict[str, Signals] = {}
        if any(isinstance(method, NetworkMethod) and method.keeps_layers for method in self.methods.values()):
            context = Context(self.network, asked[0])
            self.kept = {call.name: context.signals(call) for call in self.calls}
        heard = dict.fromkeys(self.calls)
        rounds = [(item, scoring, jobs) for item in asked for scoring, jobs in self.jobs_by_scoring(item).items()]
        rounds.sort(key=lambda entry: order_of(needs_of(entry[2])))
        for number, (item, scoring, jobs) in enumerate(rounds, 1):
            for call in self.backward(item, scoring, jobs, last=number == len(rounds)):
                heard.pop(call, None)
        self.silent = list(heard) if rounds else []
        self.release_graph(asked)
        for job in self.after:
            job()
        while self.waiting:
            variant = next(iter(self.waiting))
            self.step(variant, self.waiting.pop(variant))
        for item in asked:
            for name, method in self.methods.items():
                if isinstance(method, NetworkMethod):
                    self.whole(name, method, item)
        self.complain()

    def release_graph(self, asked: Sequence[ResolvedTarget]) -> None:
        """Free the graph: nothing that comes after follows it."""
        self.trace.output, self.trace.calls = None, []
        for call in self.calls:
            if "output" in call.__dict__:
                del call.output
        for item in asked:
            item.scores = item.scores.detach()

    # Jobs

    def jobs_by_scoring(self, asked: ResolvedTarget) -> dict[Scoring, list[Job]]:
        found: dict[Scoring, list[Job]] = {}
        for name, method in self.methods.items():
            job = None
            if isinstance(method, (Method, MultiMapMethod)):
                job = Job(name, method, asked)
            elif method.base_method is not None:
                job = Job(name, method.base_method, asked, base_of=True)
            if job is not None:
                found.setdefault(job.method.scoring, []).append(job)
        return found

    def keep(self, job: Job, layer: str, made: Tensor) -> None:
        if job.base_of:
            self.bases.setdefault((job.name, job.asked.key), {})[layer] = made
        elif isinstance(job.method, MultiMapMethod):
            for index in range(made.shape[1]):
                self.maps[f"{job.name}#{index + 1}", job.asked.key, layer] = made[:, index]
        else:
            self.maps[job.name, job.asked.key, layer] = made

    def attempt(self, name: str, layer: str, insisted: bool, function: Callable[[], Any]) -> Any:
        """What `function` gives; None, and noted, where the method does not fit and that is no error."""
        try:
            return function()
        except MethodError as error:
            reason = error.reason
        except LayerError as error:
            reason = f"layer '{error.layer}': {error.reason}"
        except UsageError as error:  # a target that the output cannot answer so
            reason = str(error)
        if insisted and not self.lenient:
            raise MethodError(name, reason) from None
        self.unfit.setdefault(name, {})[layer] = reason
        return None

    # 1. Backward passes

    def backward(self, item: ResolvedTarget, scoring: Scoring, jobs: list[Job], *, last: bool) -> list[LayerCall]:
        """Run jobs that share a backward pass; gives the calls that it reached (all, where none was needed)."""
        needs = needs_of(jobs)
        context = Context(self.network, item, scoring)
        if not needs & Need.GRADIENTS:
            for call in self.calls:
                self.serve(jobs, call, context.signals(call))
            return list(self.calls)

        def consume(call: LayerCall, at: Signals) -> None:
            self.serve(jobs, call, at)

        scores = [self.attempt(job.name, NETWORK, True, lambda: scoring(item, self.trace.output)) for job in jobs]
        if scores[0] is None:
            return list(self.calls)
        curved = bool(needs & Need.CURVATURE)
        missed = differentiate(self.trace, context, self.calls, consume, retain_graph=not last, curved=curved)
        for call in missed:
            if not self.lenient and (self.selection.names_explicitly(call) or len(missed) == len(self.calls)):
                raise LayerError(
                    call.name, f"target {item.name!r} does not depend on it: no gradient reaches this layer."
                )
        return [call for call in self.calls if call not in missed]

    def serve(self, jobs: list[Job], call: LayerCall, at: Signals) -> None:
        for job in jobs:
            if isinstance(job.method, VariantMethod):
                # It asks for gradients of other inputs only, so those that are here need not wait with it.
                self.start(job, call, Signals(at.layer, at.activations, probe=at.probe))
            elif job.method.needs & Need.PROBES:
                self.after.append(partial(self.one, job, call, at))
            else:
                self.one(job, call, at)

    def one(self, job: Job, call: LayerCall, at: Signals) -> None:
        made = self.attempt(job.name, call.name, self.selection.names_explicitly(call), lambda: job.method(at))
        if made is None:
            return
        self.keep(job, call.name, made)
        if at.known_gradients is not None and not (made.any() if len(made) == 1 else made.flatten(1).any(1).all()):
            # only where a map is blank are all its gradients worth a look
            self.reached[job.asked.key, call.name] = at.gradients.flatten(1).any(1)

    # 3. Variants of the inputs

    def start(self, job: Job, call: LayerCall, at: Signals) -> None:
        assert isinstance(job.method, VariantMethod)
        self.proceed(PendingJob(job, call, job.method.passes(at)), lambda running: next(running.generator))

    def proceed(self, running: PendingJob, move: Callable[[PendingJob], Variant]) -> None:
        """Let a generator run to its next wish, or to its end."""
        job, call = running.job, running.call

        def moved() -> Variant | Tensor:
            try:
                return move(running)
            except StopIteration as end:
                made: Tensor = end.value
                return made

        got = self.attempt(job.name, call.name, self.insists(running), moved)
        if isinstance(got, Variant):
            self.waiting.setdefault(got, []).append(running)
        elif got is not None:
            self.keep(job, call.name, got)

    def insists(self, running: PendingJob) -> bool:
        return self.selection.names_explicitly(running.call)

    def step(self, variant: Variant, group: list[PendingJob]) -> None:
        """Run one variant for all that wait for it."""
        try:
            self.run_variant(self.network.changed(variant(self.network.inputs)), group)
        except MethodError as error:
            self.refuse(group, error.reason)
        self.network.tick(3 * len(self.network.inputs))

    def refuse(self, group: Sequence[PendingJob], reason: str) -> None:
        def fail() -> None:
            raise MethodError("", reason)

        for running in group:
            self.attempt(running.job.name, running.call.name, self.insists(running), fail)

    def run_variant(self, network: Network, group: list[PendingJob]) -> None:
        names = frozenset(running.call.module for running in group)
        wanted = wanted_for(needs_of([running.job for running in group]) | Need.HEAD, RecordingRequest(names))
        sharing: dict[tuple[str, Scoring], list[PendingJob]] = {}
        for running in group:
            sharing.setdefault((running.job.asked.key, running.job.method.scoring), []).append(running)
        with recording_changed(network, self.network, wanted) as trace:
            network.note_to(trace)
            at_place = {(call.module, call.number): call for call in trace.calls if call.grid is not None}
            for number, ((_, scoring), some) in enumerate(sharing.items(), 1):
                listeners: dict[LayerCall, list[PendingJob]] = {}
                for running in some:
                    call = at_place.get((running.call.module, running.call.number))
                    if call is None:
                        self.refuse([running], "for changed inputs the layer is not called, or has no grid.")
                    else:
                        listeners.setdefault(call, []).append(running)

                def consume(call: LayerCall, at: Signals, listeners: dict[LayerCall, list[PendingJob]] = listeners) -> None:
                    for running in listeners[call]:
                        self.proceed(running, lambda running: running.generator.send(at))

                context = Context(network, some[0].job.asked.for_variants(trace.output), scoring)
                curved = bool(needs_of([running.job for running in some]) & Need.CURVATURE)
                more = number < len(sharing)
                for call in differentiate(trace, context, list(listeners), consume, retain_graph=more, curved=curved):
                    self.refuse(listeners[call], "for changed inputs no gradient reaches the layer.")

    # 4. The whole network

    def whole(self, name: str, method: NetworkMethod, item: ResolvedTarget) -> None:
        bases = self.bases.get((name, item.key), {})
        maps = {call.name: bases[call.name] for call in self.calls if call.name in bases}
        whole = ModelSignals(self.network, item, method.scoring, maps, self.kept if method.keeps_layers else {})
        made = self.attempt(name, NETWORK, True, lambda: method(whole))
        if made is not None:
            self.maps[name, item.key, NETWORK] = made

    def complain(self) -> None:
        """A method without any map is an error, with the reason at its last layer."""
        for name, reasons in self.unfit.items():
            if not self.lenient and not any(key[0].partition("#")[0] == name for key in self.maps):
                raise MethodError(name, list(reasons.values())[-1])


def needs_of(jobs: Sequence[Job]) -> Need:
    needs = Need.NOTHING
    for job in jobs:
        needs |= job.method.needs
    return needs


def order_of(needs: Need) -> int:
    """Which backward pass comes when: the last, a plain one, lets the graph go as it is used."""
    if not needs & Need.GRADIENTS:
        return 0
    return 1 if needs & Need.CURVATURE else 2
