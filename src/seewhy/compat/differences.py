"""Log each difference from a package once, so that users learn why a map changed without a line for every image."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from torch import nn

from seewhy.tracing.model_properties import cached_properties

logger = logging.getLogger("seewhy.compat")
_logged: set[str] = set()


def log_once(text: str) -> None:
    """Log a difference at level WARNING, unless it was logged before.

    Args:
        text: What differs, as a sentence.
    """
    if text not in _logged:
        _logged.add(text)
        logger.warning(text)


def log_overwritten(package: str, model: nn.Module, layers: Iterable[str]) -> None:
    """Log which layers an in-place operation overwrites: `package` then reads the value after the operation.

    Args:
        package: The name of the package whose API was called.
        model: A model that was explained.
        layers: The names of the layers that were explained.
    """
    overwritten = cached_properties(model).overwritten
    for layer in layers:
        if layer.partition("#")[0] in overwritten:
            log_once(
                f"{package} reads '{layer}' after an in-place operation has overwritten its output, so its map is wrong. "
                "This map uses the output of the layer."
            )
