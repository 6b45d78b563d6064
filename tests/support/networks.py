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

# Where the seeds start: so that at seed 0 each method at each layer has evidence for the class in some picture.
STARTS = {"mobilenet_v2": 5, "convnext_tiny": 5}


def calibrated(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """A torchvision net in eval mode with healthy maps at every layer, and two pictures. The global RNG is untouched.

    The float64 net is the float32 one, cast: the same weights and pictures.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(STARTS.get(name, 0) + seed)
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


# --- tiny nets: signed activations and gradients that differ from place to place, in eval mode, five classes ----------


def tiny(kind: type[nn.Module], seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """A tiny net of this kind and two random inputs of its `shape`. The global RNG is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = kind().eval()
        inputs = torch.randn(2, *net.shape)
    return net.to(dtype), inputs.to(dtype)


class InplaceNet(nn.Module):
    """In-place operations of each sort, each right after a convolution: a module, `+=`, a functional one, a method."""

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
    """The skip is the rectified tensor only because the ReLU works in place: out of place it is another function."""

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
    """One convolution called twice: two places, two maps."""

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
    """conv -> flatten -> linear: the gradient is the weight of each place, so HiResCAM and Grad-CAM differ."""

    shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


class Conv1dNet(nn.Module):
    """Signals in time: (B, C, length)."""

    shape = (3, 32)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, 6, 5, padding=2)
        self.second = nn.Conv1d(6, 6, 3, stride=2)
        self.head = nn.Linear(6 * 15, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(F.relu_(self.first(x)))).flatten(1))


class Conv3dNet(nn.Module):
    """Volumes: (B, C, depth, height, width)."""

    shape = (2, 5, 8, 7)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 6, 3, padding=1)
        self.second = nn.Conv3d(6, 4, 3)
        self.head = nn.Linear(4 * 3 * 6 * 5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(F.relu_(self.first(x)))).flatten(1))


class Pair(nn.Module):
    """A layer that answers with a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(6, 4, 3, padding=1)
        self.coarse = nn.Conv2d(6, 4, 3, padding=1, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fine(x), self.coarse(x)


class TupleNet(nn.Module):
    """A layer with a tuple inside, and a tuple (logits, features) as the net's answer."""

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
    """A layer that answers with a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine, coarse = self.pair(x)
        return {"fine": fine, "coarse": coarse}


class DictNet(nn.Module):
    """A layer with a dict inside, and a dict {"logits", "features"} as the net's answer."""

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


TINY = (
    InplaceNet,
    SkipOfInplaceNet,
    TwiceNet,
    FlattenNet,
    Conv1dNet,
    Conv3dNet,
    TupleNet,
    DictNet,
)
