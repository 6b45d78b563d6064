"""ONNX files as models: converted to a PyTorch network whose operators are modules with names, by onnx2torch."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from seewhy.errors import ModelError, UsageError, shorten_error
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.modules import assume_preprocess
from seewhy.models.sources.onnx_modules import free_batch, replace_modules
from seewhy.models.sources.onnx_names import operator_names
from seewhy.models.sources.onnx_operators import (
    UnsupportedOperator,
    replace_constants,
    replace_copies,
    rewrite_operators,
    unsupported,
)
from seewhy.models.sources.onnx_reading import read_onnx
from seewhy.tensors.map_functions import nearly_equal

PREFIX = "seewhy."  # of the metadata that `seewhy export-model` writes
INSTALL = "ONNX files need onnx and onnx2torch: pip install 'seewhy[onnx]'"
ADVICE = "load the original PyTorch model, or export it with other operators"
TOLERANCE = 1e-3
OWN_MODULE = "network.network."  # modules around the network in a file that `seewhy export-model` wrote
SCORES = "scores"  # the output of a file that `seewhy export-model` wrote


def load_onnx(path: Path, uri: str) -> LoadedModel:
    """Load an ONNX file as a PyTorch network. Its operators are modules with the names of the original modules, if known.

    The result is compared with onnxruntime, if that is installed. Preprocessing and labels are read from files that
    `seewhy export-model` wrote; for others, those of ImageNet are assumed.

    Raises:
        ModelError: The file is damaged, a package is missing, or an operator is not supported.
    """
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnx2torch")):
        raise ModelError(str(path), INSTALL)
    model = read_onnx(path)
    name, shape = image_input(model, path)
    try:
        module, batch_note = convert_free(model, shape)
    except UnsupportedOperator as error:
        raise ModelError(str(path), f"onnx2torch does not support the {error}; {ADVICE}") from None
    except Exception as error:  # of onnx2torch, which has no errors of its kind
        raise ModelError(str(path), f"onnx2torch cannot convert it ({shorten_error(error)}); {ADVICE}") from None
    notes = [compare(module, model, name, shape, path), batch_note]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    preprocess, note = read_preprocess(metadata), ""
    if preprocess is None:
        preprocess, note = assume_preprocess(module)
        if preprocess is not None and isinstance(shape[2], int) and isinstance(shape[3], int):
            preprocess, note = at_size(preprocess, note, (shape[2], shape[3]))
    return LoadedModel(module, preprocess, read_labels(metadata), uri, tuple(filter(None, [*notes, note])))


def image_input(model: Any, path: Path) -> tuple[str, tuple[int | None, ...]]:
    """Return the name and shape of a model's only input; None is an axis of any length."""
    weights = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs[:3])
        raise ModelError(
            str(path), f"has {len(inputs)} inputs ({names}); only models with one image input are supported"
        )
    axes = inputs[0].type.tensor_type.shape.dim
    shape = tuple(axis.dim_value or None for axis in axes)
    if len(shape) != 4 or inputs[0].type.tensor_type.elem_type != 1:
        raise ModelError(
            str(path), f"its input has the shape {list(shape)}; only float32 images (B, C, height, width) are supported"
        )
    return inputs[0].name, shape


def convert_free(model: Any, shape: tuple[int | None, ...]) -> tuple[nn.Module, str]:
    """Return a model of ONNX as a module that accepts any number of images, and a note if it accepts only some number."""
    if shape[0] is None:
        return convert(model), ""
    if shape[0] == 1:
        try:
            module = convert(model, is_free=True)
            inputs = torch.cat([example(shape), example(shape).flip(3)])
            with torch.no_grad():
                rows = torch.cat([first(module(inputs[:1])), first(module(inputs[1:]))])
                if nearly_equal(first(module(inputs)), rows, TOLERANCE):
                    return module, ""
        except Exception:  # a network that cannot be freed
            pass
    module, check = convert(model), BatchCheck(shape[0])
    check_first(module, check)
    return module, str(check)


