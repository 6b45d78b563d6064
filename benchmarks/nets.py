"""Networks and inputs for all contenders. Weights are random but fixed; time and memory do not depend on them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

import seewhy


def _torchvision(name: str) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None).eval()


def calibrated(net: nn.Module, size: int = 224) -> nn.Module:
    """`net` with the statistics of its BatchNorms from one batch of noise: else signals grow or fade from layer to layer."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(images(8, size))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return net.eval()


def _lite0() -> nn.Module:
    return seewhy.load_model().module.eval()


def _tiny() -> nn.Module:
    """A network small enough for thousands of calls, with an in-place operation that requires a copy."""
    torch.manual_seed(0)
    stages = [nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 16, 3), nn.ReLU(inplace=True)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()


def _vit() -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("vit_small_patch16_224", pretrained=False).eval()


NETS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-18": lambda: _torchvision("resnet18"),
    "ResNet-50": lambda: calibrated(_torchvision("resnet50")),
    "VGG-16": lambda: _torchvision("vgg16"),
    "MobileNetV3-L": lambda: calibrated(_torchvision("mobilenet_v3_large")),
    "ConvNeXt-T": lambda: _torchvision("convnext_tiny"),
    "ViT-S": _vit,
    "Swin-T": lambda: _torchvision("swin_t"),
    "ResNet-18, calibrated": lambda: calibrated(_torchvision("resnet18")),
    "Lite0": _lite0,
    "VGG-11": lambda: _torchvision("vgg11"),
    "DenseNet-121": lambda: _torchvision("densenet121"),
    "tiny": _tiny,
}


def images(batch: int, size: int = 224) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))


# With BatchNorm, so that preparing them folds norms.
WITH_BATCH_NORM = {"ResNet-18", "Lite0", "ResNet-50", "MobileNetV3-L", "DenseNet-121"}
ALL_LAYERS = [
    "ResNet-18",
    "Lite0",
    "ResNet-50",
    "VGG-16",
    "MobileNetV3-L",
    "ConvNeXt-T",
    "DenseNet-121",
    "ViT-S",
    "Swin-T",
]


def layers_of(net: nn.Module) -> list[str]:
    """Return the layers of `--layers every`: all convolutions, or the blocks of a transformer."""
    return list(seewhy.explain(net, images(1), layers="every").layers)


def conv_names(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]


def top_classes(net: nn.Module, inputs: Tensor) -> list[int]:
    with torch.inference_mode():
        return net(inputs).argmax(1).tolist()
