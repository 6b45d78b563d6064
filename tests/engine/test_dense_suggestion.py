"""The suggested layer of networks with a dense output: the layer before the head."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.segmentation import fcn_resnet50

import seewhy


class Residual(nn.Module):
    """A trunk, a residual block whose two branches pass on the same gradient, and a head of 1x1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.join = nn.Identity()
        self.scores = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        x = self.join(x + self.inner(x))
        scores: Tensor = nn.functional.interpolate(self.scores(x), scale_factor=2)
        return scores


class TwoHeads(nn.Module):
    """Two heads on one trunk: only the trunk affects all outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.boxes = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        self.classes = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        return torch.cat([self.boxes(x), self.classes(x)], 1)


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (Residual, "join"),
        (TwoHeads, "trunk"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Softmax(1)), "1"),
        (lambda: fcn_resnet50(weights=None, weights_backbone=None, num_classes=4), "classifier.2"),
    ],
)  # fmt: skip
def test_layer_before_the_head(network: Callable[[], nn.Module], layer: str) -> None:
    torch.manual_seed(0)
    suggestion = seewhy.suggest(network().eval(), torch.rand(1, 3, 64, 64))
    assert suggestion.layer == layer and "the output is a grid: " in suggestion.note


def test_output_without_a_layer_before_it() -> None:
    suggestion = seewhy.suggest(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.rand(1, 3, 16, 16))
    assert suggestion.layer == "0" and "repeats the target" in suggestion.note
