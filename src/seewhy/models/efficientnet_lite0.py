"""EfficientNet-Lite0, the embedded network, in plain PyTorch: importing timm, with torchvision, takes longer than torch.

Results and the names, classes and order of modules equal those of timm's `tf_efficientnet_lite0`, so that layer names and state
dicts are valid for both. Modules that compute nothing (`drop`, `aa`, `se`, `drop_path`) are included.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
EXPANSION = 6  # channels inside a block, per input channel
# Number of blocks, kernel size, stride of the first block, and output channels of each stage after the first one
STAGES = ((2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
FIRST_STAGE_CHANNELS = 16


class Conv2dSame(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: output size `ceil(input / stride)`, an odd cell at the end.

    >>> from torch import zeros
    >>> Conv2dSame(3, 8, 3, stride=2)(zeros(1, 3, 7, 10)).shape
    torch.Size([1, 8, 4, 5])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pad `x` for its size, and convolve it."""
        height, width = (self.padding_of(x, axis) for axis in (0, 1))
        return super().forward(F.pad(x, (*width, *height)))

    def padding_of(self, x: Tensor, axis: int) -> tuple[int, int]:
        """Return the cells to add before and after `x` along a spatial axis."""
        size, kernel, stride = x.shape[axis - 2], self.kernel_size[axis], self.stride[axis]
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


class BatchNormAct2d(nn.BatchNorm2d):
    """BatchNorm followed by an activation: ReLU6, or none."""

    def __init__(self, channels: int, *, has_act: bool = True) -> None:
        super().__init__(channels, eps=1e-3)
        self.drop = nn.Identity()
        self.act = nn.ReLU6(inplace=True) if has_act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `x`, and apply the activation."""
        x = self.act(self.drop(super().forward(x)))
        return x


class DepthwiseSeparableConv(nn.Module):
    """The block of the first stage: a convolution per channel, then a pointwise convolution."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_dw = depthwise(channels, 3, stride=1)
        self.bn1 = BatchNormAct2d(channels)
        self.aa = nn.Identity()
        self.se = nn.Identity()
        self.conv_pw = pointwise(channels, out_channels)
        self.bn2 = BatchNormAct2d(out_channels, has_act=False)
        self.drop_path = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block. `drop_path` is skipped, as in timm: no blocks of this kind have a shortcut here."""
        x = self.bn1(self.conv_dw(x))
        x = self.se(self.aa(x))
        x = self.bn2(self.conv_pw(x))
        return x


class InvertedResidual(nn.Module):
    """The block of the other stages: expand the channels, convolve each of them, project; with a shortcut if shapes agree."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = channels * EXPANSION
        self.has_skip = channels == out_channels and stride == 1
        self.conv_pw = pointwise(channels, inner)
        self.bn1 = BatchNormAct2d(inner)
        self.conv_dw = depthwise(inner, kernel, stride)
        self.bn2 = BatchNormAct2d(inner)
        self.aa = nn.Identity()
        self.se = nn.Identity()
        self.conv_pwl = pointwise(inner, out_channels)
        self.bn3 = BatchNormAct2d(out_channels, has_act=False)
        self.drop_path = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block, and add its input if it has a shortcut."""
        shortcut = x
        x = self.bn1(self.conv_pw(x))
        x = self.bn2(self.conv_dw(x))
        x = self.se(self.aa(x))
        x = self.bn3(self.conv_pwl(x))
        return self.drop_path(x) + shortcut if self.has_skip else x


class SelectAdaptivePool2d(nn.Module):
    """The mean of each channel. The name is timm's."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the means (B, C) of `x` (B, C, H, W)."""
        x = self.flatten(self.pool(x))
        return x


class EfficientNet(nn.Module):
    """EfficientNet-Lite0: scores of 1000 classes (B, 1000) from images (B, 3, H, W).

    >>> sum(parameter.numel() for parameter in EfficientNet().parameters())
    4652008
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pretrained_cfg: dict[str, Any] = {}  # timm's name for the preprocessing; `wrap_module` reads it
        self.conv_stem = Conv2dSame(3, STEM_CHANNELS, 3, stride=2, bias=False)
        self.bn1 = BatchNormAct2d(STEM_CHANNELS)
        stages = [nn.Sequential(DepthwiseSeparableConv(STEM_CHANNELS, FIRST_STAGE_CHANNELS))]
        inputs = (FIRST_STAGE_CHANNELS, *(channels for *_, channels in STAGES))
        for (count, kernel, stride, _), (before, channels) in zip(STAGES, pairwise(inputs), strict=True):
            first = InvertedResidual(before, channels, kernel, stride)
            others = [InvertedResidual(channels, channels, kernel, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(first, *others))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = pointwise(inputs[-1], HEAD_CHANNELS)
        self.bn2 = BatchNormAct2d(HEAD_CHANNELS)
        self.global_pool = SelectAdaptivePool2d()
        self.classifier = nn.Linear(HEAD_CHANNELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of all classes, before softmax."""
        x = self.bn1(self.conv_stem(x))
        x = self.blocks(x)
        x = self.bn2(self.conv_head(x))
        x = self.classifier(self.global_pool(x))
        return x


def pointwise(channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 1, bias=False)


def depthwise(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    """Return a convolution per channel. With stride 1, "same" padding does not depend on the size of the input."""
    if stride == 1:
        return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
    return Conv2dSame(channels, channels, kernel, stride, groups=channels, bias=False)
