"""Hints in errors that a user can run: the command that lists the layers of the model at hand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from seewhy.engine.options import ModelOptions
from seewhy.errors import SeewhyError


@contextmanager
def runnable_hints(model: ModelOptions) -> Iterator[None]:
    """Replace the Python call that lists layers, in the message of an error, by the command for this model."""
    try:
        yield
    except SeewhyError as error:
        from seewhy.tracing.layer_selection import LIST_LAYERS  # not at the top: it imports torch

        if LIST_LAYERS in str(error):
            error.args = (str(error).replace(LIST_LAYERS, f"List them: {layers_command(model)}"),)
        raise


def layers_command(model: ModelOptions) -> str:
    """Return the command that lists the layers of a model.

    >>> layers_command(ModelOptions(model="nets:build", num_classes=7, allow_code=True))
    "seewhy layers 'nets:build?num_classes=7' --allow-code"
    """
    words = ["seewhy", "layers", *([model.uri] if model.uri else []), *(["--allow-code"] if model.allow_code else [])]
    return shlex.join(words)
