"""Errors of a model in its forward or backward pass, as one line with advice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seewhy.errors import INPUT_ERRORS, ModelError, SeewhyError, shorten_error
from seewhy.tracing.model_properties import cache_properties, cached_properties, model_of
from seewhy.tracing.torch_private import CONVOLUTION

# ModelErrors that are also of the original type: callers may catch the type that their model raises.
REJECTED_INPUT: dict[type[Exception], Any] = {
    kind: type("RejectedInput", (ModelError, kind), {}) for kind in INPUT_ERRORS
}

VIEW_IN_PLACE = re.compile("view.* modified inplace")  # in PyTorch's error messages
OVERWRITTEN = "modified by an inplace operation"  # in PyTorch's error message

Result = TypeVar("Result")


@contextmanager
def explain_rejected_input(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Re-raise a model's exception as a one-line `ModelError` that also subclasses the original type."""
    try:
        yield
    except (SeewhyError, torch.OutOfMemoryError):
        raise
    except INPUT_ERRORS as error:
        network = model_of(model)
        convolution = next((module for module in network.modules() if isinstance(module, CONVOLUTION)), None)
        is_unbatched = convolution is not None and inputs.dim() == len(convolution.kernel_size) + 1
        advice = "add the batch axis: x[None]" if is_unbatched else "pass inputs that the model accepts"
        if VIEW_IN_PLACE.search(str(error)):
            advice = (
                "it changes a part of a tensor in place, which PyTorch cannot differentiate: change a copy (x.clone())"
            )
        reason = f"its forward fails on inputs of shape {tuple(inputs.shape)} ({shorten_error(error)}); {advice}."
        kind = next(kind for kind in INPUT_ERRORS if isinstance(error, kind))
        raise REJECTED_INPUT[kind](type(network).__name__, reason) from error


@contextmanager
def explain_checkpointing(model: nn.Module) -> Iterator[None]:
    """Re-raise PyTorch's error about reentrant checkpointing as a `ModelError` with advice."""
    try:
        yield
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise ModelError(
            type(model).__name__,
            "it recomputes layers with checkpoint(use_reentrant=True), which hides them from autograd; set "
            "use_reentrant=False, as PyTorch recommends, or disable checkpointing while explaining.",
        ) from None


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
