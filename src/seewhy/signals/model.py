"""The whole network as a method sees it that belongs to no single layer: attention, biases, the maps of all layers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import MethodError
from seewhy.signals.evaluator import Build, Network, Probe, Rows
from seewhy.signals.layer import Context, Signals
from seewhy.signals.scoring import Scoring, TargetScore
from seewhy.targets import ResolvedTarget
from seewhy.tensors import to_float32
from seewhy.tracing.grid import Grid
from seewhy.tracing.layer_selection import blocks
from seewhy.tracing.record import recording
from seewhy.tracing.trace import Attention, Call, Trace, Wanted
from seewhy.tracing.twin import named_modules


@dataclass(eq=False)
class Attended:
    """One attention of every token to every token: `weights` (B, heads, N, N), rows are queries and sum to 1.

    `gradients` are those of the scores with respect to the weights; `queries`, `keys`, `values` (B, heads, N, d) and the
    gradient at the output (B, heads, N, d) are None where the network computes attention by hand.
    """

    weights: Tensor
    gradients: Tensor
    queries: Tensor | None
    keys: Tensor | None
    values: Tensor | None
    output_gradients: Tensor | None


@dataclass(eq=False)
class ModelSignals:
    """A network, its inputs and one question. `maps` (B, *grid) and `signals` by layer, in execution order, where the
    method has a base or keeps layers."""

    network: Network
    asked: ResolvedTarget
    scoring: Scoring = field(default_factory=TargetScore)
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    signals: Mapping[str, Signals] = field(default_factory=dict)

    @property
    def inputs(self) -> Tensor:
        """What the network saw (B, C, *size)."""
        return self.network.inputs

    def score_of(self, scoring: Scoring) -> Tensor:
        """A number (B,) of the answer, such as its probability."""
        with torch.no_grad():
            return scoring(self.asked, self.network.output).detach()

    def score_inputs(
        self, picture: int, count: int, build: Build, scoring: Scoring | None = None, shared: Hashable = None
    ) -> Tensor:
        """The scores (count,) of variants of one picture; see `Signals.score_inputs`."""
        return Probe(self.network, self.asked).score_inputs(
            Rows(picture, count, build, scoring or TargetScore(), None, shared)
        )

    # Biases

    def each_bias(self, consume: Callable[[Tensor, Tensor], None]) -> Tensor:
        """One forward and backward: `consume` gets each bias (K,) with the gradient (B, K, *grid) at the same place.

        Gives the inputs times their gradient (B, C, *size).
        """
        wanted = Wanted(frozenset(), biases=True)
        with recording(self.network.module, self.inputs, wanted, from_input=True) as trace:
            for bias in trace.biases:
                bias.ear.receive = lambda gradient, values=bias.values: consume(
                    to_float32(values), to_float32(gradient)
                )
            scores = self.scoring(self.asked.for_variants(trace.output), trace.output)
            gradient = torch.autograd.grad(scores.sum(), trace.inputs)[0]
        return to_float32(self.inputs) * to_float32(gradient)

    # Attention

    @property
    def attention_trace(self) -> Trace:
        """One forward with every attention worked out step by step, and what the blocks gave; all methods share it."""
        if self.network.attention is not None:
            return self.network.attention
        names = blocks({"": self.network.module, **dict(named_modules(self.network.module))})
        wanted = Wanted(names, attention=True)
        with recording(self.network.module, self.inputs, wanted, from_input=True, grid=self.network.grid) as trace:
            self.network.attention = trace
            return trace

    @cached_property
    def attentions(self) -> list[Attention]:
        heard = self.attention_trace.attentions
        found = [item for item in heard if len(item.heads.weights) == len(self.inputs)]
        if not found:
            windows = " (its attention is in windows)" if heard else ""
            raise MethodError(
                "", f"this network has no attention from every token to every token{windows}; take gradcam."
            )
        sizes = {item.heads.weights.shape[-1] for item in found}
        if self.attention_trace.pooled or len(found) < len(heard) or len(sizes) > 1:
            reason = "not all its attention is of the same tokens to each other (it pools, or looks through windows)"
            raise MethodError("", f"{reason}, and this method follows no other; take gradcam.")
        return found

    @cached_property
    def token_grid(self) -> Grid:
        """How the tokens lie on the picture."""
        for item in self.attentions:
            if item.grid is not None and item.grid.layout == "tokens":
                return item.grid
        raise MethodError("", "how its tokens lie on the picture could not be told.")

    @cached_property
    def attended(self) -> list[Attended]:
        """Every attention with the gradient of the scores, in execution order."""
        heads = [item.heads for item in self.attentions]
        wanted = [head.weights for head in heads] + [head.output for head in heads if head.output is not None]
        with torch.enable_grad():
            scores = self.scoring(self.asked.for_variants(self.attention_trace.output), self.attention_trace.output)
        gradients = torch.autograd.grad(scores.sum(), wanted, retain_graph=True, allow_unused=True)
        known = [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, gradients, strict=True)]
        outputs = iter(known[len(heads) :])
        return [
            Attended(
                to_float32(head.weights.detach()), to_float32(known[index]), detached(head.queries), detached(head.keys),
                detached(head.values), None if head.output is None else to_float32(next(outputs)),
            )
            for index, head in enumerate(heads)
        ]  # fmt: skip

    def from_rows(self, matrices: Tensor) -> Tensor:
        """The map (B, *grid) in matrices (B, N, N): what the class token looks at, or all tokens where there is none."""
        grid = self.token_grid
        row = matrices[:, 0] if grid.prefix else matrices.mean(1)
        return self.on_grid(row)

    def on_grid(self, tokens: Tensor) -> Tensor:
        """Values (B, N), one a token, as a map (B, *grid)."""
        # Some networks work out attention in float32 whatever their own type.
        tokens = to_float32(tokens.to(torch.promote_types(tokens.dtype, self.inputs.dtype)))
        return tokens[:, self.token_grid.prefix :].reshape(-1, *self.token_grid.shape)

    def block_of(self, attention: Attention) -> Call:
        """The call of the block in which an attention lies."""
        for call in self.attention_trace.calls:
            if f"{attention.module}.".startswith(f"{call.module}."):
                return call
        raise MethodError("", f"no repeated block of the network holds the attention in '{attention.module}'.")

    def score_from(self, call: Call, picture: int, values: Tensor) -> Tensor:
        """The score (1,) of one picture when a module gave `values` (1, ...), differentiable with respect to them."""
        tail = self.network.tail(call.module, call.index, picture)
        with torch.enable_grad():
            output: Any = tail(values)
            return self.scoring(self.asked.for_image(output, picture, len(values)), output)

    # Single layers

    def at(self, module: str) -> Signals:
        """The activations of a module by its name."""
        wanted = Wanted(frozenset({module}))
        with recording(self.network.module, self.inputs, wanted, grid=self.network.grid) as trace:
            for call in trace.calls:
                if call.grid is not None:
                    return Context(self.network, self.asked, self.scoring).signals(call)
        raise MethodError("", f"the output of '{module}' has no grid that lies on the picture.")

    def modules(self) -> dict[str, nn.Module]:
        """Every module by its name."""
        return dict(named_modules(self.network.module))


def detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else to_float32(tensor.detach())
