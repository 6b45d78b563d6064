"""All libraries behind one interface: `maps(net, inputs, layers, ...)` -> one raw map per layer.

Every call is written as the library's own documentation shows it, and does what its user has to do: hooks are put on
and taken off inside. If a library can do less work (raw maps, a known class), that option is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM as PytorchGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchcam.methods import GradCAM as TorchCAM

import seewhy

SIX_METHODS = ["gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "gradcamelementwise"]


def bare(net: nn.Module, inputs: Tensor) -> Tensor:
    """Run the bare forward pass, the denominator of every ratio: the same network and batch."""
    with torch.inference_mode():
        return net(inputs)


def seewhy_maps(net: nn.Module, inputs: Tensor, layers: list[str]) -> dict[str, Tensor]:
    explanation = seewhy.explain(net, inputs, methods="gradcam", layers=layers)
    return {name: explanation.map(layer=name) for name in layers}


def seewhy_jobs(net: nn.Module, inputs: Tensor, **options: Any) -> dict[str, Callable[[], object]]:
    """Return one explanation as a job: of the unchanged model, prepared, and prepared with gradients in bfloat16."""
    models = {
        "seewhy": net,
        "seewhy, prepared": seewhy.prepare(net),
        "seewhy, prepared in bf16": seewhy.prepare(net, precision="bf16"),
    }
    return {name: partial(seewhy.explain, model, inputs, **options) for name, model in models.items()}


def torchcam_maps(net: nn.Module, inputs: Tensor, layers: list[str]) -> dict[str, Tensor]:
    """Return rectified maps, because torchcam has no signed maps."""
    with TorchCAM(net, list(layers)) as extractor:
        scores = net(inputs)
        maps = extractor(scores.argmax(1).tolist(), scores, normalized=False)
    return dict(zip(layers, maps, strict=True))


def torchcam_classes(net: nn.Module, inputs: Tensor, layers: list[str], classes: list[int]) -> list[list[Tensor]]:
    with TorchCAM(net, list(layers)) as extractor:
        scores = net(inputs)
        return [extractor(index, scores, normalized=False, retain_graph=index != classes[-1]) for index in classes]


def grad_cam_maps(net: nn.Module, inputs: Tensor, layers: list[str], classes: list[int]) -> dict[str, np.ndarray]:
    """Loop over layers, because grad-cam averages a list of layers. Maps are min-maxed and at image size, always."""
    targets = [ClassifierOutputTarget(index) for index in classes]
    maps = {}
    for name in layers:
        with PytorchGradCAM(net, [net.get_submodule(name)]) as extractor:
            maps[name] = extractor(inputs, targets)
    return maps


def captum_maps(net: nn.Module, inputs: Tensor, layers: list[str], classes: list[int]) -> dict[str, Tensor]:
    maps = {}
    for name in layers:
        attributions = LayerGradCam(net, net.get_submodule(name)).attribute(inputs, target=classes)
        maps[name] = attributions.detach()[:, 0]
    return maps


def seewhy_methods(net: nn.Module, inputs: Tensor, methods: Any, layers: Any) -> seewhy.Explanation:
    return seewhy.explain(net, inputs, methods=methods, layers=layers)


def torchcam_method(
    method: Callable[..., Any], net: nn.Module, inputs: Tensor, layers: list[str], call: Any = None, **settings: Any
) -> list[Tensor]:
    """Return the raw maps (or the joined map) of a torchcam extractor for the top class. `call`: its call arguments."""
    with method(net, layers, **settings) as extractor:
        scores = net(inputs)
        return extractor(scores.argmax(1).tolist(), scores, normalized=False, **(call or {}))


def torchcam_probing(
    method: Callable[..., Any], net: nn.Module, inputs: Tensor, layers: list[str], **settings: Any
) -> list[Tensor]:
    """Run an extractor that needs no gradient."""
    with torch.inference_mode():
        return torchcam_method(method, net, inputs, layers, **settings)


def grad_cam_method(
    method: Callable[..., Any], net: nn.Module, inputs: Tensor, layers: list[str], **settings: Any
) -> np.ndarray:
    """Run a method of grad-cam for the top class, which it selects itself. Rectified, min-maxed, at image size."""
    extractor = method(net, [net.get_submodule(name) for name in layers], **settings)
    maps = extractor(inputs, None)
    for part in getattr(extractor, "base_cam_per_layer", [extractor]):  # RefineCAM holds one extractor a layer
        part.activations_and_grads.release()
    return maps
