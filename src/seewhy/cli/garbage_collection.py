"""Garbage collection while a command imports its modules."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collection() -> Iterator[None]:
    """Pause the garbage collector while modules are imported. If PyTorch is one of them, exclude them from later collections.

    Their objects live until the process ends, and there are so many that visiting them takes a quarter of the time of
    `python -c "import torch"`: a tenth in collections during the import, the rest in the last one, when the process ends.
    """
    is_first_import = "torch" not in sys.modules
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_first_import:
            gc.freeze()
        if was_enabled:
            gc.enable()
