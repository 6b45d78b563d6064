"""`export_model`: write a network that returns its class scores and a map."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from seewhy import __version__
from seewhy.engine.inputs import InputSpec, read_inputs
from seewhy.errors import OptionError, UnknownName, UsageError
from seewhy.images.samples import sample
from seewhy.integrations.model_export.class_selection import ClassSelection, parse_classes
from seewhy.integrations.model_export.exported import ExportedModel, Format, make_metadata
from seewhy.integrations.model_export.file_formats import (
    check_format,
    encode,
    export_errors,
    open_content,
    quiet_exporters,
)
from seewhy.integrations.model_export.map_network import (
    GradientMaps,
    LinearHeadMaps,
    MapName,
    MapNetwork,
)
from seewhy.integrations.model_export.mapped_layer import MappedLayer, find_mapped_layer
from seewhy.integrations.model_export.recording_network import RecordingNetwork
from seewhy.integrations.model_export.tail_gradient import TailGradient
from seewhy.integrations.model_export.verification import compare
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.loading import load_model
from seewhy.storage import check_own, write_file
from seewhy.tensors.random_state import preserve_rng

SAMPLES = ("cat_espresso", "coffee", "chelsea")
MAX_GRADIENTS = 20  # classes whose gradients one file computes
MAPS = get_args(MapName)
DEFAULT_TARGETS = "top1"


def export_model(
    model: nn.Module | LoadedModel | str,
    path: str | os.PathLike[str],
    *,
    map: MapName = "cam",
    to: Format = "onnx",
    layer: str | None = None,
    targets: str | int | Sequence[str | int] = DEFAULT_TARGETS,
    heatmap: bool = False,
    inputs: InputSpec | None = None,
    batch: int | None = None,
    opset: int | None = None,
    multilabel: bool = False,
) -> ExportedModel:
    """Write a network that returns its class scores and a map, for programs without PyTorch or without autograd.

    The input is `images`, float32 `(B, C, height, width)`, preprocessed as for the model. The outputs are `scores`
    `(B, classes)`, exactly those of the model; `classes` `(B, k)`, the numbers of the explained classes; `map`
    `(B, k, h, w)`, their signed maps in the units of `seewhy.explain`; and `heatmap` `(B, k, height, width)` on request.

    Before mean pooling and a linear head, all maps are sums of weights times activations. Elsewhere, "hirescam" and "gradcam"
    are computed from the gradient of what follows the layer, which the file contains as plain operations. The content is
    compared with `seewhy.explain` before it is written; if it differs, no file is written.

    Args:
        model: An `nn.Module`, a `LoadedModel`, or a model URI such as "torchvision/resnet18".
        path: The file to write. An existing file is replaced only if seewhy wrote it.
        map: "cam", "hirescam", "gradcam" or "reciprocam".
        to: "onnx", "pt2" (`torch.export`) or "torchscript".
        layer: Name of the layer. Default: the suggested layer; for "cam" and "reciprocam", the last layer before the mean
            pooling if the suggested one is another.
        targets: The classes that are explained: "topK" (the K most likely classes of each image), "all", or classes by
            index or name.
        heatmap: Also return the positive part of each map, resized to the input and divided by its maximum.
        inputs: Images or a tensor `(B, C, height, width)` to trace and compare with, at least 2. Default: three sample images
            for a model with preprocessing.
        batch: The only number of images that the file accepts. Default: any number.
        opset: Version of the ONNX operators. Default: that of the exporter.
        multilabel: True if classes are not exclusive: "reciprocam" then uses sigmoids.

    Returns:
        What was written, and how closely it matches.

    Raises:
        UnknownName: The map, format, layer or class does not exist.
        MethodError: "cam" or "reciprocam" at a layer without mean pooling and a linear head behind it.
        UsageError: A package is missing, the network cannot be exported, the exported network differs, or the file cannot
            be written.

    Example:
        >>> import tempfile
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> path = Path(tempfile.mkdtemp()) / "net.pt2"
        >>> exported = export_model(net, path, to="pt2", inputs=torch.rand(2, 3, 8, 8))
        >>> exported.outputs["map"]
        ('batch', 1, 6, 6)

    References:
        Zhou et al., "CAM", CVPR 2016; Draelos and Carin, "HiResCAM", 2020; Byun and Lee, "Recipro-CAM", CVPRW 2024.
    """
    if map not in MAPS:
        raise UnknownName("map", str(map), MAPS, hint=f"These can be exported: {', '.join(MAPS)}.")
    check_format(to)
    for name, value in (("batch", batch), ("opset", opset)):
        if value is not None and value < 1:
            raise OptionError(name, value, "give at least 1.")
    path = Path(path)
    check_own(path)
    loaded = load_model(model)
    tensor = read_examples(loaded, inputs)
    with preserve_rng(tensor.device), torch.no_grad():
        selected = find_mapped_layer(loaded, fixed_batch(tensor, batch or 1), map, layer, multilabel=multilabel)
        selection = parse_classes(targets, loaded.labels, selected.class_count)
        is_dynamic, examples = batch is None, fixed_batch(tensor, batch or 2)
        network = build_network(
            loaded, examples, selected, map, selection, heatmap=heatmap, is_dynamic=is_dynamic, format=to
        )
        names = ["scores", "classes", "map", "heatmap"][: 4 if heatmap else 3]
        shown = selection.names(loaded.labels)
        metadata = make_metadata(__version__, loaded.uri, map, selected.name, shown, loaded.labels, loaded.preprocess)
        content = encode(to, network, examples, names, metadata, is_dynamic=is_dynamic, opset=opset)
        run = open_content(to, content)
        trials = [fixed_batch(tensor, batch)] if batch else [tensor, tensor[:1]]
        results = [compare(run, loaded, one, selected, map, selection.top, multilabel=multilabel) for one in trials]
        shapes = {
            name: ("batch" if batch is None else batch, *value.shape[1:])
            for name, value in zip(names, run(trials[0]), strict=True)
        }
    write_file(path, content)
    return ExportedModel(
        path, to, loaded.uri, map, selected.name, shapes, len(content), max(one.maps for one in results),
        max(one.scores for one in results), sum(len(one) for one in trials),
    )  # fmt: skip


def read_examples(model: LoadedModel, inputs: InputSpec | None) -> Tensor:
    """Return the images `(B, C, height, width)` that the network is traced with, on the CPU."""
    if inputs is None:
        if model.preprocess is None:
            raise UsageError(
                "the size of the input is unknown, because the model has no preprocessing; pass inputs=, a tensor "
                "(B, C, height, width) with at least 2 images, or preprocess= to load_model"
            )
        inputs = [sample(name) for name in SAMPLES]
    given = read_inputs(inputs, model)
    if given.module is not model.module:
        raise UsageError("only models with one input (B, C, height, width) can be exported; wrap the model in a module")
    tensor = given.tensor.cpu()
    if tensor.dim() != 4 or tensor.dtype != torch.float32:
        raise UsageError(
            f"the input has the shape {tuple(tensor.shape)} and the type {tensor.dtype}; only models with float32 images "
            "(B, C, height, width) can be exported"
        )
    return tensor if len(tensor) > 1 else torch.cat([tensor, tensor.flip(3)])


def fixed_batch(tensor: Tensor, count: int) -> Tensor:
    """Return `count` images, repeated if there are fewer."""
    return tensor[torch.arange(count) % len(tensor)]


def build_network(
    model: LoadedModel, examples: Tensor, layer: MappedLayer, method: MapName, selection: ClassSelection, *,
    heatmap: bool, is_dynamic: bool, format: Format,
) -> MapNetwork:  # fmt: skip
    """Return the network to export. Maps have a closed form before a linear head, and are computed from gradients elsewhere.

    Raises:
        UsageError: The map needs the gradients of too many classes, or the network cannot be traced.
    """
    network = RecordingNetwork(model.module, layer)
    if layer.head is not None:
        return LinearHeadMaps(network, method, selection, heatmap=heatmap).eval()
    if (count := selection.count(layer.class_count)) > MAX_GRADIENTS:
        raise UsageError(
            f"--map {method} at layer '{layer.name}' needs a gradient for each of {count} classes, at most {MAX_GRADIENTS}; "
            "choose fewer: --targets top5"
        )
    if format == "torchscript":
        raise UsageError(
            f"TorchScript files have only maps with a closed form, and a gradient is needed for --map {method} at layer "
            f"'{layer.name}'; use --to onnx or --to pt2"
        )
    with quiet_exporters(), export_errors(format):
        tail = TailGradient(network, examples, is_dynamic=is_dynamic)
    return GradientMaps(tail, layer, method, selection, heatmap=heatmap).eval()