class BatchCheck(nn.Module):
    """Rejects other numbers of images than the one a file was exported for. Some networks would mix them."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def __str__(self) -> str:
        return f"the file was exported for {'one image' if self.count == 1 else f'{self.count} images'} at once"

    def forward(self, images: Tensor) -> Tensor:
        if len(images) != self.count:
            raise ValueError(f"{self}, and this batch has {len(images)}")
        return images


def check_first(network: fx.GraphModule, check: BatchCheck) -> None:
    """Let a network call `check` with its input, before anything else."""
    network.add_submodule("batch_check", check)
    source = next(node for node in network.graph.nodes if node.op == "placeholder")
    with network.graph.inserting_after(source):
        checked = network.graph.call_module("batch_check", (source,))
    source.replace_all_uses_with(checked, delete_user_cb=lambda node: node is not checked)
    network.recompile()


def first(output: Any) -> Tensor:
    """Return the first output of a network."""
    return output if isinstance(output, Tensor) else output[0]


def convert(model: Any, *, is_free: bool = False) -> fx.GraphModule:
    """Return a model of ONNX as a module, which `is_free` makes accept any number of images.

    Raises:
        UnsupportedOperator: onnx2torch has no form of an operator.
    """
    import onnx.inliner
    import onnx.shape_inference
    import onnx2torch

    copy = type(model)()
    copy.CopyFrom(model)
    copy = onnx.inliner.inline_local_functions(copy)
    keep_scores(copy)
    replace_copies(copy)
    replace_constants(copy)
    if is_free:
        free_batch(copy)
    copy = onnx.shape_inference.infer_shapes(copy)
    rewrite_operators(copy)
    register_aliases()
    check_operators(copy)
    is_own = any(entry.key.startswith(PREFIX) for entry in model.metadata_props)
    names = operator_names(copy, OWN_MODULE if is_own else "")
    for number, node in enumerate(copy.graph.node):
        node.name = f"node_{number}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = onnx2torch.convert(copy)
    network = with_names(module, names)
    replace_modules(network)
    network.eval()
    return network


def keep_scores(model: Any) -> None:
    """Remove all outputs but the class scores from a file that `seewhy export-model` wrote, and what only they need."""
    outputs = {one.name: one for one in model.graph.output}
    if SCORES not in outputs or not any(entry.key.startswith(PREFIX) for entry in model.metadata_props):
        return
    needed, kept = {SCORES}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    scores = type(outputs[SCORES])()
    scores.CopyFrom(outputs[SCORES])
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(reversed(kept))
    model.graph.output.append(scores)


def register_aliases() -> None:
    """Register operators whose new versions only accept more types of numbers with the converters of the old versions."""
    from onnx2torch.node_converters.registry import add_converter, get_converter

    for name, old, new in (("GreaterOrEqual", 12, 16), ("LessOrEqual", 12, 16)):
        try:
            get_converter(name, new)
        except NotImplementedError:
            add_converter(name, new)(get_converter(name, old))


def check_operators(model: Any) -> None:
    """Raise UnsupportedOperator for the first operator that onnx2torch cannot convert."""
    from onnx2torch.node_converters.registry import get_converter

    versions = {entry.domain: entry.version for entry in model.opset_import}
    for node in model.graph.node:
        try:
            get_converter(node.op_type, versions.get(node.domain, 1), node.domain)
        except NotImplementedError:
            raise unsupported(node) from None


def with_names(module: fx.GraphModule, names: list[str]) -> fx.GraphModule:
    """Return the network with its operators under dotted names, in a tree of modules."""
    calls = [node for node in module.graph.nodes if node.op == "call_module"]
    tree = fx.GraphModule(nn.Module(), fx.Graph())
    if "initializers" in dict(module.named_children()):
        tree.add_submodule("initializers", module.get_submodule("initializers"))
    targets = {f"node_{number}": name for number, name in enumerate(names)}
    for node in calls:
        operator = module.get_submodule(str(node.target))
        node.target = targets[str(node.target)]
        tree.add_submodule(node.target, operator)
    tree.graph = module.graph
    tree.recompile()
    return tree


def compare(module: nn.Module, model: Any, name: str, shape: tuple[int | None, ...], path: Path) -> str:
    """Compare a converted network with onnxruntime on random numbers, and return a note.

    Raises:
        ModelError: They differ, or the network does not run.
    """
    inputs = example(shape)
    try:
        with torch.no_grad():
            result = first(module(inputs))
    except Exception as error:
        raise ModelError(
            str(path), f"the network that onnx2torch returned does not run ({shorten_error(error)}); {ADVICE}"
        ) from None
    converted = f"converted from ONNX by onnx2torch: {count_operators(model)} operators"
    if importlib.util.find_spec("onnxruntime") is None:
        return f"{converted}; not compared with onnxruntime, which is not installed"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_outputs()]
        expected = torch.from_numpy(session.run([SCORES if SCORES in names else names[0]], {name: inputs.numpy()})[0])
    except Exception as error:
        raise ModelError(str(path), f"onnxruntime cannot run it ({shorten_error(error)}); {ADVICE}") from None
    if not nearly_equal(result, expected, TOLERANCE):
        raise ModelError(str(path), f"the network that onnx2torch returned computes other numbers; {ADVICE}")
    return f"{converted}, equal to onnxruntime on random numbers"


def example(shape: tuple[int | None, ...]) -> Tensor:
    """Return random numbers for an input; axes of any length get that of usual images."""
    defaults = (1, 3, 224, 224)
    lengths = [default if length is None else length for length, default in zip(shape, defaults, strict=True)]
    return torch.rand(lengths, generator=torch.Generator().manual_seed(0))


def count_operators(model: Any) -> int:
    return len(model.graph.node)


def at_size(preprocess: Preprocess, note: str, size: tuple[int, int]) -> tuple[Preprocess, str]:
    """Return assumed preprocessing for the size of the input that a file states."""
    if size == preprocess.size:
        return preprocess, note
    height, width = (round(length / 0.875) for length in size)
    changed = dataclasses.replace(preprocess, size=size, resize=height if height == width else (height, width))
    return changed, note.replace("224x224", f"{size[0]}x{size[1]}")


def read_preprocess(metadata: Mapping[str, str]) -> Preprocess | None:
    """Return the preprocessing in the metadata of a file that seewhy wrote; None if there is none, or it is invalid."""
    try:
        values = json.loads(metadata[f"{PREFIX}preprocess"])
        lists: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return Preprocess(**lists)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError, RecursionError):
        return None


def read_labels(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the labels in the metadata of a file that seewhy wrote; None if there are none, or they are invalid."""
    try:
        labels = json.loads(metadata[f"{PREFIX}labels"])
    except (KeyError, ValueError, RecursionError):
        return None
    return tuple(labels) if isinstance(labels, list) and all(isinstance(one, str) for one in labels) else None
