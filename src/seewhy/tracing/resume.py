"""Run only what comes after a layer: what lies before it is played back from one recorded forward.

A twin's modules are called through a wrapper (`_compiled_call_impl`, which a module's `__call__` prefers to its forward).
The recording forward finds out which calls were finished when the layer was reached. Those are played back as they were,
at batch size 1, and the layer answers with the rows it is given: batch sizes 1 and N meet by broadcasting. Where a network
does not allow that (`cat`), what is played back is repeated for each row; and where it takes one picture only (exported
graphs often hold fixed shapes), rows are asked one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import INPUT_ERRORS, LayerError
from seewhy.nested import first_tensor, map_tensors, replace_first, tensors_in
from seewhy.tracing.twin import make_twin, named_modules

TENSORS_ALIVE = 3  # of the largest size at once: a layer's input, its output, a workspace
TOLERANCE = 1e-3


@dataclass(eq=False)
class Replay:
    """A call that was finished before the layer was reached: answered with what it gave then."""

    output: Any


class Rerun:
    """A call that must happen: it hands on or changes the very tensor it was given, which others may hold as well."""


class Descend:
    """A call in which the layer lies: it happens, and the calls inside are answered one by one."""


class Replace:
    """The layer's own call: answered with the rows."""


@dataclass(eq=False)
class CallRecord:
    """A call while the recording forward runs, and what is to become of it."""

    name: str
    plan: Replay | Rerun | Descend | Replace = field(default_factory=Rerun)
    inside: list[CallRecord] = field(default_factory=list)


