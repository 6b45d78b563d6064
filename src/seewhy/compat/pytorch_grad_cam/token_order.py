"""Compare a `reshape_transform` with the grid that seewhy infers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import UsageError, one_line
from seewhy.tracing.grid import Grid
from seewhy.tracing.record import record_forward
from seewhy.tracing.trace import RecordingRequest

_checked: weakref.WeakKeyDictionary[nn.Module, set[Hashable]] = weakref.WeakKeyDictionary()


def check_token_order(model: nn.Module, inputs: Tensor, layers: Sequence[str], transform: Callable[..., Any]) -> None:
    """Check that a transform puts each token where seewhy puts it. Once per model, input shape and transform.

    Args:
        model: The model.
        inputs: The inputs `(B, C, *size)`.
        layers: Names of the layers.
        transform: Turns an output of the layers into `(B, K, *grid)`.

    Raises:
        UsageError: The transform fails, or puts tokens elsewhere.
    """
    key = (tuple(inputs.shape[1:]), tuple(layers), transform)
    if key in _checked.setdefault(model, set()):
        return
    names = frozenset(name.partition("#")[0] for name in layers)
    with record_forward(model, inputs[:1], RecordingRequest(names=names), exact=False) as trace:
        outputs = {call.name: (call.output.detach(), call.grid) for call in trace.calls if call.number == 1}
    for name, (output, grid) in outputs.items():
        if grid is not None:
            compare_orders(name, output, grid, transform)
    _checked[model].add(key)


def compare_orders(name: str, output: Tensor, grid: Grid, transform: Callable[..., Any]) -> None:
    """Compare where a transform and a grid put each number of an output. Raises UsageError if they differ."""
    numbers = torch.arange(output.numel(), dtype=torch.float64).reshape(output.shape)
    expected = grid.channels_first(numbers)
    advice = (
        f"seewhy reads '{name}' as a grid {'x'.join(map(str, grid.shape))} and does not need reshape_transform; leave it out. "
        "To use another grid, call seewhy.explain with grid=."
    )
    try:
        result = transform(numbers)
    except Exception as error:  # it is code of the user
        text = f"reshape_transform failed on an output of shape {tuple(output.shape)}: {one_line(error)}. {advice}"
        raise UsageError(text) from error
    if not isinstance(result, Tensor) or not torch.equal(result.double(), expected):
        shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        difference = f"returns {shape} instead of {tuple(expected.shape)}"
        if isinstance(result, Tensor) and result.shape == expected.shape:
            difference = "puts tokens at other places than where the network has them"
        raise UsageError(f"reshape_transform {difference}. {advice}")
