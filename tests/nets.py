"""Networks whose maps are healthy at every layer: eight from torchvision with random weights, and tiny hand-made ones.

torchvision's random weights give maps of 1e-15 here and there: VGG and AlexNet shrink the signal layer by layer,
ConvNeXt scales each block by 1e-6, and BatchNorm with its initial statistics lets activations grow or die. So the
weights are drawn anew (see `_draw`), and BatchNorm gets the statistics of random pictures with structure.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

# The smallest side at which the last convolutions still have a grid of 2x2 or more.
SIDES = {
    "resnet18": 64,
    "vgg11": 64,
    "alexnet": 96,
    "squeezenet1_1": 64,
    "densenet121": 64,
    "mobilenet_v2": 64,
    "efficientnet_b0": 64,
    "convnext_tiny": 64,
}
NAMES = tuple(SIDES)


def calibrated(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """A torchvision net in eval mode with healthy maps at every layer, and two pictures. The global RNG is untouched.

    The float64 net is the float32 one, cast: the same weights and pictures.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = torchvision.models.get_model(name, weights=None).eval()
        _draw(net)
        _calibrate(net, pictures(32, SIDES[name]))
        inputs = pictures(2, SIDES[name])
    return net.to(dtype), inputs.to(dtype)


def top_classes(net: nn.Module, inputs: Tensor) -> Tensor:
    """The top class of each picture."""
    with torch.no_grad():
        return net(inputs).argmax(1)


def pictures(count: int, side: int) -> Tensor:
    """Random pictures with structure: noise at several scales, so that places differ at every depth of a net."""
    layers = [
        F.interpolate(torch.randn(count, 3, cells, cells), (side, side), mode="bicubic") for cells in (2, 4, 8, side)
    ]
    return torch.stack(layers).sum(0) / 2


def _draw(net: nn.Module) -> None:
    """Draw weights that keep the signal's size from layer to layer, and biases that are not 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, nn.LayerNorm):
            # A score does not change with the scale of what enters a LayerNorm, so sum_k G_k A_k is 0 in every cell
            # but for eps: at 1e-6 HiResCAM before a LayerNorm (most of ConvNeXt's convolutions) is rounding noise.
            module.eps = 0.05
        if hasattr(module, "layer_scale"):
            nn.init.ones_(module.layer_scale)


def _calibrate(net: nn.Module, batch: Tensor) -> None:
    """Give each BatchNorm the statistics of a batch. Only they train: dropout and stochastic depth stay off."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over the forwards below
        norm.train()
    with torch.no_grad():
        for part in batch.chunk(2):
            net(part)
    net.eval()
