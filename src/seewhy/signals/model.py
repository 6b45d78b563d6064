"""Signals of the full model, for methods that belong to no single layer: attention, biases, the maps of all layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import MethodError
from seewhy.signals.attention import AttentionLayer
from seewhy.signals.layer import Signals, TargetSignals
from seewhy.signals.recorded import signals_at
from seewhy.tensors.map_functions import nearly_equal, to_float32
from seewhy.tracing.grid import Grid
from seewhy.tracing.record import record_forward
from seewhy.tracing.token_places import needs_placing, place_tokens
from seewhy.tracing.token_probes import FEW, key_of
from seewhy.tracing.trace import AttentionRecord, LayerCall, RecordingRequest
from seewhy.tracing.twin import named_modules

SAME_SCORE = 1e-4  # relative difference of the score of tokens in another order


@dataclass(frozen=True, eq=False)
class AttentionSignals:
    """One attention from every token to every token, with the gradients of the scores.

    Attributes:
        weights: `(B, heads, N, N)`; rows are queries and sum to 1.
        gradients: Gradients with respect to the weights, same shape.
        queries, keys, values: `(B, heads, N, d)`; None if the model computes attention by hand.
        output_gradients: Gradients with respect to the output `(B, heads, N, d)`; None likewise.
    """

    weights: Tensor
    gradients: Tensor
    queries: Tensor | None
    keys: Tensor | None
    values: Tensor | None
    output_gradients: Tensor | None


@dataclass(frozen=True, eq=False)
class ModelSignals(TargetSignals):
    """The signals of the full model for one target.

    Attributes:
        maps: The maps `(B, *grid)` of the method's `base_method` by layer, in execution order.
        layers: The signals of the selected layers, if the method `keeps_layers`.
    """

    maps: Mapping[str, Tensor] = field(default_factory=dict)
    layers: Mapping[str, Signals] = field(default_factory=dict)

    # Biases

    def visit_biases(self, consume: Callable[[Tensor, Tensor], None]) -> Tensor:
        """Call `consume` with each bias `(K,)` and the gradient `(B, K, *grid)` at its output; return inputs * gradient.

        Runs one forward and one backward pass. The result has the shape of the inputs `(B, C, *size)`.
        """
        request = RecordingRequest(frozenset(), bias_terms=True)
        model = self.evaluator.original or self.evaluator.module  # a prepared model has other biases
        with record_forward(model, self.inputs, request, from_input=True) as trace:
            for bias in trace.bias_terms:
                bias.listener.on_gradient = lambda gradient, values=bias.values: consume(
                    to_float32(values), to_float32(gradient)
                )
            scores = self.scoring(self.target.for_variants(trace.output), trace.output)
            gradient = torch.autograd.grad(scores.sum(), trace.inputs)[0]
        return to_float32(self.inputs) * to_float32(gradient)

    # Attention

    @cached_property
    def attention_calls(self) -> list[AttentionLayer]:
        """Every attention layer of the model in execution order. Raises MethodError if they do not connect the same tokens."""
        return self.evaluator.attention_layers()

    @cached_property
    def token_grid(self) -> Grid:
        """How the tokens map to the image. Tokens without a place, such as a class token, come before the others."""
        for layer in self.attention_calls:
            for item in layer.records:
                if item.grid is not None and item.grid.layout == "tokens":
                    self._check_places(item)
                    return item.grid
        raise MethodError("", "how the model's tokens map to the image could not be inferred.")

    def _check_places(self, item: AttentionRecord) -> None:
        """Raise MethodError if the tokens of the block around an attention are not patches in row order after a prefix."""
        try:
            block = self._block_of([item])
        except MethodError:
            return
        evaluator = self.evaluator
        is_tiny = item.grid is not None and item.grid.cell_count < FEW  # whose tokens mix too much after a block
        if is_tiny or (not needs_placing(block, evaluator.grid) and block.refused_grid is None):
            return
        placement = place_tokens(evaluator.module, evaluator.inputs, [block], evaluator.grid).get(key_of(block))
        if block.refused_grid is not None or (placement is not None and placement.grid is None):
            raise MethodError("", "the tokens of this model are not patches in the order of the input.")
        if placement is not None and placement.grid is not None and placement.grid.cells is not None:
            raise MethodError("", "some tokens without a place (class token, text) come between or after the patches.")

    @cached_property
    def attention(self) -> list[AttentionSignals]:
        """Every attention with the gradients of the scores, in execution order."""
        layers = self.attention_calls
        outputs = [layer.parts("output") or [] for layer in layers]
        tensors = [tensor for layer in layers for tensor in layer.tensors] + [t for parts in outputs for t in parts]
        output = self.evaluator.attention_trace().output
        with torch.enable_grad():
            scores = self.scoring(self.target.for_variants(output), output)
        gradients = torch.autograd.grad(scores.sum(), tensors, retain_graph=True, allow_unused=True)
        filled = iter([torch.zeros_like(t) if g is None else g for t, g in zip(tensors, gradients, strict=True)])
        of_weights = [layer.arrange([next(filled) for _ in layer.tensors]) for layer in layers]
        of_outputs = [
            layer.arrange([next(filled) for _ in parts]) if parts else None
            for layer, parts in zip(layers, outputs, strict=True)
        ]
        return [
            AttentionSignals(
                layer.weights, of_weights[index], detached(layer, "queries"), detached(layer, "keys"),
                detached(layer, "values"), of_outputs[index],
            )
            for index, layer in enumerate(layers)
        ]  # fmt: skip

    @cached_property
    def read_tokens(self) -> Tensor:
        """The tokens that the score reads after the last attention, observed by its gradient: booleans `(B, N)`.

        Raises:
            MethodError: There are none; or the score reads patches and other tokens, but not all alike.
        """
        output = self.evaluator.attention_trace().output
        with torch.enable_grad():
            scores = self.scoring(self.target.for_variants(output), output)
        gradient = self.attention_calls[-1].gradient(scores.sum())
        if gradient is None or not gradient.any():
            raise MethodError(
                "", "the score does not depend on the last attention, so there is no token to start from."
            )
        read = gradient.ne(0).any(3).any(1)
        read[~read.any(1)] = read.any(0)  # an image without a gradient
        is_cell = torch.zeros_like(read[0])
        is_cell[list(self.token_grid.token_indices())] = True
        if read[:, is_cell].any() and read[:, ~is_cell].any() and not self._reads_alike(read[0]):
            raise MethodError("", "the score reads both patches and other tokens (such as a class token). Use legrad.")
        return read

    def _reads_alike(self, read: Tensor) -> bool:
        """Return True if the order of the tokens `read` (N,) does not change the score of the first image, as for a mean."""
        block = self.block_of(self.attention_calls[-1])
        original, tokens = block.value[:1], read.nonzero()[:, 0]
        turned = original.clone()
        turned[:, tokens] = original[:, tokens.roll(1)]
        before, after = (self.score_from(block, 0, values).detach() for values in (original, turned))
        return nearly_equal(after, before, SAME_SCORE)

    def map_from_matrices(self, matrices: Tensor) -> Tensor:
        """Return the map `(B, *grid)` in matrices `(B, N, N)`: the mean of the rows of the tokens that the score reads."""
        read = self.read_tokens
        row = matrices.mean(1) if read.all() else (matrices * read[:, :, None]).sum(1) / read.sum(1, keepdim=True)
        return self.map_from_tokens(row)

    def map_from_tokens(self, tokens: Tensor) -> Tensor:
        """Arrange one value per token `(B, N)` as a map `(B, *grid)`."""
        # Some models compute attention in float32 whatever their own dtype.
        tokens = to_float32(tokens.to(torch.promote_types(tokens.dtype, self.inputs.dtype)))
        return self.token_grid.take_cells(tokens).reshape(-1, *self.token_grid.shape)

    def block_of(self, attention: AttentionLayer) -> LayerCall:
        """Return the call of the repeated block that contains an attention layer."""
        return self._block_of(attention.records)

    def _block_of(self, records: Sequence[AttentionRecord]) -> LayerCall:
        for call in self.evaluator.attention_trace().calls:
            if all(record.running.get(call.module) == call.number for record in records):
                return call
        raise MethodError("", f"no repeated block of the model contains the attention '{records[0].module}'.")

    def score_from(self, call: LayerCall, image: int, values: Tensor) -> Tensor:
        """Return the score `(1,)` of one image if a call returns `values` `(1, ...)`, differentiable with respect to them."""
        partial = self.evaluator.partial_forward(image, call.module, call.number)
        with torch.enable_grad():
            output: Any = partial(values)
            return self.scoring(self.target.for_image(output, image, len(values)), output)

    # Single layers

    def layer_signals(self, module: str) -> Signals:
        """Record a module by its name and return its signals, without gradients."""
        request = RecordingRequest(frozenset({module}))
        with record_forward(self.evaluator.module, self.inputs, request, grid=self.evaluator.grid) as trace:
            for call in trace.calls:
                if call.grid is not None:
                    return signals_at(call, self.evaluator, self.target, self.scoring)
        raise MethodError("", f"the output of '{module}' has no grid that maps to the image.")

    def modules(self) -> dict[str, nn.Module]:
        """Return every module by its name."""
        return dict(named_modules(self.evaluator.module))


def detached(layer: AttentionLayer, name: str) -> Tensor | None:
    parts = layer.parts(name)
    return None if parts is None else layer.arrange([part.detach() for part in parts])
