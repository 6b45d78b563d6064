"""Every private name of PyTorch that seewhy depends on, each behind a named function or constant.

PyTorch may change these without notice. `tests/tracing/test_torch_private.py` checks each one, names the versions that it was
checked on, and asserts that no other file of the package uses a private name of PyTorch.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

# Base classes that PyTorch exports only under a private name. The public alternative is a list of each class per dimension,
# which would miss direct subclasses in other libraries.
CONVOLUTION = _ConvNd
MAX_POOLING = _MaxPoolNd
AVERAGE_POOLING = _AvgPoolNd
ADAPTIVE_POOLING = (_AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd)
BATCH_NORM = _BatchNorm
INSTANCE_NORM = _InstanceNorm
NORM_WITH_STATISTICS = _NormBase  # BatchNorm and InstanceNorm

# Entries of a module's `__dict__`. `twin` builds modules without `__init__`, so it fills these tables itself. Each hook
# table is an OrderedDict.
PARAMETERS, BUFFERS, CHILDREN = "_parameters", "_buffers", "_modules"
FORWARD_HOOK_TABLES = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
BACKWARD_HOOK_TABLES = ("_backward_hooks", "_backward_pre_hooks")
STATE_DICT_TABLES = (
    "_non_persistent_buffers_set",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)

# Names of functions in a traceback.
MODULE_CALL = "_call_impl"  # calls a module's forward and its hooks
BACKWARD_CALL = "_engine_run_backward"  # runs a backward pass

COMPILED_CHILD = "_orig_mod"  # the child of the module that torch.compile returns
CALL_WRAPPER = "_compiled_call_impl"  # `__call__` prefers this attribute to `_call_impl`; `Module.compile` sets it
FUSED_ACTIVATION = "activation_relu_or_gelu"  # nn.TransformerEncoderLayer takes its fused path only if this is not 0


def child_table(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return the children of `module` by name.

    Unlike `named_children`, the table holds an entry for each name of a shared child and for each child that is None.
    """
    return module._modules


def parameter_table(module: nn.Module) -> dict[str, Any]:
    """Return the parameters of `module` itself by name; in a twin, they are plain tensors."""
    return module._parameters


def has_own_parameters(module: nn.Module) -> bool:
    """Return True if `module` itself, not one of its children, holds a parameter."""
    return any(parameter is not None for parameter in module._parameters.values())


def compiled_original(module: nn.Module) -> nn.Module | None:
    """Return the module that `torch.compile` wrapped as `module`, or None if `module` is not compiled."""
    children = module._modules
    return children.get(COMPILED_CHILD) if isinstance(children, dict) else None  # TorchScript has another table


def set_call_wrapper(module: nn.Module, function: Callable[..., Any] | None) -> None:
    """Make `module(...)` call `function` instead of hooks and forward; None restores the default.

    The attribute is per instance. The public alternative, replacing `__call__`, works per class only.
    """
    module.__dict__[CALL_WRAPPER] = function


def has_call_wrapper(module: nn.Module) -> bool:
    """Return True if a wrapper is set on `module`."""
    return module.__dict__.get(CALL_WRAPPER) is not None


def call_module(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call `module` with its hooks, bypassing a wrapper set by `set_call_wrapper`."""
    return module._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]


def disable_fused_encoder(state: dict[str, Any]) -> None:
    """Turn off the fused path, which calls no child modules, in the `__dict__` of an `nn.TransformerEncoderLayer`."""
    state[FUSED_ACTIVATION] = 0


def forward_hooks(module: nn.Module) -> dict[int, Callable[..., Any]]:
    """Return the table of forward hooks of `module`."""
    return module._forward_hooks


def has_hooks(module: nn.Module, *, except_of: type | tuple[type, ...] = ()) -> bool:
    """Return True if a forward or backward hook is registered on `module`, other than instances of `except_of`."""
    hooks = (hook for name in HOOK_TABLES for hook in module.__dict__[name].values())
    return any(callable(hook) and not isinstance(hook, except_of) for hook in hooks)


def version_of(tensor: Tensor) -> int:
    """Return the version counter of `tensor`, which each in-place operation on its storage increases."""
    return tensor._version


def is_view(tensor: Tensor) -> bool:
    """Return True if `tensor` is a view of another tensor, so that an in-place operation would change that one too."""
    return tensor._is_view()


def disables_gradients(function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Return True for the call by which `torch.no_grad()` and its kin turn gradients off in this thread."""
    return function is torch._C._set_grad_enabled and not args[0]


def cpu_has_bfloat16() -> bool:
    """Return True if the processor has instructions for products of bfloat16 matrices."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def can_pack_weights() -> bool:
    """Return True if this PyTorch can pack weights for the CPU. `torch.compile` packs them with the same functions."""
    names = ["_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight"]
    has_functions = hasattr(torch.ops.aten, "mkldnn_reorder_conv2d_weight") and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )
    return has_functions and bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)  # type: ignore[no-untyped-call]


class ConvolutionSettings(NamedTuple):
    """The settings of a 2-D convolution."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def pack_convolution(weight: Tensor, settings: ConvolutionSettings, shape: torch.Size) -> Tensor:
    """Return the weights of a 2-D convolution in the format that is best for inputs of a shape."""
    stride, padding, dilation, groups = settings
    packed: Tensor = torch.ops.aten.mkldnn_reorder_conv2d_weight(
        weight.to_mkldnn(), padding, stride, dilation, groups, list(shape)
    )
    return packed


def run_packed_convolution(
    inputs: Tensor, packed: Tensor, bias: Tensor | None, settings: ConvolutionSettings
) -> Tensor:
    """Return what a convolution computes with packed weights; PyTorch records no graph of it."""
    stride, padding, dilation, groups = settings
    run = torch.ops.mkldnn._convolution_pointwise
    output: Tensor = run(inputs, packed, bias, padding, stride, dilation, groups, "none", [], "")
    return output


def pack_linear(weight: Tensor) -> Tensor:
    """Return the weights of a linear layer in the format that oneDNN computes with."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


def run_packed_linear(inputs: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Return what a linear layer computes with packed weights; PyTorch records no graph of it."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, "none", [], "")
    return output


def attention_forward_with(attend: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return a copy of `F.multi_head_attention_forward` that calls `attend` instead of `scaled_dot_product_attention`.

    The function looks both names up in its globals. The copy gets globals of its own, so nothing in PyTorch is replaced. Its
    check for torch function modes is off: otherwise the active mode would intercept the copy again.
    """
    original = F.multi_head_attention_forward
    names = {**original.__globals__, "scaled_dot_product_attention": attend, "has_torch_function": lambda _: False}
    copy = types.FunctionType(original.__code__, names, original.__name__, original.__defaults__, original.__closure__)
    copy.__kwdefaults__ = original.__kwdefaults__
    return copy
