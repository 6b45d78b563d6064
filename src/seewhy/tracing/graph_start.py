"""Where the autograd graph of a recorded forward pass starts: at the earliest requested call, not at the input.

Nothing before that call is differentiated, which saves time and memory. The network must compute exactly what it computes
without a recording, so no tensor is replaced by a copy: a copy would no longer share memory with tensors that the model
modifies later. `GraphStart` marks existing tensors instead, as an in-place operation would.

The gradient of a layer is that of every use of the tensor that it returned. A layer that computes a new tensor is
therefore marked at its output, and any other at its inputs, because it may use its own output before it returns it. A layer
that returns its input unchanged (`nn.Identity`) had uses before it was called; then the graph must start at the model's input.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Set
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import LayerError
from seewhy.tensors.nested import tensors_in
from seewhy.tracing.memory_format import LayoutFix
from seewhy.tracing.torch_private import (
    AVERAGE_POOLING,
    BATCH_NORM,
    CONVOLUTION,
    MAX_POOLING,
    child_table,
    has_hooks,
    is_view,
    version_of,
)

# Each of these computes a new tensor, if its forward is PyTorch's own.
NEW_TENSOR = (CONVOLUTION, MAX_POOLING, AVERAGE_POOLING, BATCH_NORM, nn.LayerNorm, nn.GroupNorm, nn.Linear)

MARK = "_StartGraphBackward"  # the name of the autograd node


class GraphStart:
    """Starts the graph of one forward pass. Everything differentiable depends on `anchor`.

    Attributes:
        anchor: A scalar leaf that requires a gradient.
        unsafe: Names of layers that returned an input that was marked just before, so earlier uses of it are missing.
    """

    def __init__(self, inputs: Tensor, model_memory: Callable[[], Set[int]]) -> None:
        """`model_memory` returns the addresses of the parameters and buffers of the model."""
        self.anchor = torch.zeros((), dtype=inputs.dtype, device=inputs.device, requires_grad=True)
        self.unsafe: set[str] = set()
        self.model_memory = model_memory
        self.marked: list[tuple[weakref.ref[Tensor], int]] = []
        self.copied: list[tuple[str, Tensor, int]] = []
        self._input_address = inputs.untyped_storage().data_ptr()

    def hook_before(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        """Return a forward pre-hook that marks the inputs of a module, if none of them has a graph."""

        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if not torch.is_grad_enabled():
                return
            tensors = [tensor for tensor in tensors_in((args, kwargs)) if tensor.is_floating_point()]
            if any(tensor.requires_grad or tensor.is_inference() for tensor in tensors):
                return
            for tensor in tensors:
                if self.belongs_to_model(tensor):
                    continue
                try:
                    _StartGraph.apply(tensor, self.anchor)
                except RuntimeError:  # a view that PyTorch does not let an in-place operation change
                    self.unsafe.add(name)
                else:
                    self.marked.append((weakref.ref(tensor), version_of(tensor)))

        return hook

    def start_at(self, name: str, output: Tensor, *, is_new: bool = False) -> Tensor:
        """Return the output of a layer, marked if it has no graph. If it cannot be marked, return a marked copy.

        `is_new`: the layer certainly computed a new tensor.
        """
        for marked, version in self.marked:
            if marked() is output and version_of(output) == version:
                self.unsafe.add(name)
        if output.requires_grad:
            return output
        if is_new or not self.belongs_to_model(output):
            try:
                return _StartGraph.apply(output, self.anchor)  # type: ignore[no-any-return]
            except RuntimeError:
                pass
        self.copied.append((name, output, version_of(output)))
        return _StartGraph.apply(output.clone(), self.anchor)  # type: ignore[no-any-return]

    def check_copies(self) -> None:
        """Raise LayerError if a tensor whose copy was passed on has been modified: the network computed something else."""
        for name, tensor, version in self.copied:
            if version_of(tensor) != version:
                raise LayerError(
                    name,
                    "the model modifies its output in place, and it has no gradients to follow (torch.no_grad inside the "
                    "layer). Select a layer after it.",
                )
        self.copied.clear()

    def remove_marks(self) -> None:
        """Remove the marks of tensors that outlive the forward pass, such as a constant of the model's code."""
        for reference, _ in self.marked:
            tensor = reference()
            is_marked = tensor is not None and tensor.grad_fn is not None and tensor.grad_fn.name() == MARK
            if tensor is not None and is_marked and not is_view(tensor):
                tensor.detach_()

    def belongs_to_model(self, tensor: Tensor) -> bool:
        """Return True if a tensor shares memory with a parameter or buffer, which must not change in any way."""
        address = tensor.untyped_storage().data_ptr()
        return address != self._input_address and address in self.model_memory()


def source_of(module: nn.Module) -> nn.Module:
    """Return the module that computes the output of `module`: the last one of an `nn.Sequential`, at any depth."""
    while type(module).forward is nn.Sequential.forward and not has_hooks(module) and (last := last_child(module)):
        module = last
    return module


def last_child(module: nn.Module) -> nn.Module | None:
    return next(reversed([child for child in child_table(module).values() if child is not None]), None)


def returns_new_tensor(module: nn.Module) -> bool:
    """Return True if a module certainly computes a new tensor that nothing has used when its forward ends."""
    is_own_forward = type(module).forward.__module__.startswith("torch.nn.modules.")
    return isinstance(module, NEW_TENSOR) and is_own_forward and not has_hooks(module, except_of=LayoutFix)


class _StartGraph(torch.autograd.Function):
    """Start a graph at a tensor without one.

    It works in place, so the tensor is not copied. The result is not a leaf: autograd forbids in-place operations on leaves.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient.new_zeros(())