class _Recorder:
    """The recording forward: `calls` are those that will happen again, in order; `largest` is the largest tensor made."""

    def __init__(self, copy: nn.Module, inputs: Tensor, module: str | None, index: int) -> None:
        self.module, self.left = module, index
        self.root = CallRecord("", Descend())
        self.stack = [self.root]
        self.calls: list[CallRecord] = []
        self.given: Any = inputs  # what the layer answered
        self.reached = module is None
        self.largest = inputs.nbytes if module is None else 0
        modules = list(named_modules(copy))
        for name, child in modules:
            wrap(child, partial(self.call, name))
        with torch.no_grad():
            self.output: Any = copy(inputs.clone())
        for _, child in modules:
            wrap(child, None)

    def call(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self.reached:
            return self.measured(run(module, args, kwargs))
        call = CallRecord(name)
        self.stack[-1].inside.append(call)
        self.stack.append(call)
        given = [(tensor, tensor._version) for tensor in tensors_in((args, kwargs))]
        output = run(module, args, kwargs)
        self.stack.pop()
        if self.now_reached():  # inside this very call
            return self.measured(output)
        self.left -= name == self.module
        if name == self.module and self.left == 0:
            self.reached = True
            self.given = map_tensors(output, snapshot)
            call.plan = Replace()
            self.calls = self.visible(self.root)
            return self.measured(output)
        places = {tensor.untyped_storage().data_ptr() for tensor, _ in given}
        shared = any(tensor.untyped_storage().data_ptr() in places for tensor in tensors_in(output))
        if not shared and all(tensor._version == version for tensor, version in given):
            call.plan = Replay(map_tensors(output, snapshot))
        call.inside.clear()  # happens out of sight, or not at all
        return output

    def now_reached(self) -> bool:
        return self.reached

    def visible(self, outer: CallRecord) -> list[CallRecord]:
        found = []
        for call in outer.inside:
            found.append(call)
            if call in self.stack:
                call.plan = Descend()
                found += self.visible(call)
        return found

    def measured(self, output: Any) -> Any:
        self.largest = max([self.largest, *(tensor.nbytes for tensor in tensors_in(output))])
        return output


class PartialForward:
    """The part of `model` that comes after one call of one module, for one picture (1, C, *size).

    `module` None stands for the whole model: rows are inputs then. `original` is what the module answered, `output` what
    the model did; `row_bytes` is about the memory that one row takes.

    Raises LayerError where the model cannot be resumed there: it was tried, and answered otherwise than before.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()).eval()
    >>> tail = PartialForward(net, torch.rand(1, 3, 8, 8), "0")
    >>> torch.equal(tail(tail.original), tail.output)
    True
    """

    def __init__(self, model: nn.Module, inputs: Tensor, module: str | None = None, index: int = 1) -> None:
        self.twin, self.inputs, self.module = make_twin(model), inputs.detach(), module
        seen = _Recorder(self.twin, self.inputs, module, index)
        self.output, self.given = seen.output, seen.given
        self.row_bytes = TENSORS_ALIVE * seen.largest
        if not seen.reached:
            raise LayerError(str(module), "called anew on the same input, the model does not reach it.")
        original = first_tensor(self.given)
        assert original is not None
        self.original = original
        second = module is not None and original.dim() == 3 and len(original) != 1 and original.shape[1] == 1
        self.axis = 1 if second else 0  # that counts the rows: tokens may come before the batch
        self.plans: dict[str, list[CallRecord]] = {}
        for call in seen.calls:
            self.plans.setdefault(call.name, []).append(call)
        for name, child in named_modules(self.twin):
            if name in self.plans:
                wrap(child, partial(self.answer, name))
        self.any_layout = True
        self.repeat = self.singly = False
        if module is None or self.works():
            return
        self.repeat = True
        if self.works():
            return
        self.repeat, self.singly = False, True
        if not self.works():
            raise LayerError(str(module), "resumed there, the model answers otherwise than before.")

    def works(self) -> bool:
        """Whether the network answers as before when the layer gives what it gave, with another row beside it."""
        try:
            with torch.no_grad():
                output = self(torch.cat([self.original, self.original / 2], self.axis))
        except torch.OutOfMemoryError:
            raise
        except INPUT_ERRORS:
            return False
        pairs = zip(tensors_in(output), tensors_in(self.output), strict=False)
        rows = [(found, wanted) for found, wanted in pairs if wanted.is_floating_point() and wanted.dim()]
        changed = [(found, wanted) for found, wanted in rows if found.dim() and len(found) == 2 * len(wanted)]
        # What does not hang on the layer keeps its one row; something must hang on it.
        return bool(changed) and all(close(found[: len(wanted)], wanted) for found, wanted in rows)

    def run_channels_last(self, rows: Tensor) -> Any:
        """`__call__`, for whole pictures with channels last, which makes convolutions a quarter faster; some networks, whose
        code asks for another layout, take them as they are."""
        if self.module is not None or rows.dim() != 4 or not self.any_layout:
            return self(rows)
        try:
            return self(rows.contiguous(memory_format=torch.channels_last))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            self.any_layout = False
            return self(rows)

    def __call__(self, rows: Tensor) -> Any:
        """The model's output for each of `rows` (N, ...), which take the place of what the layer gave."""
        if self.singly and rows.shape[self.axis] > 1:
            return joined([self(row) for row in torch.split(rows, 1, self.axis)])
        if self.module is None:
            try:
                return self.twin(rows)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                if self.singly or len(rows) == 1:
                    raise
                self.singly = True
                return self(rows)
        self.rows, self.passed = rows, False
        self.turns = dict.fromkeys(self.plans, 0)
        return self.twin(self.fresh(self.inputs))

    def answer(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self.passed:
            return run(module, args, kwargs)
        turn = self.turns[name]
        self.turns[name] = turn + 1
        match self.plans[name][turn].plan:
            case Replace():
                self.passed = True
                return replace_first(self.given, self.rows)
            case Replay(output):
                return map_tensors(output, self.fresh)
            case Descend():
                return run(module, args, kwargs)
        self.passed = True  # what happens inside such a call is not answered
        try:
            return run(module, args, kwargs)
        finally:
            self.passed = False

    def fresh(self, tensor: Tensor) -> Tensor:
        """A copy that may be written to."""
        if self.repeat and tensor.dim() and len(tensor) == 1:
            return tensor.repeat(self.rows.shape[self.axis], *[1] * (tensor.dim() - 1))
        return tensor.clone()


def joined(outputs: list[Any]) -> Any:
    """One output of many rows from outputs of one row each.

    >>> joined([{"logits": torch.zeros(1, 2)}, {"logits": torch.ones(1, 2)}])["logits"].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    columns = zip(*map(tensors_in, outputs), strict=True)
    rows = iter([torch.cat(column) if column[0].dim() else column[0] for column in columns])
    return map_tensors(outputs[0], lambda _: next(rows))


def run(module: nn.Module, args: Any, kwargs: Any) -> Any:
    return module._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]


def wrap(module: nn.Module, function: Callable[[nn.Module, Any, Any], Any] | None) -> None:
    """Let a twin's module be called through `function(module, args, kwargs)`; None takes that away."""
    call = None if function is None else lambda *args, **kwargs: function(module, args, kwargs)
    module.__dict__["_compiled_call_impl"] = call


def snapshot(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def close(found: Tensor, wanted: Tensor) -> bool:
    """Whether two outputs are equal up to rounding; what is not a number is left out of it."""
    tolerance = max(TOLERANCE, 8 * torch.finfo(wanted.dtype).eps)
    found, wanted = found.nan_to_num(0, 0, 0), wanted.nan_to_num(0, 0, 0)
    return found.shape == wanted.shape and bool((found - wanted).abs().amax() <= tolerance * wanted.abs().amax())
