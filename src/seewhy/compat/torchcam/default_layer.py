"""The layer that torchcam selects if none is given."""

from __future__ import annotations

import logging

import torch
from torch import nn

from seewhy.errors import UsageError, one_line
from seewhy.tracing.record import record_forward
from seewhy.tracing.trace import RecordingRequest

logger = logging.getLogger("seewhy.compat")


def find_default_layer(model: nn.Module, input_shape: tuple[int, ...]) -> str:
    """Return the last module whose output has a grid with more than one cell, and log its name.

    Args:
        model: The model. It runs once, on zeros.
        input_shape: Shape of one input, `(C, *size)`.

    Raises:
        UsageError: The model does not accept this shape, or has no such module.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    inputs = torch.zeros(1, *input_shape, device=device)
    try:
        with record_forward(model, inputs, RecordingRequest(), exact=False) as trace:
            shapes = {call.name: call.output.shape for call in trace.calls if call.name}
    except UsageError as error:
        reason = one_line(error)
        raise UsageError(f"target_layer was not given, and the model fails on zeros {input_shape}: {reason}") from error
    for name, shape in reversed(shapes.items()):
        if len(shape) == len(input_shape) + 1 and any(side != 1 for side in shape[2:]):
            logger.warning(f"no value was provided for `target_layer`, thus set to '{name}'.")
            return name
    raise UsageError("target_layer was not given, and no module returns a grid; pass one, or the right input_shape.")
