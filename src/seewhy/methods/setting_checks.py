"""Checks of settings that several methods have, for `__post_init__`."""

from __future__ import annotations

from seewhy.methods.base import BaseMethod, Method


def check_batch(method: BaseMethod, size: int | None) -> None:
    """Raise MethodError unless `size`, the rows of one forward pass, is at least 1 or None (as many as fit in memory)."""
    method.check(size is None or size >= 1, f"batch_size={size}: must be at least 1, or None.")


def check_base(method: BaseMethod, base: object) -> None:
    """Raise MethodError unless `base`, the method inside a wrapper, returns one map per layer."""
    method.check(isinstance(base, Method), f"base={base}: must be a method with one map per layer, such as gradcam.")
