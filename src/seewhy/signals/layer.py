"""What a layer gave and what came back to it: the only thing a method ever sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import Flag, auto
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor

from seewhy.errors import REFUSALS, MethodError
from seewhy.signals.evaluator import Build, Network, Probe, Rows
from seewhy.signals.scoring import Scoring, TargetScore
from seewhy.targets import ResolvedTarget
from seewhy.tensors import to_float32
from seewhy.tracing.grid import grid_text
from seewhy.tracing.record import recording
from seewhy.tracing.trace import Call, Trace, Wanted


class Need(Flag):
    """What a method needs beside a layer's activations. The engine runs the least that all needs ask for."""

    NOTHING = 0
    GRADIENTS = auto()  # one backward pass, shared by all methods and layers
    CURVATURE = auto()  # a second derivative at each layer
    HEAD = auto()  # the linear layer behind the pooling
    PROBES = auto()  # forwards of its own: score_inputs, score_activations, guided


def wanted_for(needs: Need, wanted: Wanted) -> Wanted:
    """What must be recorded for these needs. Fused attention has no second derivative, so curvature spells it out."""
    return replace(wanted, heads=bool(needs & Need.HEAD), attention=bool(needs & Need.CURVATURE))


class Variant(ABC):
    """A change of the inputs, as a frozen value: equal variants are run once for all methods and layers that ask."""

    @abstractmethod
    def __call__(self, inputs: Tensor) -> Tensor:
        """The changed inputs (B, C, *size); the size may be another."""


@dataclass(eq=False)
class Signals:
    """One layer's signals for one target, channels first, in float32 or wider.

    `activations` A (B, K, *grid) is the layer's output; `gradients` G (B, K, *grid) the gradient of each picture's score
    with respect to it, `curvature` (B, K, *grid) the Hessian of the score times A. What several methods need is computed
    once and kept here. What a method did not say it `needs` raises MethodError.
    """

    layer: str
    activations: Tensor
    known_gradients: Tensor | None = None
    known_curvature: Tensor | None = None
    probe: Probe | None = None

    @property
    def gradients(self) -> Tensor:
        if self.known_gradients is None:
            raise MethodError("", "it reads gradients, so it must say needs = Need.GRADIENTS.")
        return self.known_gradients

    @property
    def curvature(self) -> Tensor:
        if self.known_curvature is None:
            raise MethodError("", "it reads the curvature, so it must say needs = Need.CURVATURE.")
        return self.known_curvature

    @cached_property
    def contributions(self) -> Tensor:
        """G * A, elementwise (B, K, *grid): to first order, what each cell of each channel adds to the score."""
        return self.gradients * self.activations

    @cached_property
    def positive_gradients(self) -> Tensor:
        """The gradients with negatives set to zero (B, K, *grid)."""
        return self.gradients.clamp(min=0)

    @cached_property
    def activation_sums(self) -> Tensor:
        """S_k: the activations of each channel summed over the grid (B, K)."""
        return self.activations.flatten(2).sum(2)

    # The network asked again

    @property
    def asked(self) -> Probe:
        if self.probe is None:
            raise MethodError("", "it asks the network again, and these signals come without one.")
        return self.probe

    @property
    def inputs(self) -> Tensor:
        """What the network saw (B, C, *size)."""
        return self.asked.network.inputs

    @property
    def scores(self) -> Tensor:
        """The score of each picture (B,), as it was asked for."""
        return self.asked.asked.scores.detach()

    def score_of(self, scoring: Scoring) -> Tensor:
        """Another number (B,) of the same answer, such as its probability."""
        with torch.no_grad():
            return scoring(self.asked.asked, self.asked.network.output).detach()

    @cached_property
    def head_weights(self) -> Tensor:
        """The weights (B, K) of the linear layer behind mean pooling, for each picture's class.

        Raises MethodError where anything else lies between this layer and the class scores.
        """
        return self.head_table[0][self.classes]

    @cached_property
    def head_table(self) -> tuple[Tensor, Tensor]:
        """The weights (classes, K) and bias (classes,) of the linear layer behind mean pooling."""
        head = self.asked.head(self.activations)
        weight = head.weight.to(self.activations.dtype)
        bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.to(weight.dtype)
        return weight, bias

    @property
    def classes(self) -> Tensor:
        """The class of each picture (B,). Raises MethodError where the target is no class."""
        classes = self.asked.asked.classes
        if classes is None:
            raise MethodError("", "it needs a class as target.")
        return classes

    @property
    def guided(self) -> Tensor:
        """Guided backpropagation of the scores to the inputs (B, C, *size)."""
        return self.asked.network.guided(self.asked.asked)

    def score_inputs(
        self,
        picture: int,
        count: int,
        build: Build,
        *,
        scoring: Scoring | None = None,
        batch_size: int | None = None,
        shared: Hashable = None,
    ) -> Tensor:
        """The scores (count,) of variants of one picture of the batch.

        `build(rows)` makes the inputs (n, C, *size) of a slice of them; as many at a time as fit the memory budget, or
        `batch_size`, so that never all exist at once. `shared` (usually the method itself) says that the rows do not depend on
        the target, so that several targets share the forwards.
        """
        rows = Rows(picture, count, build, scoring or TargetScore(), batch_size, keyed(shared, self.layer))
        return self.asked.score_inputs(rows)

    def score_activations(
        self,
        picture: int,
        count: int,
        build: Build,
        *,
        scoring: Scoring | None = None,
        batch_size: int | None = None,
        shared: Hashable = None,
    ) -> Tensor:
        """The scores (count,) of one picture with other activations at this layer; nothing before it is computed again.

        `build(rows)` makes the activations (n, K, *grid) of a slice of them.
        """
        rows = Rows(picture, count, build, scoring or TargetScore(), batch_size, keyed(shared, self.layer))
        return self.asked.score_activations(rows)

    def score(self, inputs: Tensor, picture: int, scoring: Scoring | None = None) -> Tensor:
        """The scores (N,) of variants (N, C, *size) of one picture, differentiable with respect to them."""
        return self.asked.score(inputs, picture, scoring or TargetScore())

    def again(self, variant: Variant) -> Signals:
        """This layer's activations and gradients for changed inputs: one more forward and backward."""
        probe, found = self.asked, list[Signals]()
        changed = probe.network.changed(variant(probe.network.inputs))
        curved = self.known_curvature is not None
        wanted = Wanted(frozenset({probe.module}), heads=True, attention=curved)
        with recording_changed(changed, probe.network, wanted) as trace:
            calls = [call for call in trace.calls if call.index == probe.index]
            context = Context(changed.note_to(trace), probe.asked.for_variants(trace.output), probe.scoring)
            differentiate(trace, context, calls, lambda _, at: found.append(at), curved=curved)
        if not found:
            raise MethodError("", f"for changed inputs no gradient reaches layer '{self.layer}'.")
        return found[0]


