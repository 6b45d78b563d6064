"""Rewrite ONNX operators of newer versions as those of version 17, which onnx2torch can convert.

The result is compared with onnxruntime, so a rewrite can be wrong for an unusual network, but not silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

TARGET_VERSION = 17
REDUCTIONS = (
    "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceSumSquare",
)  # fmt: skip
# Attributes of newer versions, and the values with which they change nothing.
NEUTRAL: dict[str, dict[str, object]] = {
    "Reshape": {"allowzero": None},  # None: any value, because no axis of an image network is empty
    "Cast": {"saturate": None},
    "AveragePool": {"dilations": "ones"},
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
    "Gather": {},
}


class UnsupportedOperator(Exception):
    """Raised for an operator that cannot be converted. The message names it and its node."""


def replace_copies(model: Any) -> None:
    """Remove copies of weights in place: exporters write equal weights once, and onnx2torch reads no weights of operators."""
    weights = {one.name for one in model.graph.initializer}
    outputs = {one.name for one in model.graph.output}
    sources: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = sources.get(name, name)
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in outputs:
            sources[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def replace_constants(model: Any) -> None:
    """Turn operators that return a constant tensor into weights, in place."""
    outputs = {one.name for one in model.graph.output}
    kept = []
    for node in model.graph.node:
        is_tensor = node.op_type == "Constant" and [one.name for one in node.attribute] == ["value"]
        if is_tensor and node.output[0] not in outputs:
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def rewrite_operators(model: Any) -> None:
    """Rewrite a model with operators of a version above 17 in place."""
    imports = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not imports or imports[0].version <= TARGET_VERSION:
        return
    constants = {one.name: one for one in model.graph.initializer}
    nodes = [new for node in model.graph.node for new in rewrite(node, constants, model)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    imports[0].version = TARGET_VERSION


def rewrite(node: Any, constants: dict[str, Any], model: Any) -> Iterator[Any]:
    """Yield the nodes that replace one node."""
    drop_neutral(node)
    if node.op_type in REDUCTIONS:
        move_axes(node, constants)
    elif node.op_type == "Split":
        state_sizes(node, model)
    elif node.op_type == "Pad" and len(node.input) > 3 and node.input[3]:
        raise unsupported(node, "its axes are an input")
    elif node.op_type == "Gelu":
        yield from gelu(node, model)
        return
    yield node


def unsupported(node: Any, reason: str = "") -> UnsupportedOperator:
    return UnsupportedOperator(f"operator {node.op_type} (node {node.name!r}){f': {reason}' if reason else ''}")


def remove_attribute(node: Any, name: str) -> Any:
    """Remove an attribute and return it; None if there is none."""
    for index, attribute in enumerate(node.attribute):
        if attribute.name == name:
            removed = type(attribute)()
            removed.CopyFrom(attribute)
            del node.attribute[index]
            return removed
    return None


def drop_neutral(node: Any) -> None:
    import onnx

    for name, neutral in NEUTRAL.get(node.op_type, {}).items():
        attribute = remove_attribute(node, name)
        if attribute is None or neutral is None:
            continue
        value = onnx.helper.get_attribute_value(attribute)
        if not (all(one == 1 for one in value) if neutral == "ones" else value == neutral):
            raise unsupported(node, f"{name}={value!r}")


def move_axes(node: Any, constants: dict[str, Any]) -> None:
    """Turn the axes of a reduction, an input since version 18, into an attribute."""
    import onnx

    noop = remove_attribute(node, "noop_with_empty_axes")
    if len(node.input) < 2 or not node.input[1]:
        if noop is not None and noop.i:
            node.op_type = "Identity"
            del node.attribute[:]
        return
    if node.input[1] not in constants:
        raise unsupported(node, "its axes are computed by the network")
    axes = onnx.numpy_helper.to_array(constants[node.input[1]])
    del node.input[1:]
    node.attribute.append(onnx.helper.make_attribute("axes", [int(axis) for axis in axes.reshape(-1)]))


def state_sizes(node: Any, model: Any) -> None:
    """State the sizes of the parts of a Split, which version 18 can compute from their number."""
    import onnx

    if remove_attribute(node, "num_outputs") is None or (len(node.input) > 1 and node.input[1]):
        return
    axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
    length = axis_length(model, node.input[0], axis)
    if length is None:
        raise unsupported(node, "the length of its axis is unknown")
    part = math.ceil(length / len(node.output))
    sizes = [part] * (len(node.output) - 1)
    name = f"{node.output[0]}_sizes"
    table = np.array([*sizes, length - sum(sizes)], np.int64)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, name))
    del node.input[1:]
    node.input.append(name)


def axis_length(model: Any, name: str, axis: int) -> int | None:
    """Return the length of an axis of a value, where shape inference found it."""
    for value in (*model.graph.value_info, *model.graph.input):
        if value.name == name:
            axes = value.type.tensor_type.shape.dim
            return axes[axis].dim_value or None if -len(axes) <= axis < len(axes) else None
    return None


def gelu(node: Any, model: Any) -> Iterator[Any]:
    """Yield x * 0.5 * (1 + erf(x / sqrt(2)))."""
    import onnx

    approximate = remove_attribute(node, "approximate")
    if approximate is not None and approximate.s == b"tanh":
        raise unsupported(node, "approximate='tanh'")
    (x,), (result,) = node.input, node.output
    steps: list[tuple[str, tuple[str, ...]]] = [
        ("Mul", (x, "sqrt_half")), ("Erf", ("scaled",)), ("Add", ("erf", "one")), ("Mul", (x, "half")),
        ("Mul", ("halved", "shifted")),
    ]  # fmt: skip
    outputs = ("scaled", "erf", "shifted", "halved", result)
    own: Callable[[str], str] = lambda name: name if name in (x, result) else f"{result}_{name}"  # noqa: E731
    for name, value in {"sqrt_half": math.sqrt(0.5), "one": 1.0, "half": 0.5}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), own(name)))
    for (kind, inputs), output in zip(steps, outputs, strict=True):
        name = f"{node.name}_{kind}_{output}" if output != result else node.name
        new = onnx.helper.make_node(kind, [own(one) for one in inputs], [own(output)], name=name)
        new.metadata_props.extend(node.metadata_props)
        yield new
