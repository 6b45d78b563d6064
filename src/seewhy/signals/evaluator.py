"""Asking the network again: scores of changed inputs and changed activations, of one picture at a time, in small batches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import MethodError
from seewhy.nested import map_tensors, tensors_in
from seewhy.signals.scoring import Scoring, TargetScore
from seewhy.targets import ResolvedTarget, logits
from seewhy.tracing.function_modes import GuidedReLU
from seewhy.tracing.grid import Grid, Hint
from seewhy.tracing.record import recording
from seewhy.tracing.resume import PartialForward
from seewhy.tracing.single_input import for_image
from seewhy.tracing.trace import LinearHead, Trace, Wanted
from seewhy.tracing.twin import twin

MEMORY = 256 * 2**20  # bytes for the rows of one batch
HEAD_TOLERANCE = 1e-4

Build = Callable[[slice], Tensor]
Batch = tuple[Any, int]  # the network's output, and how many rows it has


@dataclass(frozen=True, eq=False)
class Rows:
    """`count` variants of one picture, made a slice at a time by `build`.

    `shared`: a value that equals another's only if the rows are the same, whatever the target; several targets then share
    the forwards.
    """

    picture: int
    count: int
    build: Build
    scoring: Scoring
    batch_size: int | None = None
    shared: Hashable = None


@dataclass(eq=False)
class Network:
    """What one call of `explain` knows about its network: model, inputs (B, C, *size), memory for a batch of variants.

    `tick` is told how many rows were done. `linears` are the linear layers of the forward, where they were recorded;
    `answers` what the network said to rows that several targets share; `attention` a forward that was listened to.
    """

    module: nn.Module
    inputs: Tensor
    memory: int = MEMORY
    tick: Callable[[int], None] = lambda rows: None
    linears: list[LinearHead] = field(default_factory=list)
    output: Any = None
    several_targets: bool = False
    grid: Hint | None = None  # as the user says that tokens lie on the picture
    answers: dict[Hashable, list[Batch]] = field(default_factory=dict)
    kept_bytes: int = 0
    attention: Trace | None = None
    _tails: dict[tuple[str | None, int, int], PartialForward] = field(default_factory=dict)
    _guided: dict[str, Tensor] = field(default_factory=dict)

    def changed(self, inputs: Tensor) -> Network:
        """The same network with other inputs."""
        return Network(self.module, inputs, self.memory, self.tick, grid=self.grid)

    def note_to(self, trace: Trace) -> Network:
        """This network, with what a forward said: its output, and what its linear layers were given."""
        self.linears, self.output = trace.linears, map_tensors(trace.output, torch.Tensor.detach)
        return self

    def has_room(self, output: Any) -> bool:
        """Whether one more answer fits the memory budget; it is counted then."""
        size = sum(tensor.nbytes for tensor in tensors_in(output))
        if self.kept_bytes + size > self.memory:
            return False
        self.kept_bytes += size
        return True

    def tail(self, module: str | None, index: int, picture: int) -> PartialForward:
        """What comes after a layer, for one picture; the last one is kept, as several methods ask for the same."""
        key = (module, index, picture)
        if key not in self._tails:
            self._tails.clear()
            whole = for_image(self.module, picture)
            self._tails[key] = PartialForward(whole, self.inputs[picture : picture + 1], module, index)
        return self._tails[key]

    def guided(self, asked: ResolvedTarget) -> Tensor:
        """Guided backpropagation of the scores to the inputs (B, C, *size): one forward and one backward, once a target."""
        if asked.key not in self._guided:
            relus = GuidedReLU()
            with recording(self.module, self.inputs, Wanted(frozenset()), from_input=True, guided=relus) as trace:
                if relus.others or not relus.heard:
                    others = f"has {', '.join(sorted(relus.others))}" if relus.others else "has none"
                    raise MethodError("", f"it is defined for ReLU, and this network {others}; take gradcam.")
                scores = asked.for_variants(trace.output).scores
                self._guided[asked.key] = torch.autograd.grad(scores.sum(), trace.inputs)[0]
        return self._guided[asked.key]


@dataclass(eq=False)
class Probe:
    """One question about one call of one module of a network, to be asked again."""

    network: Network
    asked: ResolvedTarget
    module: str = ""
    index: int = 1
    grid: Grid = field(default_factory=lambda: Grid(()))
    scoring: Scoring = field(default_factory=TargetScore)

    def score_inputs(self, rows: Rows) -> Tensor:
        """The scores (count,) of variants of a picture; see `Signals.score_inputs`."""
        return self.scores(None, rows)

    def score_activations(self, rows: Rows) -> Tensor:
        """The scores (count,) of a picture with other activations; see `Signals.score_activations`."""
        return self.scores(self.module, rows)

    def scores(self, module: str | None, rows: Rows) -> Tensor:
        if not rows.count:
            return self.asked.scores.new_zeros(0).detach()
        key = (rows.shared, module, self.index, rows.picture, rows.count)
        known = self.network.answers.get(key)
        batches = known or self.batches(self.network.tail(module, self.index, rows.picture), rows, key)
        found = []
        with torch.inference_mode():
            for output, count in batches:
                found.append(rows.scoring(self.asked.for_image(output, rows.picture, count), output))
                if known:
                    self.network.tick(count)
        return torch.cat(found).clone()  # no inference tensor: others may differentiate

    def batches(self, tail: PartialForward, rows: Rows, key: Hashable) -> Iterator[Batch]:
        """What the network answers to the rows, a batch at a time; kept for the next target where that is worth it."""
        size = rows.batch_size or max(1, min(rows.count, self.network.memory // tail.row_bytes))
        kept: list[Batch] = []
        keeping = rows.shared is not None and self.network.several_targets
        for start in range(0, rows.count, size):
            batch = rows.build(slice(start, min(start + size, rows.count)))
            if tail.module is not None:
                batch = self.grid.restore(batch.to(tail.original.dtype), tail.original)
            count, output = batch.shape[tail.axis], tail.fastest(batch)
            self.network.tick(count)
            keeping = keeping and self.network.has_room(output)
            if keeping:
                kept.append((output, count))
            yield output, count
        if keeping:
            self.network.answers[key] = kept

    def score(self, inputs: Tensor, picture: int, scoring: Scoring) -> Tensor:
        """The scores (N,) of variants (N, C, *size) of one picture, with their graph."""
        with torch.inference_mode(False), torch.enable_grad():
            output = twin(for_image(self.network.module, picture))(inputs)
            return scoring(self.asked.for_image(output, picture, len(inputs)), output)

    def head(self, activations: Tensor) -> LinearHead:
        """The linear layer that gives the class scores from the mean of `activations` (B, K, *grid) over the grid."""
        reason = "it needs the class scores to come from the mean of this layer by one linear layer"
        if self.asked.classes is None:
            raise MethodError("", "it needs a class as target.")
        if not self.network.linears:
            raise MethodError("", f"{reason}, and there is no linear layer on a vector; take hirescam.")
        head = self.network.linears[-1]
        tolerance = max(HEAD_TOLERANCE, 4 * torch.finfo(head.argument.dtype).eps)
        means, argument = activations.flatten(2).mean(2), head.argument.to(activations.dtype)
        same = argument.shape == means.shape and bool((argument - means).abs().amax() <= tolerance * means.abs().amax())
        if not same or not torch.equal(head.output, logits(self.network.output)):
            raise MethodError("", f"{reason}, and between them lies more (or another layer); take hirescam.")
        return head
