"""Errors of a model in its forward or backward pass, as one line with advice."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seewhy.errors import INPUT_ERRORS, LayerError, ModelError, SeewhyError, UnknownName, error_with_type
from seewhy.tracing.failure_advice import PACKAGE, advice_for, raised_at
from seewhy.tracing.model_properties import cache_properties, cached_properties, model_of
from seewhy.tracing.single_input import SingleInputModel
from seewhy.tracing.torch_private import BACKWARD_CALL, MODULE_CALL

REENTRANT = (
    "it recomputes layers with checkpoint(use_reentrant=True), which hides them from autograd; set use_reentrant=False, as "
    "PyTorch recommends, or disable checkpointing while explaining."
)
CPU_ALLOCATOR = "DefaultCPUAllocator"  # in PyTorch's error message
MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
)  # of other libraries
ALLOCATION = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
# Before PyTorch 2.8, all errors of a device are RuntimeErrors, which the message identifies.
ACCELERATOR_ERROR: tuple[type[Exception], ...] = (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()
OVERWRITTEN = "modified by an inplace operation"  # in PyTorch's error message

Result = TypeVar("Result")


class OutOfMemory(ModelError, torch.OutOfMemoryError):
    """Memory ran out. It is a `torch.OutOfMemoryError` on the CPU as well, so that callers can retry with smaller batches."""


class RejectedInput(ModelError):
    """The model's forward failed. `shape` is that of the inputs (B, C, *size), which may be one image of a batch."""

    shape: tuple[int, ...] = ()