def keyed(shared: Hashable, layer: str) -> Hashable:
    return None if shared is None else (shared, layer)


@contextmanager
def recording_changed(changed: Network, original: Network, wanted: Wanted) -> Iterator[Trace]:
    """`recording` for changed inputs. Raises MethodError where the model does not take inputs of their size."""
    with ExitStack() as stack:
        try:
            trace = stack.enter_context(recording(changed.module, changed.inputs, wanted, grid=changed.grid))
        except torch.OutOfMemoryError:
            raise
        except REFUSALS as error:
            if changed.inputs.shape == original.inputs.shape:
                raise
            size, said = grid_text(changed.inputs.shape[2:]), " ".join(str(error.__cause__ or error).split())
            raise MethodError("", f"the model does not take inputs of size {size} ({said}).") from None
        yield trace


@dataclass(frozen=True, eq=False)
class Context:
    """Around one backward pass: the network, the question, and which number of the answer is followed back."""

    network: Network
    asked: ResolvedTarget
    scoring: Scoring = field(default_factory=TargetScore)

    def signals(self, call: Call, gradient: Tensor | None = None, curvature: Tensor | None = None) -> Signals:
        assert call.grid is not None
        grid = call.grid

        def ready(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            return to_float32(grid.channels_first(tensor))

        activations = ready(call.output.detach())
        assert activations is not None
        probe = Probe(self.network, self.asked, call.module, call.index, grid, self.scoring)
        return Signals(call.name, activations, ready(gradient), ready(curvature), probe)


Consume = Callable[[Call, Signals], None]


def differentiate(
    trace: Trace,
    context: Context,
    calls: Sequence[Call],
    consume: Consume,
    *,
    retain_graph: bool = False,
    curved: bool = False,
) -> list[Call]:
    """One backward pass from the scores (B,): `consume` gets each call's signals as soon as its gradient arrives.

    Gradients live only while `consume` runs, so 50 layers do not mean 50 gradients in memory. No parameter's gradient is
    computed and no `.grad` written. `retain_graph` keeps graph and outputs for another. `curved` adds the curvature, with
    one more backward pass for every call. Gives the calls that no gradient reached.
    """
    waiting = dict.fromkeys(calls)
    scores = context.scoring(context.asked, trace.output)
    if not scores.requires_grad:
        return list(waiting)
    if curved:
        return twice(scores, context, calls, consume)

    def arrive(call: Call, gradient: Tensor) -> None:
        waiting.pop(call, None)
        consume(call, context.signals(call, gradient))  # autograd has switched gradients off while it runs
        if not retain_graph:
            del call.output  # nobody needs it any more, and what is left of the backward pass can use its memory

    try:
        for call in calls:
            call.ear.receive = partial(arrive, call)
        torch.autograd.grad(scores.sum(), trace.roots, retain_graph=retain_graph, allow_unused=True)
    finally:
        for call in calls:
            call.ear.receive = None
    return list(waiting)


def twice(scores: Tensor, context: Context, calls: Sequence[Call], consume: Consume) -> list[Call]:
    """Gradients G, and for each call the Hessian of the scores times A: the gradient of <G, A> with A held fixed."""
    outputs = [call.output for call in calls]
    gradients: Sequence[Tensor | None] = cast(
        Any, torch.autograd.grad(scores.sum(), outputs, create_graph=True, allow_unused=True)
    )
    missed = []
    for call, gradient in zip(calls, gradients, strict=True):
        if gradient is None:
            missed.append(call)
            continue
        curvature = None
        if gradient.requires_grad:
            along = (gradient * call.output.detach()).sum()
            curvature = torch.autograd.grad(along, call.output, retain_graph=True, allow_unused=True)[0]
        if curvature is None:
            curvature = torch.zeros_like(gradient)
        with torch.no_grad():
            consume(call, context.signals(call, gradient.detach(), curvature.detach()))
    return missed
