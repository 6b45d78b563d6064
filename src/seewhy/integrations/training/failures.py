"""The warning if maps cannot be logged: one line, and training continues."""

from __future__ import annotations

import sys
import warnings

import torch

from seewhy.errors import SeewhyError, error_with_type, one_line


def describe(error: Exception) -> str:
    """Return an error as one sentence."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the device has not enough memory left for the images. Pass fewer images."
    text = one_line(error) if isinstance(error, SeewhyError) else error_with_type(error)
    return text if text.endswith((".", "!", "?")) else f"{text}."


def warn(message: str) -> None:
    """Show a warning. It must not end the training, even where warnings are errors."""
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=4)
    except RuntimeWarning:
        print(message, file=sys.stderr)
