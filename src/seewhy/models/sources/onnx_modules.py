"""Modules that replace two of onnx2torch 1.5.15, and a network that accepts any number of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn


class Slice(nn.Module):
    """Slice a tensor along some axes. That of onnx2torch indexes with lists, which PyTorch is about to reject.

    >>> one = torch.tensor([1])
    >>> Slice()(torch.arange(6).reshape(2, 3), one, torch.tensor([3]), one)
    tensor([[1, 2],
            [4, 5]])
    """

    def forward(
        self,
        input_tensor: Tensor,
        starts: Tensor,
        ends: Tensor,
        axes: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        first, last = starts.tolist(), ends.tolist()
        places = list(range(len(first))) if axes is None else axes.tolist()
        strides = [1] * len(first) if steps is None else steps.tolist()
        for start, end, axis, step in zip(first, last, places, strides, strict=True):
            index = slice(start, end, step)
            if step > 0:
                input_tensor = input_tensor[(slice(None),) * (axis % input_tensor.dim()) + (index,)]
            else:
                kept = torch.arange(input_tensor.shape[axis]).numpy()[index].copy()
                input_tensor = input_tensor.index_select(axis, torch.from_numpy(kept).to(input_tensor.device))
        return input_tensor


def replace_modules(network: fx.GraphModule) -> None:
    """Replace modules of a network that onnx2torch converted, in place."""
    from onnx2torch.node_converters.slice import OnnxSlice

    for name, module in list(network.named_modules()):
        if isinstance(module, OnnxSlice):
            network.add_submodule(name, Slice())
        elif isinstance(module, nn.LayerNorm):  # its shape is 0 where shape inference found none
            module.normalized_shape = tuple(module.weight.shape)


def free_batch(model: Any) -> None:
    """Let a model for one image accept any number, in place: the first axis of a reshaped tensor becomes as long as needed.

    That is wrong for a network that moves images to another axis, so the caller compares the result for two images with that
    for each of them.
    """
    import numpy as np
    import onnx

    tables = {one.name: one for one in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in tables:
            continue
        shape = onnx.numpy_helper.to_array(tables[node.input[1]]).copy()
        if not len(shape) or shape[0] == 0 or (shape[0] != 1 and -1 in shape):
            continue
        shape[0] = 0 if -1 in shape else -1
        name = f"free_shape_{number}"
        model.graph.initializer.append(onnx.numpy_helper.from_array(shape.astype(np.int64), name))
        node.input[1] = name
    axis = model.graph.input[0].type.tensor_type.shape.dim[0]
    axis.Clear()
    axis.dim_param = "batch"
    del model.graph.value_info[:]
