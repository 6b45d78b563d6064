"""Run a model again on changed inputs or activations of one image, in batches that fit in the memory budget."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import INPUT_ERRORS, LayerError, MethodError, one_line
from seewhy.places.parts import Parts
from seewhy.signals.attention import AttentionLayer, attention_layers
from seewhy.signals.linear_head import RULE, find_linear_head, trial_activations
from seewhy.signals.scoring import Scoring, TargetScore
from seewhy.targets import ResolvedTarget
from seewhy.targets.class_scores import logits
from seewhy.tensors.nested import map_tensors, tensors_in
from seewhy.tracing.folded_norm import FoldedNorm
from seewhy.tracing.function_modes import GuidedReLU
from seewhy.tracing.grid import Grid, GridHint, format_grid
from seewhy.tracing.layer_groups import find_blocks
from seewhy.tracing.model_properties import input_key, model_of
from seewhy.tracing.record import record_forward
from seewhy.tracing.resume import PartialForward
from seewhy.tracing.single_input import for_image
from seewhy.tracing.trace import LinearCall, RecordingRequest, Trace
from seewhy.tracing.twin import make_twin, named_modules

MEMORY = 256 * 2**20  # bytes for the rows of one batch
TRAINING_STEP = 3  # a forward and a backward pass cost about as much as three forward passes

Build = Callable[[slice], Tensor]
OutputBatch = tuple[Any, int]  # the model's output, and its number of rows

# Whether the class scores are linear in the mean of a layer, by input and layer
_linear_tails: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, bool]] = weakref.WeakKeyDictionary()
# Whether heads come before images in attention, by input and number of images
_heads_first: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, bool]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class CallSite:
    """One call of one module, and the grid of its output: where changed activations enter the model.

    `part`: which of several rows per input is changed. `norm`: what the output contains although the model applies it later.
    """

    module: str
    number: int
    grid: Grid
    part: int | None = None
    norm: FoldedNorm | None = None

    def restore(self, values: Tensor, original: Tensor) -> Tensor:
        """Return activations `(n, K, *grid)` as an output of the module; `original` is that of one input."""
        if self.norm is not None:
            values = self.norm.apply(values)
        if self.part is None:
            return self.grid.restore(values, original)
        return self.grid.restore_part(values, original, self.part)


@dataclass(frozen=True, eq=False)
class Rows:
    """`count` changed versions of one image, built one slice at a time, so that they never exist all at once.

    Attributes:
        image: Index of the image in the batch.
        build: Returns the rows of a slice: inputs `(n, C, *size)`, or activations `(n, K, *grid)` with a `site`.
        batch_size: Rows in one forward pass. None: as many as fit in the memory budget.
        shared: A key that is equal only for equal rows. Several targets share the forward passes of equal rows.
        site: Where the rows enter the model. None: they are inputs.
    """

    image: int
    count: int
    build: Build
    scoring: Scoring = field(default_factory=TargetScore)
    batch_size: int | None = None
    shared: Hashable = None
    site: CallSite | None = None


@dataclass(eq=False)
class Evaluator:
    """Runs one model again on changed versions of one batch of inputs, for all methods, targets and layers of a call.

    Outputs that several targets need, the attention of the model and the last partial forward are cached.

    Attributes:
        inputs: The batch `(B, C, *size)`.
        memory: Budget in bytes for the rows of one batch, and for cached outputs.
        on_progress: Called with the number of rows after each forward pass.
        grid: The user's `grid` setting: how tokens map to the image.
        original: The user's model, if `module` was prepared from it and differs inside.
        output: The model's output for `inputs`, detached.
        linear_calls: The calls of linear layers in that forward pass, if they were recorded.
        has_several_targets: True if the call has several targets, so that caching outputs pays off.
    """

    module: nn.Module
    inputs: Tensor
    memory: int = MEMORY
    on_progress: Callable[[int], None] = lambda rows: None
    grid: GridHint | None = None
    original: nn.Module | None = None
    output: Any = None
    linear_calls: list[LinearCall] = field(default_factory=list)
    has_several_targets: bool = False
    _outputs: dict[Hashable, list[OutputBatch]] = field(default_factory=dict)
    _output_bytes: int = 0
    _partial: tuple[Hashable, PartialForward] | None = None
    _guided: dict[str, Tensor] = field(default_factory=dict)
    _attention: Trace | None = None
    _layers: list[AttentionLayer] | None = None

    def keep_forward(self, trace: Trace) -> None:
        """Store the output and the linear calls of a forward pass on `inputs`."""
        self.linear_calls, self.output = trace.linear_calls, map_tensors(trace.output, torch.Tensor.detach)

    # Changed inputs and activations

    def scores(self, target: ResolvedTarget, rows: Rows) -> Tensor:
        """Return the score of each row `(count,)`, without a graph."""
        if not rows.count:
            return target.scores.new_zeros(0).detach()
        key = (rows.shared, rows.site and (rows.site.module, rows.site.number), rows.image, rows.count)
        cached = self._outputs.get(key)
        scores = []
        with torch.inference_mode():
            for output, count in cached or self._run(rows, key):
                scores.append(rows.scoring(target.for_image(output, rows.image, count), output))
                if cached:
                    self.on_progress(count)
        return torch.cat(scores).clone()  # a clone is not an inference tensor, so callers may use it in a graph

    def _run(self, rows: Rows, key: Hashable) -> Iterator[OutputBatch]:
        """Run the rows in batches. The outputs are cached for the next target if all of them fit in the budget."""
        site = rows.site
        partial = (
            self.partial_forward(rows.image, site.module, site.number, site.grid.parts)
            if site
            else (self.partial_forward(rows.image))
        )
        size = rows.batch_size or max(1, min(rows.count, self.memory // partial.row_bytes))
        kept: list[OutputBatch] = []
        is_kept = rows.shared is not None and self.has_several_targets
        for start in range(0, rows.count, size):
            batch = rows.build(slice(start, min(start + size, rows.count)))
            if rows.site is not None:
                batch = rows.site.restore(batch.to(partial.original.dtype), partial.original)
            count, output = partial.count(batch), partial.run_channels_last(batch)
            self.on_progress(count)
            is_kept = is_kept and self._reserve(output)
            if is_kept:
                kept.append((output, count))
            yield output, count
        if is_kept:
            self._outputs[key] = kept

    def _reserve(self, output: Any) -> bool:
        """Return True, and count the output's bytes, if it still fits in the memory budget."""
        size = sum(tensor.nbytes for tensor in tensors_in(output))
        if self._output_bytes + size > self.memory:
            return False
        self._output_bytes += size
        return True

    def partial_forward(
        self, image: int, module: str | None = None, number: int = 1, parts: Parts | None = None
    ) -> PartialForward:
        """Return the part of the model after one call of `module` (None: the full model) for one image; cached."""
        key = (image, module, number)
        if self._partial is None or self._partial[0] != key:
            self._partial = None  # free its memory before the next one is recorded
            model = for_image(self.module, image)
            self._partial = key, PartialForward(model, self.inputs[image : image + 1], module, number, parts)
        return self._partial[1]

    def differentiable_scores(self, target: ResolvedTarget, inputs: Tensor, image: int, scoring: Scoring) -> Tensor:
        """Return the scores `(N,)` of versions `(N, C, *size)` of one image, with their graph.

        Progress counts the backward pass too.
        """
        with torch.inference_mode(False), torch.enable_grad():
            output = make_twin(for_image(self.module, image))(inputs)
            scores = scoring(target.for_image(output, image, len(inputs)), output)
        self.on_progress(TRAINING_STEP * len(inputs))
        return scores

    @contextmanager
    def run_changed(self, inputs: Tensor, request: RecordingRequest) -> Iterator[tuple[Evaluator, Trace]]:
        """Record a forward pass on changed `inputs`; yield its evaluator and its trace.

        Raises:
            MethodError: The model does not accept inputs of this size.
        """
        changed = Evaluator(self.module, inputs, self.memory, self.on_progress, self.grid)
        with ExitStack() as stack:
            try:
                trace = stack.enter_context(record_forward(self.module, inputs, request, grid=self.grid))
            except torch.OutOfMemoryError:
                raise
            except INPUT_ERRORS as error:
                if inputs.shape == self.inputs.shape:
                    raise
                size, reason = format_grid(inputs.shape[2:]), one_line(error.__cause__ or error)
                raise MethodError("", f"the model does not accept inputs of size {size} ({reason}).") from None
            changed.keep_forward(trace)
            yield changed, trace

    # Properties of the model that methods and layers share

    def guided_gradients(self, target: ResolvedTarget) -> Tensor:
        """Return guided backpropagation to the inputs `(B, C, *size)`: one forward and one backward pass per target."""
        if target.key not in self._guided:
            relus, request = GuidedReLU(), RecordingRequest(frozenset())
            with record_forward(self.module, self.inputs, request, from_input=True, guided=relus) as trace:
                if relus.smooth_activations or not relus.relu_count:
                    names = ", ".join(sorted(relus.smooth_activations)) or "no ReLU"
                    raise MethodError("", f"it is defined for ReLU networks, but this model has {names}. Use gradcam.")
                scores = target.for_variants(trace.output).scores
                self._guided[target.key] = torch.autograd.grad(scores.sum(), trace.inputs)[0]
        return self._guided[target.key]

    def linear_head(self, target: ResolvedTarget, activations: Tensor, site: CallSite) -> LinearCall:
        """Return the linear layer that maps the mean of `activations` `(B, K, *grid)` over the grid to the class scores.

        If that mean is the class scores, as after a last 1x1 convolution, it is the identity. Whether the scores are linear in
        the mean is tried with other activations, once per model and layer.

        Raises:
            MethodError: The target is not a class, or anything else lies between this layer and the class scores.
        """
        if target.classes is None:
            raise MethodError("", "it needs a class as its target.")
        scores = logits(self.output).detach()
        head = find_linear_head(self.linear_calls, scores, activations.flatten(2).mean(2))
        model, key = model_of(self.module), (input_key(self.module, self.inputs), site.module, site.number)
        results = _linear_tails.setdefault(model, {})
        if key not in results:
            changed = trial_activations(activations[:1], head, scores, int(target.classes[0]))
            try:
                tail = self.partial_forward(0, site.module, site.number, site.grid.parts)
            except LayerError as error:
                raise MethodError("", f"{RULE}, and this cannot be checked: {error.reason}") from None
            with torch.no_grad():
                trial = logits(tail.run_channels_last(site.restore(changed.to(tail.original.dtype), tail.original)))
            means = changed.flatten(2).mean(2)
            results[key] = all(head.predicts(trial[row][None], means[row][None]) for row in range(len(changed)))
        if not results[key]:
            raise MethodError("", f"{RULE}, and they are not linear in it. Use hirescam.")
        return head

    def attention_trace(self) -> Trace:
        """Return the trace of a forward pass with every attention computed step by step and the outputs of repeated blocks."""
        if self._attention is None:
            request = RecordingRequest(
                find_blocks({"": self.module, **dict(named_modules(self.module))}), attention=True
            )
            with record_forward(self.module, self.inputs, request, from_input=True, grid=self.grid) as trace:
                self._attention = trace
        return self._attention

    def attention_layers(self) -> list[AttentionLayer]:
        """Return every attention layer of that forward pass in execution order.

        Raises:
            MethodError: Not all of them connect the same tokens, or there are none.
        """
        if self._layers is None:
            known = _heads_first.setdefault(model_of(self.module), {})
            key = (input_key(self.module, self.inputs), len(self.inputs))
            self._layers = attention_layers(self.attention_trace(), known.get(key))
            known[key] = self._layers[0].is_heads_first
        return self._layers
