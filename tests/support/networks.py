"""Networks with usable maps at every layer: eight of torchvision with random weights, and tiny ones for special cases.

With torchvision's initial weights some maps have values around 1e-15: VGG and AlexNet shrink the signal layer by layer,
ConvNeXt scales each block by 1e-6, and BatchNorm with its initial statistics lets activations grow or vanish. Therefore
`_draw_weights` draws new weights, and BatchNorm gets the statistics of random images with structure.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

# The smallest input side at which the last convolutions still have a grid of at least 2x2.
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
TORCHVISION_NAMES = tuple(SIDES)

# Added to the seed, so that at seed 0 each method has positive evidence at each layer for at least one image.
SEED_OFFSETS = {"mobilenet_v2": 5, "convnext_tiny": 5}


def calibrated_network(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """Return a torchvision network in eval mode and two images. The global random state does not change.

    The float64 network has the weights and images of the float32 network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED_OFFSETS.get(name, 0) + seed)
        net = torchvision.models.get_model(name, weights=None).eval()
        _draw_weights(net)
        _set_batch_norm_statistics(net, random_images(32, SIDES[name]))
        inputs = random_images(2, SIDES[name])
    return net.to(dtype), inputs.to(dtype)


def top_classes(net: nn.Module, inputs: Tensor) -> Tensor:
    """Return the top class of each image."""
    with torch.no_grad():
        return net(inputs).argmax(1)


def random_images(count: int, side: int) -> Tensor:
    """Return random images with noise at several scales, so that positions differ at every depth of a network."""
    layers = [
        F.interpolate(torch.randn(count, 3, cells, cells), (side, side), mode="bicubic") for cells in (2, 4, 8, side)
    ]
    return torch.stack(layers).sum(0) / 2


def _draw_weights(net: nn.Module) -> None:
    """Draw weights that preserve the scale of the signal from layer to layer, and nonzero biases."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, nn.LayerNorm):
            # A score does not depend on the scale of a LayerNorm's input, so sum_k G_k A_k is 0 in every cell except for
            # the effect of eps: at 1e-6 HiResCAM before a LayerNorm (most convolutions of ConvNeXt) is rounding noise.
            module.eps = 0.05
        if hasattr(module, "layer_scale"):
            nn.init.ones_(module.layer_scale)


def _set_batch_norm_statistics(net: nn.Module, batch: Tensor) -> None:
    """Set the statistics of each BatchNorm from a batch. Only BatchNorm is in train mode; dropout stays off."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over the forward passes below
        norm.train()
    with torch.no_grad():
        for part in batch.chunk(2):
            net(part)
    net.eval()


# Tiny networks with five classes: activations and gradients are signed and differ between positions.


def tiny_network(kind: type[nn.Module], seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """Return a tiny network of class `kind` and two random inputs of its `shape`. The global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = kind().eval()
        inputs = torch.randn(2, *net.shape)
    return net.to(dtype), inputs.to(dtype)


class InplaceNet(nn.Module):
    """In-place operations of each kind directly after a convolution: a module, `+=`, a function, a method."""

    shape = (3, 12, 12)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.third = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.fourth = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 6 * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        y = self.second(x)
        y += x
        y = self.third(F.relu(y, inplace=True))
        y = self.fourth(F.silu(y, inplace=True))
        return self.head(y.tanh_().flatten(1))


class SkipOfInplaceNet(nn.Module):
    """The skip connection adds the rectified tensor only because the ReLU is in place; out of place the function differs."""

    shape = (3, 10, 10)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6 * 10 * 10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.relu(x)
        return self.head(torch.tanh(self.second(y) + x).flatten(1))


class TwiceNet(nn.Module):
    """One convolution called twice, which has two maps."""

    shape = (3, 10, 10)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 6, 3)
        self.head = nn.Linear(6 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        x = torch.tanh(self.twice(x))
        x = F.silu(self.twice(x))
        return self.head(torch.tanh(self.last(x)).flatten(1))


class FlattenNet(nn.Module):
    """conv -> flatten -> linear: the gradient differs between positions, so HiResCAM and Grad-CAM differ."""

    shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


class Conv1dNet(nn.Module):
    """For signals (B, C, length)."""

    shape = (3, 32)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, 6, 5, padding=2)
        self.second = nn.Conv1d(6, 6, 3, stride=2)
        self.head = nn.Linear(6 * 15, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(F.relu_(self.first(x)))).flatten(1))


class Conv3dNet(nn.Module):
    """For volumes (B, C, depth, height, width)."""

    shape = (2, 5, 8, 7)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 6, 3, padding=1)
        self.second = nn.Conv3d(6, 4, 3)
        self.head = nn.Linear(4 * 3 * 6 * 5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(F.relu_(self.first(x)))).flatten(1))


class Pair(nn.Module):
    """A layer that returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(6, 4, 3, padding=1)
        self.coarse = nn.Conv2d(6, 4, 3, padding=1, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fine(x), self.coarse(x)


class TupleNet(nn.Module):
    """A network with a layer that returns a tuple, and with the output (logits, features)."""

    shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.pair = Pair()
        self.head = nn.Linear(4 * 8 * 8 + 4 * 4 * 4, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine, coarse = self.pair(F.relu_(self.first(x)))
        features = torch.tanh(torch.cat([fine.flatten(1), coarse.flatten(1)], 1))
        return self.head(features), features


class Named(nn.Module):
    """A layer that returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine, coarse = self.pair(x)
        return {"fine": fine, "coarse": coarse}


class DictNet(nn.Module):
    """A network with a layer that returns a dict, and with the output {"logits", "features"}."""

    shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.named = Named()
        self.head = nn.Linear(4 * 8 * 8 + 4 * 4 * 4, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        named = self.named(F.relu_(self.first(x)))
        features = torch.tanh(torch.cat([part.flatten(1) for part in named.values()], 1))
        return {"logits": self.head(features), "features": features}


TINY_NETWORKS = (
    InplaceNet,
    SkipOfInplaceNet,
    TwiceNet,
    FlattenNet,
    Conv1dNet,
    Conv3dNet,
    TupleNet,
    DictNet,
)
