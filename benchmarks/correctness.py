"""Correctness of the maps.

The ground truth is computed without any of the contenders: a hook stores each layer's output and passes on a clone, so later
operations cannot change the stored tensor. captum, exact but with two passes per layer, is compared with it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import Tensor, nn

import contenders as run
from nets import NETS, conv_names, images, top_classes
from results import Aim, Report, Table

TOLERANCE = 1e-3  # of the map's largest value
IMAGES = 2
SIZE = 128  # right or wrong does not depend on it
Maps = Mapping[str, Tensor | np.ndarray]


def truth(net: nn.Module, inputs: Tensor, layers: list[str], classes: list[int]) -> dict[str, Tensor]:
    """Signed Grad-CAM of every layer: the mean gradient of each channel times the channel, summed."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            kept[name] = output
            return output.clone()

        return hook

    handles = [net.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        scores = net(inputs)
    finally:
        for handle in handles:
            handle.remove()
    target_score = scores.gather(1, torch.tensor(classes)[:, None]).sum()
    gradients = torch.autograd.grad(target_score, [kept[name] for name in layers])
    weights = [gradient.mean((2, 3), keepdim=True) for gradient in gradients]
    return {name: (weight * kept[name]).sum(1).detach() for name, weight in zip(layers, weights, strict=True)}


def as_grad_cam_draws(maps: dict[str, Tensor], size: int) -> dict[str, np.ndarray]:
    """Return the true maps after grad-cam's sequence: rectify, min-max, resize, min-max."""
    return {
        name: scale_cam_image(scale_cam_image(layer_map.clamp(min=0).numpy(), (size, size)))
        for name, layer_map in maps.items()
    }


def error(given: Tensor | np.ndarray, true: Tensor | np.ndarray) -> float:
    """Return the largest difference in any image, as a fraction of that image's true maximum."""
    given, true = (np.asarray(value).reshape(IMAGES, -1) for value in (given, true))
    largest = np.abs(true).max(1)
    differences = np.abs(given - true).max(1)
    blank = largest == 0  # nothing to take a share of: the contender's map must be blank too
    shares = np.where(blank, differences > 0, differences / np.where(blank, 1, largest))
    return float(np.nan_to_num(shares, nan=np.inf).max())


def row(net_name: str, contender: str, maps: Maps, true: Maps) -> tuple[list[str], int]:
    errors = {name: error(maps[name], true[name]) for name in maps}
    wrong = [name for name, value in errors.items() if value > TOLERANCE]
    verdict = (
        f"correct on {len(errors)}" if not wrong else f"**wrong on {len(wrong)} of {len(errors)}**, as `{wrong[-1]}`"
    )
    return [net_name, contender, verdict, f"{max(errors.values()):.1e}"], len(wrong)


def sites(net_name: str, net: nn.Module) -> list[str]:
    """Return all convolutions, and some modules that an in-place operation follows (`features` is torchcam's default)."""
    extra = {"DenseNet-121": ["features"], "ResNet-18": ["layer4.1.bn2", "layer4"]}
    return conv_names(net) + extra.get(net_name, [])


def some_of(layers: list[str]) -> list[str]:
    """Return a dozen layers, including the last ones, for contenders that need one or two passes per layer."""
    return layers[:: -max(1, len(layers) // 12)][::-1]


def check(net_name: str) -> tuple[list[list[str]], int]:
    net, inputs = NETS[net_name](), images(IMAGES, SIZE)
    layers, classes = sites(net_name, net), top_classes(net, inputs)
    signed = truth(net, inputs, layers, classes)
    rectified = {name: layer_map.clamp(min=0) for name, layer_map in signed.items()}
    drawn = as_grad_cam_draws(signed, SIZE)
    few = some_of(layers)
    ours, wrong = row(net_name, "seewhy", run.seewhy_maps(net, inputs, layers), signed)
    peers = [
        row(net_name, "torchcam", run.torchcam_maps(net, inputs, layers), rectified),
        row(net_name, "grad-cam", run.grad_cam_maps(net, inputs, few, classes), drawn),
        row(net_name, "captum", run.captum_maps(net, inputs, few, classes), signed),
    ]
    return [ours, *(cells for cells, _ in peers)], wrong


def measure() -> Report:
    rows, aims = [], []
    for net_name in ["ResNet-18", "Lite0", "VGG-11", "DenseNet-121"]:
        cells, wrong = check(net_name)
        rows += cells
        aims.append(Aim(f"{net_name}: layers with a wrong Grad-CAM map", wrong, 0, "layers"))
    note = (
        f"Grad-CAM of the top class of {IMAGES} images at every convolution (for grad-cam and captum, which need one pass "
        "per layer: at some of them), and at blocks and normalization layers that an in-place operation follows. The ground "
        f"truth is computed from cloned outputs. Wrong: the error exceeds {TOLERANCE:g} of the map's maximum."
    )
    return Report([Table("Correctness", ["net", "contender", "maps", "largest error"], rows, note)], aims)
