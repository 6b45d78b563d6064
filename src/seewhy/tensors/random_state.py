"""Run something without changing the random state of the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# PyTorch reads the random state under a mutex, and may wait for the interpreter lock there, because garbage collection frees
# tensors. Another thread that reads it meanwhile waits for the mutex with the interpreter lock: neither of them continues.
_lock = threading.RLock()
_changes = 0  # blocks that changed the random state


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # another thread may hold it while the process forks


@contextmanager
def preserve_rng(device: torch.device) -> Iterator[None]:
    """Restore the random state at the end, but only if the block changed it: other threads may use it meanwhile."""
    before = read_states(device)
    try:
        yield
    finally:
        restore_states(device, before)


def seed_cpu(seed: int) -> None:
    """Set the seed of the CPU's random state."""
    with _lock:
        torch.default_generator.manual_seed(seed)


def read_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return the random state of the CPU, and that of a GPU."""
    with _lock:
        return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def is_changed(device: torch.device, before: tuple[Tensor, Tensor | None]) -> bool:
    """Return True if numbers were drawn since `read_states` returned `before`."""
    pairs = zip(read_states(device), before, strict=True)
    return any(now is not None and old is not None and not torch.equal(now, old) for now, old in pairs)


def count_changes() -> int:
    """Return how many blocks have changed the random state so far, in any thread."""
    return _changes


def restore_states(device: torch.device, before: tuple[Tensor, Tensor | None]) -> None:
    global _changes
    cpu, gpu = before
    cpu_now, gpu_now = read_states(device)
    with _lock:
        if not torch.equal(cpu, cpu_now):
            torch.set_rng_state(cpu)
            _changes += 1
        if gpu is not None and gpu_now is not None and not torch.equal(gpu, gpu_now):
            torch.cuda.set_rng_state(gpu, device)
