"""Networks so small that every number of a map is known, and comparisons of maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn


def passing(channels: int) -> nn.Conv2d:
    """A 1x1 convolution that hands its input on: A is what the test says it is."""
    conv = nn.Conv2d(channels, channels, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(channels)[:, :, None, None])
    return conv


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with these weights (classes, features)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return layer


def pooled(weight: Tensor, bias: Tensor | None = None, after: nn.Module | None = None) -> nn.Module:
    """A -> (a function of each cell) -> mean over the cells -> linear. The layer of A is "0"."""
    parts = [passing(weight.shape[1]), after or nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, linear(weight, bias)).eval()


def flattened(weight: Tensor, after: nn.Module | None = None) -> nn.Module:
    """A -> (a function of each cell) -> linear, with a weight (classes, channels, h, w) of its own for each cell."""
    parts = [passing(weight.shape[1]), after or nn.Identity(), nn.Flatten()]
    return nn.Sequential(*parts, linear(weight.flatten(1))).eval()


def rectified(bias: bool) -> nn.Sequential:
    """Three convolutions, ReLU, max-pooling, linear: without biases homogeneous of degree one."""
    parts = [
        nn.Conv2d(3, 6, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, bias=bias),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, bias=bias),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 5, bias=bias),
    ]
    net = nn.Sequential(*parts).double().eval()
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(random(*parameter.shape, seed=100 + i) / max(1, parameter[0].numel()) ** 0.5)
    return net


CONVOLUTIONS = ("0", "3", "5")  # of `rectified`


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def score(net: nn.Module, inputs: Tensor, classes: list[int]) -> Tensor:
    """The logit of each image's class."""
    with torch.no_grad():
        return net(inputs)[torch.arange(len(inputs)), torch.tensor(classes)]


def total(maps: Tensor) -> Tensor:
    """The sum of each image's map."""
    return maps.sum((1, 2))


def blob(row: int, column: int, value: float = 1.0, side: int = 8) -> Tensor:
    """A image (side, side) with one 2x2 blob."""
    image = torch.zeros(side, side, dtype=torch.float64)
    image[row : row + 2, column : column + 2] = value
    return image


def close(found: Tensor, expected: Tensor, rtol: float = 1e-12, atol: float = 1e-13) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def mean_head() -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Weights (4, 5), biases, signed activations of two images, and their classes."""
    return random(4, 5, seed=1), random(4, seed=2), random(2, 5, 6, 7, seed=3), [2, 0]


def jacobian(function: Callable[[Tensor], Tensor], signals: Tensor) -> Tensor:
    """The derivative (classes, *shape) of the logits of one image (1, *shape)."""
    return torch.autograd.functional.jacobian(function, signals)[0, :, 0].detach()


class Straight(nn.Module):
    """Convolutions and a linear head without anything between: the logits are J x + b. The layer is "conv"."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1).double()
        self.head = nn.Linear(4 * 5 * 6, classes).double()
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(random(*parameter.shape, seed=20 + i) / max(1, parameter[0].numel()) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


@cache
def straight() -> tuple[Straight, Tensor, list[int], Tensor, Tensor]:
    """The net, two images, their classes, J (classes, 2, 9, 12) and b."""
    net, inputs = Straight().eval(), random(2, 2, 9, 12, seed=9)
    j = jacobian(net, inputs[:1])
    return net, inputs, [2, 0], j, (net(inputs) - torch.einsum("cihw,bihw->bc", j, inputs))[0].detach()


def logits_under(masks: Tensor, x: Tensor, j: Tensor, b: Tensor) -> Tensor:
    """The logits (N, classes) of a image x (2, h, w) behind masks (N, h, w)."""
    return torch.einsum("nhw,cihw,ihw->nc", masks, j, x) + b
