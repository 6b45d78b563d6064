"""Right gradients through BatchNorm and InstanceNorm for one picture, whatever its memory layout.

On CPUs PyTorch (seen up to 2.14) takes the gradient of a BatchNorm over a grid for channels last where it is channels first,
or the other way round, if the batch is 1 and the layout comes from tokens: the batch stride of (1, K, H, W) is then K, which
is right by the letter, as it is never walked, but not what the kernel expects. Nothing is said, and the gradients that come
out are those of other cells. Networks with convolutions before their tokens meet it: EfficientFormer and LeViT in
all convolutions, XCiT in those of its stem.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm


def settle_layouts(norm: nn.Module) -> None:
    """A hook on a twin's normalisation by which it sees only layouts that PyTorch reads rightly.

    >>> import torch
    >>> norm, tokens = nn.BatchNorm2d(8).eval(), torch.rand(1, 6, 8)
    >>> settle_layouts(norm)
    >>> cells = torch.rand(1, 8, 2, 3, requires_grad=True)
    >>> (norm(cells).flatten(2).transpose(1, 2) * tokens).sum().backward()
    >>> bool((cells.grad.flatten(2).transpose(1, 2) - tokens).abs().max() < 1e-4)  # its weights are 1
    True
    """
    # InstanceNorm is a BatchNorm of one picture, with a channel for each channel of each picture.
    settle = contiguous if isinstance(norm, _InstanceNorm) else plain_layout

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        given = plain_layout(args[0]) if args else None
        if given is not None:  # rare enough to do it again
            output = module.forward(given, *args[1:])
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(settle)  # type: ignore[no-untyped-call]
        return None if given is None else output

    norm.register_forward_hook(hook)


def plain_layout(tensor: Tensor) -> Tensor | None:
    """The tensor laid out plainly; None where its batch stride is a batch's, or there is more than one picture."""
    odd = tensor.dim() > 3 and tensor.shape[0] == 1 and tensor.stride(0) < tensor.numel()
    return tensor.contiguous() if odd else None


def contiguous(tensor: Tensor) -> Tensor | None:
    return None if tensor.is_contiguous() else tensor.contiguous()
