"""Real architectures with few channels, in float64, with statistics and weights on which a wrong folding shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import timm
import torch
import torchvision.models as tv
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

CLASSES = 5


class PreActivation(nn.Module):
    """BatchNorm before the convolutions, and a convolution whose output two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = self.stem(x)
        x = self.conv1(torch.relu(self.norm1(stem)))
        x = self.conv2(torch.relu_(self.norm2(x)))
        return self.head((x + stem).mean((2, 3)))


class SmallVGG(tv.VGG):
    """VGG with a small head."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__(features, init_weights=False)
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(64, 16), nn.ReLU(inplace=True), nn.Linear(16, CLASSES))


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "ResNet": partial(tv.ResNet, BasicBlock, [1, 1, 1, 1], num_classes=CLASSES),
    "ResNeXt": partial(tv.ResNet, Bottleneck, [1, 1, 1, 1], num_classes=CLASSES, groups=4, width_per_group=4),
    "VGG": lambda: SmallVGG(tv.vgg.make_layers([8, 8, "M", 16, "M", 16], batch_norm=True)),
    "DenseNet": partial(tv.DenseNet, 8, (2, 2, 2), 16, num_classes=CLASSES),
    "MobileNetV2": partial(tv.MobileNetV2, CLASSES, width_mult=0.1),
    "MobileNetV3": partial(timm.create_model, "mobilenetv3_small_050", num_classes=CLASSES),
    "ShuffleNet": partial(tv.ShuffleNetV2, [1, 2, 1], [8, 16, 32, 64, 64], CLASSES),
    "MobileNetV3, TensorFlow": partial(timm.create_model, "tf_mobilenetv3_small_minimal_100", num_classes=CLASSES),
    "RegNet": partial(timm.create_model, "regnetx_002", num_classes=CLASSES),
    "RepVGG": partial(timm.create_model, "repvgg_a0", num_classes=CLASSES),
    "ConvNeXt": partial(timm.create_model, "convnext_atto", num_classes=CLASSES, dims=(8, 16, 16, 16), depths=(1, 1, 1, 1)),
    "LeViT": partial(timm.create_model, "levit_128s", num_classes=CLASSES, img_size=64),
    "ViT": partial(timm.create_model, "vit_tiny_patch16_224", num_classes=CLASSES, img_size=64, embed_dim=24, depth=2),
    "pre-activation": PreActivation,
}  # fmt: skip


def small_architecture(name: str) -> nn.Module:
    """Return a network in eval mode, in float64, with random statistics of all BatchNorms."""
    torch.manual_seed(0)
    net = ARCHITECTURES[name]().double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.3, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
    return net
