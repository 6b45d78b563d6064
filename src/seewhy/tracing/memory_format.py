"""Work around wrong gradients of BatchNorm and InstanceNorm for a batch of one.

On CPUs, PyTorch (seen up to 2.14) can mistake channels-first memory for channels-last memory in the backward pass of a
BatchNorm over a grid, or the reverse. It happens with a batch of one whose layout comes from tokens: the batch stride
of (1, K, H, W) is then K, which is valid because that stride is never used, but the kernel expects another one. No
error is raised, and the gradients belong to other cells. It affects networks with convolutions before their tokens: all
convolutions of EfficientFormer and LeViT, and those in the stem of XCiT.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seewhy.tracing.torch_private import INSTANCE_NORM, forward_hooks, is_view


def fix_gradient_layout(norm: nn.Module) -> None:
    """Register a hook on a twin's norm so that its inputs and gradients have a layout that PyTorch handles correctly.

    >>> import torch
    >>> norm, tokens = nn.BatchNorm2d(8).eval(), torch.rand(1, 6, 8)
    >>> fix_gradient_layout(norm)
    >>> cells = torch.rand(1, 8, 2, 3, requires_grad=True)
    >>> (norm(cells).flatten(2).transpose(1, 2) * tokens).sum().backward()
    >>> bool((cells.grad.flatten(2).transpose(1, 2) - tokens).abs().max() < 1e-4)  # its weights are 1
    True
    """
    if any(isinstance(hook, LayoutFix) for hook in forward_hooks(norm).values()):
        return  # the twin of a twin
    norm.register_forward_hook(LayoutFix(is_instance_norm=isinstance(norm, INSTANCE_NORM)))


def remove_layout_fix(norm: nn.Module) -> None:
    """Remove the hook of `fix_gradient_layout` from a twin's norm that does not compute anymore."""
    hooks = forward_hooks(norm)
    for key in [key for key, hook in hooks.items() if isinstance(hook, LayoutFix)]:
        del hooks[key]


class LayoutFix:
    """The forward hook. `graph_start` ignores it where it looks for hooks of the user's code."""

    def __init__(self, *, is_instance_norm: bool) -> None:
        self.is_instance_norm = is_instance_norm
        # InstanceNorm is a BatchNorm of a batch of one, with B * K channels.
        self.fix_gradient = contiguous_copy if is_instance_norm else plain_copy

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        plain_input = plain_copy(args[0]) if args else None
        if plain_input is not None:  # rare, so the forward of the norm is simply repeated
            output = module.forward(plain_input, *args[1:])
        # InstanceNorm returns a view of that BatchNorm's output. PyTorch has no gradient for a view that is overwritten.
        is_copied = self.is_instance_norm and isinstance(output, Tensor) and is_view(output)
        if is_copied:
            output = output.clone()
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(self.fix_gradient)  # type: ignore[no-untyped-call]
        return None if plain_input is None and not is_copied else output


def plain_copy(tensor: Tensor) -> Tensor | None:
    """Return a contiguous copy of a batch of one with an unusual batch stride, or None if the layout is safe."""
    is_unusual = tensor.dim() > 3 and tensor.shape[0] == 1 and tensor.stride(0) < tensor.numel()
    return tensor.contiguous() if is_unusual else None


def contiguous_copy(tensor: Tensor) -> Tensor | None:
    """Return a contiguous copy, or None if the tensor is contiguous already."""
    return None if tensor.is_contiguous() else tensor.contiguous()