@contextmanager
def explain_rejected_input(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Re-raise an exception of a model's forward as a one-line `ModelError` that also subclasses the original type."""
    try:
        yield
    except SeewhyError:
        raise
    except INPUT_ERRORS as error:
        raise (out_of_memory if is_out_of_memory(error) else failed_forward)(model, inputs, error) from error


@contextmanager
def explain_failures(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Re-raise what a model's code raises anywhere, and full memory, as a one-line `ModelError`. Other errors pass through."""
    try:
        yield
    except (LayerError, UnknownName):
        check_has_layers(model)
        raise
    except ModelError as failed:
        check_has_layers(model)
        cause = failed.__cause__
        if isinstance(failed, RejectedInput) and isinstance(cause, Exception) and failed.shape[1:] == inputs.shape[1:]:
            raise failed_forward(
                model, inputs, cause
            ) from cause  # it failed on one image: report the batch that was passed
        raise
    except SeewhyError:
        raise
    except SystemExit as stop:  # it would end the caller's process without a message
        if MODULE_CALL not in called_functions(stop):
            raise
        raise ModelError(model_name(model), f"its forward calls sys.exit({stop.code!r}).") from stop
    except Exception as raised:
        # A generator, such as a context manager, replaces StopIteration by a RuntimeError.
        error = raised.__cause__ if isinstance(raised.__cause__, StopIteration) else raised
        if is_out_of_memory(error):
            raise out_of_memory(model, inputs, error) from error
        if "use_reentrant=True" in str(error):
            raise ModelError(model_name(model), REENTRANT) from None
        place = raised_at(error)
        if place and is_in_backward(error):
            advice = f"correct {place}, or use a method without gradients (eigencam)."
            reason = f"its backward pass fails ({error_with_type(error)}); {advice}"
            raise rejected(model, reason, error) from error
        functions = called_functions(error)
        if MODULE_CALL in functions and BACKWARD_CALL not in functions and not is_raised_here(error):
            raise failed_forward(model, inputs, error) from error
        raise


def failed_forward(model: nn.Module, inputs: Tensor, error: Exception) -> RejectedInput:
    given = as_passed(model, inputs)
    reason = f"its forward fails on inputs of shape {tuple(given.shape)} ({error_with_type(error)}); "
    failed = rejected(model, reason + advice_for(error, model_of(model), given), error)
    failed.shape = tuple(inputs.shape)
    return failed


def as_passed(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return inputs (B, C, *size) in the order of axes that the user passed."""
    restore = getattr(model, "restore", None) if isinstance(model, SingleInputModel) else None
    return inputs if restore is None else restore(inputs)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for full memory of any device. On the CPU, PyTorch raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or CPU_ALLOCATOR in str(error):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in MEMORY_WORDS)


def is_caused_by_memory(error: BaseException) -> bool:
    """Return True if the error, or one of its causes, is lack of memory on the device or the host."""
    cause: BaseException | None = error
    while cause is not None:
        if is_out_of_memory(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def is_device_error(error: BaseException) -> bool:
    """Return True if the device is lost: every later call fails as well, whatever the image."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ACCELERATOR_ERROR) or "CUDA error" in str(cause) or "cuDNN" in str(cause):
            return not is_caused_by_memory(cause)
        cause = cause.__cause__ or cause.__context__
    return False


def out_of_memory(model: nn.Module, inputs: Tensor, error: BaseException) -> OutOfMemory:
    size = ALLOCATION.search(str(error))
    amount = f" (it tried to allocate {size[1]})" if size else ""
    kind: Any = type("OutOfMemory", (OutOfMemory, MemoryError), {}) if isinstance(error, MemoryError) else OutOfMemory
    full: OutOfMemory = kind(
        model_name(model),
        f"memory ran out on {inputs.device} for inputs of shape {tuple(inputs.shape)}{amount}; explain fewer images or layers "
        "at once, use smaller inputs, or a smaller memory= for methods with extra passes.",
    )
    return full


def rejected(model: nn.Module, reason: str, error: Exception) -> RejectedInput:
    """Return a `RejectedInput` that is also of the type of the model's exception, which callers may catch.

    It has the attributes of that exception. Its `__init__` is not called: that of the model's exception may take anything.
    """
    name = model_name(model)
    if isinstance(error, (StopIteration, StopAsyncIteration)):  # which a generator replaces by a RuntimeError
        return RejectedInput(name, reason)
    with suppress(TypeError):  # a type that cannot be combined with another one
        made: Any = type("RejectedInput", (RejectedInput, type(error)), {"__str__": describe_model_error})
        failed: RejectedInput = made.__new__(made, f"{name}: {reason}")
        failed.__dict__ |= {**vars(error), "model": name, "reason": reason}
        return failed
    return RejectedInput(name, reason)


def describe_model_error(error: ModelError) -> str:
    """Return the message. KeyError would quote it, and other types may change it."""
    return f"{error.model}: {error.reason}"


def called_functions(error: BaseException) -> set[str]:
    """Return the names of the functions in an error's traceback."""
    return {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}


def is_in_backward(error: BaseException) -> bool:
    """Return True if the model's code raised an error in a backward pass, and not a method, which reads gradients during it."""
    frames = traceback.extract_tb(error.__traceback__)
    start = max((at for at, frame in enumerate(frames) if frame.name == BACKWARD_CALL), default=len(frames))
    return start < len(frames) and not any(frame.filename.startswith(f"{PACKAGE}{os.sep}") for frame in frames[start:])


def is_raised_here(error: BaseException) -> bool:
    """Return True for an error in the code of this package, which must not be reported as one of the model."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(f"{PACKAGE}{os.sep}")


def model_name(model: nn.Module) -> str:
    return type(model_of(model)).__name__


def check_has_layers(model: nn.Module) -> None:
    """Raise ModelError for an exported program, whose layers are operations of one graph and no modules."""
    network = model_of(model)
    if isinstance(network, torch.fx.GraphModule) and not any(module_calls(network)):
        raise ModelError(
            model_name(model),
            "it is an exported program: its layers are operations of one graph, so none can be selected. Pass the original "
            "Python model, or torch.export.unflatten(program), which has the layers of the original by name.",
        )


def module_calls(network: torch.fx.GraphModule) -> Iterator[str]:
    """Yield the names of the modules with weights that a graph calls."""
    for node in network.graph.nodes:
        if node.op == "call_module" and next(network.get_submodule(str(node.target)).parameters(), None) is not None:
            yield str(node.target)


def retry_with_copies(model: nn.Module, function: Callable[[], Result]) -> Result:
    """Return what `function` returns. It is called again if its backward pass failed because of in-place operations.

    PyTorch cannot differentiate if an operation overwrites a value that the backward pass reads. Then the model is
    recorded again with a copy of every such value.

    Raises:
        ModelError: The backward pass fails in any case.
    """
    try:
        return function()
    except RuntimeError as error:
        if OVERWRITTEN not in str(error):
            raise
    cache_properties(model, replace(cached_properties(model), saves_copies=True))
    try:
        return function()
    except RuntimeError as error:
        if OVERWRITTEN not in str(error):
            raise
        raise ModelError(
            type(model_of(model)).__name__,
            "PyTorch cannot differentiate it: an in-place operation overwrites a value that the gradient needs. Replace that "
            "operation, such as x += y, by one that is not in place (x = x + y).",
        ) from None
