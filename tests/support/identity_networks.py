"""Networks in which every number of a map is known in closed form, and helpers for comparisons."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn


def identity_convolution(channels: int) -> nn.Conv2d:
    """Return a 1x1 convolution that returns its input, so that the test chooses A."""
    conv = nn.Conv2d(channels, channels, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(channels)[:, :, None, None])
    return conv


def linear_layer(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Return a linear layer with weights (classes, features)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return layer


def pooled_network(weight: Tensor, bias: Tensor | None = None, after: nn.Module | None = None) -> nn.Module:
    """A -> (a function of each cell) -> mean over the cells -> linear. The layer of A is "0"."""
    parts = [identity_convolution(weight.shape[1]), after or nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, linear_layer(weight, bias)).eval()


def flattened_network(weight: Tensor, after: nn.Module | None = None) -> nn.Module:
    """A -> (a function of each cell) -> linear, with separate weights (classes, channels, h, w) per cell."""
    parts = [identity_convolution(weight.shape[1]), after or nn.Identity(), nn.Flatten()]
    return nn.Sequential(*parts, linear_layer(weight.flatten(1))).eval()


def relu_network(bias: bool) -> nn.Sequential:
    """Return a network of convolutions, ReLU, max-pooling and a linear layer; homogeneous without biases."""
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
            parameter.copy_(random_normal(*parameter.shape, seed=100 + i) / max(1, parameter[0].numel()) ** 0.5)
    return net


CONVOLUTIONS = ("0", "3", "5")  # of `relu_network`


def random_normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def class_scores(net: nn.Module, inputs: Tensor, classes: list[int]) -> Tensor:
    """Return the logit of the class of each image."""
    with torch.no_grad():
        return net(inputs)[torch.arange(len(inputs)), torch.tensor(classes)]


def sum_maps(maps: Tensor) -> Tensor:
    """Return the sum of each map."""
    return maps.sum((1, 2))


def blob(row: int, column: int, value: float = 1.0, side: int = 8) -> Tensor:
    """Return an image (side, side) with one 2x2 blob."""
    image = torch.zeros(side, side, dtype=torch.float64)
    image[row : row + 2, column : column + 2] = value
    return image


def assert_close(actual: Tensor, expected: Tensor, rtol: float = 1e-12, atol: float = 1e-13) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def mean_head_example() -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Return weights (4, 5), biases, signed activations of two images, and their classes."""
    return random_normal(4, 5, seed=1), random_normal(4, seed=2), random_normal(2, 5, 6, 7, seed=3), [2, 0]


def logit_jacobian(function: Callable[[Tensor], Tensor], signals: Tensor) -> Tensor:
    """Return the Jacobian (classes, *shape) of the logits of one image (1, *shape)."""
    return torch.autograd.functional.jacobian(function, signals)[0, :, 0].detach()


class LinearNetwork(nn.Module):
    """A convolution and a linear head without nonlinearity: the logits are J x + b. The layer is "conv"."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1).double()
        self.head = nn.Linear(4 * 5 * 6, classes).double()
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(random_normal(*parameter.shape, seed=20 + i) / max(1, parameter[0].numel()) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


@cache
def linear_example() -> tuple[LinearNetwork, Tensor, list[int], Tensor, Tensor]:
    """Return a linear network, two images, their classes, J (classes, 2, 9, 12) and b."""
    net, inputs = LinearNetwork().eval(), random_normal(2, 2, 9, 12, seed=9)
    j = logit_jacobian(net, inputs[:1])
    return net, inputs, [2, 0], j, (net(inputs) - torch.einsum("cihw,bihw->bc", j, inputs))[0].detach()


def logits_under(masks: Tensor, x: Tensor, j: Tensor, b: Tensor) -> Tensor:
    """Return the logits (N, classes) of an image x (2, h, w) multiplied by masks (N, h, w)."""
    return torch.einsum("nhw,cihw,ihw->nc", masks, j, x) + b
