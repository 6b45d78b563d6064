"""Networks for `--model support.factories:NAME --allow-code`, and for tests of unsuitable inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def classifier(channels: int = 3, axes: int = 2, num_classes: int = 5) -> nn.Sequential:
    """Return a network for inputs `(B, channels, *size)` with 1, 2 or 3 axes of any size."""
    torch.manual_seed(0)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](channels, 4, 3)
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 1](1)
    return nn.Sequential(conv, nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, num_classes))


def fixed_size_classifier(side: int = 32) -> nn.Sequential:
    """Return a network that accepts images of one size only."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (side - 2) ** 2, 5))


class RedSegmentation(nn.Module):
    """A dense output with two classes; the second class wins where the image is red."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            for layer in (self.first, self.second):
                layer.weight.zero_()
                assert layer.bias is not None
                layer.bias.zero_()
            self.first.weight[0, 0] = self.second.weight[1] = 1

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.second(self.first(inputs))
        return scores


class InfiniteScore(nn.Module):
    """A classifier whose second score is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier()

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.inner(inputs) * torch.tensor([1, torch.inf, 1, 1, 1])
        return scores
