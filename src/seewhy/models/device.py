"""Where to compute."""

from __future__ import annotations

from typing import Any

import torch

from seewhy.errors import UnknownName, UsageError


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """`auto` (the first of cuda, mps and cpu that is here), `cpu`, `cuda`, `cuda:1`, `mps`, ...; None is the CPU.

    Raises `UnknownName` for a kind of device that PyTorch does not know, `UsageError` for one that is not here.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device is None:
        return torch.device("cpu")
    if device == "auto":
        return next(torch.device(kind) for kind in ("cuda", "mps", "cpu") if count_devices(kind))
    try:
        found = torch.device(device)
        count = count_devices(found.type)
    except (RuntimeError, AttributeError):
        raise UnknownName(
            "device", str(device), ["auto", "cpu", "cuda", "mps"], "Use auto, cpu, cuda or mps."
        ) from None
    if (found.index or 0) >= count:
        some = f"there are {count} here" if count else "there is none here"
        raise UsageError(f"device '{device}': {some}; use auto or cpu")
    return found


def count_devices(kind: str) -> int:
    """How many devices of this kind can be used now."""
    if kind == "cpu":
        return 1
    here: Any = torch.get_device_module(kind)
    return int(here.device_count()) if here.is_available() else 0
