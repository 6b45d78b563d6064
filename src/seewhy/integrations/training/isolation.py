"""Run code in the middle of training without leaving a trace in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from seewhy.tensors.random_state import preserve_rng


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Restore the random states of PyTorch, NumPy and Python at the end; disable autocast and inference mode.

    The engine works on a twin in eval mode, so weights, buffers, gradients and the mode of the model are not touched anyway.
    Autocast is disabled so that maps have the precision of the weights: float32 in mixed-precision training.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(preserve_rng(device))
        for kind in dict.fromkeys((device.type, "cpu")):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
