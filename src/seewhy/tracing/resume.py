"""Run only the part of a model that comes after a layer, on many replacements for that layer's output.

Masking and ablation methods need thousands of such runs. A first forward pass through a twin records every module call
that is complete when the layer returns. To resume, the twin runs again: recorded calls return copies of their recorded
outputs, the layer
returns the replacements, and only the modules after it compute. Module calls are intercepted with `set_call_wrapper`.

Recorded outputs have batch size 1 and the replacements batch size N; broadcasting joins them. Operations that do not
broadcast (`torch.cat`) make it fail. Recorded outputs are then repeated N times. If that fails too (exported graphs
often have a fixed batch size), the replacements run one by one. Which of the three works is tried once, when a
`PartialForward` is created.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import INPUT_ERRORS, LayerError
from seewhy.places.parts import Parts
from seewhy.tensors.map_functions import nearly_equal
from seewhy.tensors.nested import first_tensor, map_tensors, replace_first, tensors_in
from seewhy.tracing.single_input import concatenate_rows
from seewhy.tracing.torch_private import call_module, set_call_wrapper, version_of
from seewhy.tracing.twin import make_twin, named_modules

LIVE_TENSORS = 3  # of the largest size at one time: the input of a layer, its output, a workspace
TOLERANCE = 1e-3


class PartialForward:
    """The part of `model` after one call of one module, for one image.

    Args:
        model: The model. It is not modified.
        inputs: One input (1, C, *size).
        module: The name of the module to resume after, or None for the entire model; the rows are inputs then.
        number: Which call of the module, counted from 1.
        parts: The parts of the input that the rows of the module are, if it has several per input.

    Attributes:
        original: The output of the module (its first tensor) for `inputs`.
        output: The output of the model for `inputs`.
        batch_axis: The axis of `original` that counts rows: 1 if tokens come before the batch.
        row_bytes: An estimate of the memory that one row takes.

    Raises:
        LayerError: The model cannot be resumed there: resumed from `original`, it does not reproduce `output`.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()).eval()
    >>> rest = PartialForward(net, torch.rand(1, 3, 8, 8), "0")
    >>> torch.equal(rest(rest.original), rest.output)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        module: str | None = None,
        number: int = 1,
        parts: Parts | None = None,
    ) -> None:
        self.twin, self.inputs, self.module, self.parts = make_twin(model), inputs.detach(), module, parts
        recording = _CallRecorder(self.twin, self.inputs, module, number)
        self.output, self.module_output = recording.output, recording.module_output
        self.row_bytes = LIVE_TENSORS * recording.largest_bytes
        if not recording.is_complete():
            raise LayerError(str(module), "the model does not call it when it runs again on the same input.")
        original = first_tensor(self.module_output)
        assert original is not None
        self.original = original
        has_batch_second = original.dim() == 3 and len(original) != 1 and original.shape[1] == 1
        self.batch_axis = 1 if module is not None and has_batch_second else 0
        self.plans: dict[str, list[CallRecord]] = {}
        for call in recording.visible_calls:
            self.plans.setdefault(call.name, []).append(call)
        for name, child in named_modules(self.twin):
            if name in self.plans:
                set_interceptor(child, partial(self.intercept, name))
        self.accepts_channels_last: bool | None = None  # None: unknown
        self.accepts_batches = self.repeats_outputs = self.runs_one_by_one = False
        if module is None or self.reproduces_output():
            return
        self.repeats_outputs = True
        if self.reproduces_output():
            return
        self.repeats_outputs, self.runs_one_by_one = False, True
        if not self.reproduces_output():
            raise LayerError(str(module), "resumed after this layer, the model does not reproduce its output.")

    def reproduces_output(self, memory_format: torch.memory_format = torch.preserve_format) -> bool:
        """Return True if the model returns the recorded output for `original`, with another row in the same batch."""
        batch = torch.cat([self.image_major(self.original), self.image_major(self.original) / 2], self.batch_axis)
        batch = batch if self.parts is None else self.parts.model_order(batch)
        try:
            with torch.no_grad():
                output = self(batch.clone(memory_format=memory_format))
        except torch.OutOfMemoryError:
            raise
        except INPUT_ERRORS:
            return False
        pairs = zip(tensors_in(output), tensors_in(self.output), strict=False)
        rows = [(new, old) for new, old in pairs if old.is_floating_point() and old.dim()]
        # A tensor that does not depend on the layer keeps its single row; at least one must depend on it.
        is_dependent = any(new.dim() and len(new) == 2 * len(old) for new, old in rows)
        return is_dependent and all(nearly_equal(new[: len(old)], old, TOLERANCE) for new, old in rows)

    def run_channels_last(self, rows: Tensor) -> Any:
        """Like calling the object, but pass rows in channels-last memory, which makes convolutions a quarter faster.

        Models whose code requires another memory format, or answers differently, get the rows unchanged.
        """
        if rows.dim() != 4 or len(rows) == 1:
            return self(rows)
        if self.accepts_channels_last is None:
            self.accepts_channels_last = self.reproduces_output(torch.channels_last)
        return self(rows.contiguous(memory_format=torch.channels_last) if self.accepts_channels_last else rows)

    def __call__(self, rows: Tensor) -> Any:
        """Return the model's output for each of `rows` (N, ...), which replace the output of the module."""
        if self.runs_one_by_one and self.count(rows) > 1:
            each = 1 if self.parts is None else self.parts.rows
            return concatenate_rows([self(row) for row in torch.split(self.image_major(rows), each, self.batch_axis)])
        if self.module is None:
            if len(rows) == 1 or self.accepts_batches:
                return self.twin(rows)
            try:
                output = self.twin(rows.clone())  # a model that changes its input in place may fail after that
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                output = None
            if output is None or not self.is_first_row(output, rows):
                self.runs_one_by_one = True
                return self(rows)
            self.accepts_batches = True
            return output
        self.rows, self.is_intercepting = rows, True
        self.call_counts = dict.fromkeys(self.plans, 0)
        return self.twin(self.writable_copy(self.inputs))

    def is_first_row(self, output: Any, rows: Tensor) -> bool:
        """Return True if the first row alone has the same output, so that the rows of a batch do not depend on each other."""
        with torch.no_grad():
            alone = self.twin(rows[:1].clone())
        pairs = zip(tensors_in(output), tensors_in(alone), strict=False)
        return all(
            new.dim() > 0 and new.shape[1:] == old.shape[1:] and nearly_equal(new[: len(old)], old, TOLERANCE)
            for new, old in pairs
            if old.is_floating_point() and old.dim()
        )

    def intercept(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Carry out the plan for the next call of the module `name`."""
        if not self.is_intercepting:
            return call_module(module, args, kwargs)
        index = self.call_counts[name]
        self.call_counts[name] = index + 1
        match self.plans[name][index].plan:
            case Replace():
                self.is_intercepting = False  # everything after the layer computes
                return replace_first(self.module_output, self.rows)
            case Replay(output):
                return map_tensors(output, self.writable_copy)
            case Descend():
                return call_module(module, args, kwargs)
        self.is_intercepting = False  # the plans have no entries for calls inside a call that is run again
        try:
            return call_module(module, args, kwargs)
        finally:
            self.is_intercepting = True

    def writable_copy(self, tensor: Tensor) -> Tensor:
        """Return a copy of a recorded tensor, which later in-place operations may overwrite."""
        if self.repeats_outputs and tensor.dim() and len(tensor) == 1:
            return tensor.repeat(self.count(self.rows), *[1] * (tensor.dim() - 1))
        if self.repeats_outputs and self.parts is not None and tensor.dim() and len(tensor) == self.parts.rows:
            return self.parts.model_order(tensor.repeat(self.count(self.rows), *[1] * (tensor.dim() - 1)))
        return tensor.clone()

    def count(self, rows: Tensor) -> int:
        """Return the number of changed versions of the image in `rows`."""
        return rows.shape[self.batch_axis] // (1 if self.parts is None else self.parts.rows)

    def image_major(self, rows: Tensor) -> Tensor:
        """Return rows in the order of the model with the parts of a version next to each other."""
        return rows if self.parts is None else self.parts.image_major(rows)


# Plans: what happens to a module call when the model is resumed


@dataclass(eq=False)
class Replay:
    """Return the recorded output: the call was complete before the layer returned."""

    output: Any


class Rerun:
    """Run the call again: it returns or modifies one of its input tensors, which other code may hold as well."""


class Descend:
    """Run the call, and intercept the calls inside it: the layer is one of them."""


class Replace:
    """Return the rows: this is the call of the layer."""


@dataclass(eq=False)
class CallRecord:
    """A module call in the recorded forward pass, and its plan."""

    name: str
    plan: Replay | Rerun | Descend | Replace = field(default_factory=Rerun)
    inner_calls: list[CallRecord] = field(default_factory=list)


class _CallRecorder:
    """The recorded forward pass of a twin.

    `visible_calls` are the calls that happen again when the model is resumed, in order. `largest_bytes` is the size of the
    largest tensor that is computed after the layer.
    """

    def __init__(self, twin: nn.Module, inputs: Tensor, module: str | None, number: int) -> None:
        self.module, self.remaining = module, number
        self.root = CallRecord("", Descend())
        self.stack = [self.root]
        self.visible_calls: list[CallRecord] = []
        self.module_output: Any = inputs
        self._is_complete = module is None
        self.largest_bytes = inputs.nbytes if module is None else 0
        modules = list(named_modules(twin))
        for name, child in modules:
            set_interceptor(child, partial(self.intercept, name))
        with torch.inference_mode(False), torch.no_grad():  # inference tensors have no version counter
            self.output: Any = twin(inputs.clone())
        for _, child in modules:
            set_interceptor(child, None)

    def is_complete(self) -> bool:
        """Return True once the layer has returned."""
        return self._is_complete

    def intercept(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self.is_complete():
            return self.measure(call_module(module, args, kwargs))
        call = CallRecord(name)
        self.stack[-1].inner_calls.append(call)
        self.stack.append(call)
        inputs = [(tensor, version_of(tensor)) for tensor in tensors_in((args, kwargs))]
        output = call_module(module, args, kwargs)
        self.stack.pop()
        if self.is_complete():  # the layer was called inside this call
            return self.measure(output)
        self.remaining -= name == self.module
        if name == self.module and self.remaining == 0:
            self._is_complete = True
            self.module_output = map_tensors(output, detached_copy)
            call.plan = Replace()
            self.visible_calls = self.calls_to_plan(self.root)
            return self.measure(output)
        storages = {tensor.untyped_storage().data_ptr() for tensor, _ in inputs}
        returns_input = any(tensor.untyped_storage().data_ptr() in storages for tensor in tensors_in(output))
        if not returns_input and all(version_of(tensor) == version for tensor, version in inputs):
            call.plan = Replay(map_tensors(output, detached_copy))
        call.inner_calls.clear()  # they do not happen (Replay) or are not intercepted (Rerun)
        return output

    def calls_to_plan(self, outer: CallRecord) -> list[CallRecord]:
        """Return the calls inside `outer` in order, followed into those that contain the layer."""
        calls = []
        for call in outer.inner_calls:
            calls.append(call)
            if call in self.stack:
                call.plan = Descend()
                calls += self.calls_to_plan(call)
        return calls

    def measure(self, output: Any) -> Any:
        self.largest_bytes = max([self.largest_bytes, *(tensor.nbytes for tensor in tensors_in(output))])
        return output


def set_interceptor(module: nn.Module, function: Callable[[nn.Module, Any, Any], Any] | None) -> None:
    """Make calls of a twin's module go to `function(module, args, kwargs)`; None restores the default."""
    set_call_wrapper(module, None if function is None else lambda *args, **kwargs: function(module, args, kwargs))


def detached_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()
