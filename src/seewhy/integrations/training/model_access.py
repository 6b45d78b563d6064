"""From what a training loop has to the module that is explained."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from seewhy.errors import ModelError, UsageError, describe_argument

ModelSpec = nn.Module | Callable[[], nn.Module]


def resolve_model(model: ModelSpec) -> nn.Module:
    """Return the module; a function is called. Raises UsageError for anything else, ModelError for split weights."""
    module: object = model if isinstance(model, nn.Module) else model() if callable(model) else model
    if not isinstance(module, nn.Module):
        source = "the function passed as model= returned" if callable(model) else "model="
        raise UsageError(
            f"{source} {describe_argument(module)}: pass a torch.nn.Module, or a function that returns one."
        )
    if kind := kind_of_split_weights(module):
        raise ModelError(
            type(module).__name__,
            f"its weights are split over several processes ({kind}), so one process cannot compute maps. Explain a saved "
            "checkpoint after training, or train with DDP.",
        )
    return module


def kind_of_split_weights(module: nn.Module) -> str:
    """Return how the weights are distributed over processes, or "" if this process has all of them."""
    for part in module.modules():
        if type(part).__name__ == "FullyShardedDataParallel" or any(
            base.__name__ == "FSDPModule" for base in type(part).__mro__
        ):
            return "FSDP"
    for parameter in module.parameters():
        if hasattr(parameter, "ds_id"):
            return "DeepSpeed ZeRO-3"
        if hasattr(parameter, "device_mesh"):
            return "DTensor"
    return ""


def is_uninitialized(module: nn.Module) -> bool:
    """Return True for lazy modules before their first forward pass: they have no weights yet."""
    return any(map(nn.parameter.is_lazy, chain(module.parameters(), module.buffers())))


def device_of(module: nn.Module) -> torch.device:
    """Return the device of the weights; the CPU without any."""
    return first_weights(module).device


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the floating-point type of the weights; float32 without any."""
    return first_weights(module).dtype


def first_weights(module: nn.Module) -> Tensor:
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0, device="cpu"))


def is_main_process() -> bool:
    """Return True in the process that logs: rank 0, or the only one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return os.environ.get("RANK", "0") in ("0", "-1", "")
