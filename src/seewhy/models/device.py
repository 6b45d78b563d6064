"""Select the device to compute on."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from seewhy.errors import UnknownName, UsageError


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device for "auto" (the first available of cuda, mps, cpu), "cpu", "cuda:1", "mps", ...; None is the CPU.

    Raises `UnknownName` for a device type that PyTorch does not have, `UsageError` for a device that is not available.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device is None:
        return torch.device("cpu")
    if device == "auto":
        return next(torch.device(kind) for kind in ("cuda", "mps", "cpu") if count_devices(kind))
    try:
        resolved = torch.device(device)
        count = count_devices(resolved.type)
    except (RuntimeError, AttributeError):
        raise UnknownName(
            "device", str(device), ["auto", "cuda", "mps", "cpu"], "Use auto, cuda, mps or cpu.", close_matches=()
        ) from None
    if (resolved.index or 0) >= count:
        available = f"{count} available" if count else "none available"
        raise UsageError(f"device '{device}': {available}; use auto or cpu")
    return resolved


def count_devices(kind: str) -> int:
    """Return the number of available devices of a type."""
    if kind == "cpu":
        return 1
    module: Any = torch.get_device_module(kind)
    return int(module.device_count()) if module.is_available() else 0


def check_device(module: nn.Module, device: torch.device) -> None:
    """Raise `UsageError` if a user's module is on another device: moving it would modify it."""
    first = next(module.parameters(), None)
    if first is not None and (first.device.type, first.device.index or 0) != (device.type, device.index or 0):
        raise UsageError(f"the model is on {first.device}, not on {device}; move it first: model.to('{device}')")
