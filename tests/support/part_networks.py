"""Networks that process frames, patches or crops of each input as rows of one batch, with the parts written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

CLASSES = 4


class PartNetwork(nn.Module):
    """`split` puts the parts of the inputs into the batch axis, `cnn` processes them, and `join` combines their features."""

    def __init__(self, channels: int = 3, axes: int = 2, feature_axis: str = "mean") -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d}[axes]
        self.cnn = nn.Sequential(
            conv(channels, 6, 3, padding=1),
            nn.ReLU(),
            conv(6, 8, 3, stride=2, padding=1),
            nn.BatchNorm1d(8) if axes == 1 else nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.cnn(self.split(x)), x)

    def split(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1)

    def join(self, features: Tensor, x: Tensor) -> Tensor:
        pooled = features.flatten(2).amax(2) + features.flatten(2).mean(2)
        return self.fc(self.combine(pooled.unflatten(0, (len(x), -1))))

    def combine(self, rows: Tensor) -> Tensor:
        """Combine the features of parts (B, parts, K)."""
        return rows.mean(1)


class Recurrent(PartNetwork):
    """Frames (B, T, C, H, W) through a CNN, then a recurrent network over time."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 8, batch_first=True)

    def combine(self, rows: Tensor) -> Tensor:
        return self.rnn(rows)[0][:, -1]


class TimeMajor(Recurrent):
    """The same, with the first frames of all clips first in the batch axis."""

    def split(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1).flatten(0, 1)

    def join(self, features: Tensor, x: Tensor) -> Tensor:
        return super().join(features.unflatten(0, (-1, len(x))).transpose(0, 1).flatten(0, 1), x)


class Bag(PartNetwork):
    """Patches (B, N, C, h, w) of a slide, combined by attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 1))

    def combine(self, rows: Tensor) -> Tensor:
        return (self.attention(rows).softmax(1) * rows).sum(1)


class MaxBag(PartNetwork):
    """Patches, of which the one with the highest features decides."""

    def combine(self, rows: Tensor) -> Tensor:
        best = rows.sum(2).argmax(1)
        return rows[torch.arange(len(rows)), best]


class Slices(PartNetwork):
    """A volume (B, 1, D, H, W) slice by slice."""

    def __init__(self) -> None:
        super().__init__(channels=1)
        self.mix = nn.Parameter(torch.rand(6))

    def split(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(0, 1)

    def combine(self, rows: Tensor) -> Tensor:
        return (rows * self.mix[: rows.shape[1], None]).sum(1)


class Tiles(PartNetwork):
    """An image (B, C, H, W) in 2 x 3 tiles without overlap."""

    def split(self, x: Tensor) -> Tensor:
        tiles = x.unflatten(3, (3, -1)).unflatten(2, (2, -1))  # (B, C, 2, h, 3, w)
        return tiles.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)

    def combine(self, rows: Tensor) -> Tensor:
        return rows.prod(1)


class FiveCrops(PartNetwork):
    """The corners and the center of an image, which overlap."""

    size = 16

    def split(self, x: Tensor) -> Tensor:
        far, middle, size = x.shape[-1] - self.size, (x.shape[-1] - self.size) // 2, self.size
        starts = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
        return torch.stack([x[:, :, top : top + size, left : left + size] for top, left in starts], 1).flatten(0, 1)

    def combine(self, rows: Tensor) -> Tensor:
        return (rows**2).mean(1)


class Flips(PartNetwork):
    """An image and its mirror image, the mirror images after all images."""

    def split(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.flip(-1)])

    def join(self, features: Tensor, x: Tensor) -> Tensor:
        return super().join(torch.stack(features.chunk(2), 1).flatten(0, 1), x)

    def combine(self, rows: Tensor) -> Tensor:
        return rows[:, 0] * rows[:, 1]


class Zooms(PartNetwork):
    """The quadrants of an image, each enlarged to the size of the image."""

    def split(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        quadrants = [x[:, :, top : top + half, left : left + half] for top in (0, half) for left in (0, half)]
        enlarged = [nn.functional.interpolate(one, scale_factor=2, mode="bilinear") for one in quadrants]
        return torch.stack(enlarged, 1).flatten(0, 1)

    def combine(self, rows: Tensor) -> Tensor:
        return rows.prod(1)


class Windows(PartNetwork):
    """A recording (B, C, L) in windows."""

    def __init__(self) -> None:
        super().__init__(axes=1)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (5, -1)).transpose(1, 2).flatten(0, 1)

    def combine(self, rows: Tensor) -> Tensor:
        return rows.tanh().cumsum(1)[:, -2]


@dataclass(frozen=True)
class Case:
    """A network, its input without the batch axis, and the boxes of its parts in the input (C, *size) that seewhy shows."""

    network: Callable[[], PartNetwork]
    shape: tuple[int, ...]
    boxes: tuple[tuple[tuple[int, int], ...], ...]
    is_part_major: bool = False
    is_exact: bool = True


def frames(count: int, *size: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    return tuple(((number, number + 1), *((0, length) for length in size)) for number in range(count))


def boxes(starts: list[tuple[int, int]], height: int, width: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    return tuple(((top, top + height), (left, left + width)) for top, left in starts)


CASES = {
    "recurrent": Case(Recurrent, (5, 3, 16, 12), frames(5, 16, 12)),
    "time major": Case(TimeMajor, (5, 3, 16, 12), frames(5, 16, 12), is_part_major=True),
    "bag": Case(Bag, (7, 3, 12, 12), frames(7, 12, 12)),
    "maximum": Case(MaxBag, (4, 3, 12, 12), frames(4, 12, 12)),
    "slices": Case(Slices, (1, 6, 16, 12), frames(6, 16, 12)),
    "tiles": Case(Tiles, (3, 24, 36), boxes([(top, left) for top in (0, 12) for left in (0, 12, 24)], 12, 12)),
    "crops": Case(FiveCrops, (3, 24, 24), boxes([(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)], 16, 16)),
    "flips": Case(Flips, (3, 16, 16), boxes([(0, 0), (0, 0)], 16, 16), is_part_major=True),
    "zooms": Case(Zooms, (3, 24, 24), boxes([(0, 0), (0, 12), (12, 0), (12, 12)], 12, 12), is_exact=False),
    "windows": Case(Windows, (3, 60), tuple(((12 * n, 12 * n + 12),) for n in range(5))),
}


def make(name: str, images: int = 2, *, seed: int = 0) -> tuple[PartNetwork, Tensor]:
    """Return a network in float64 and its input."""
    torch.manual_seed(seed)
    network = CASES[name].network().double().eval()
    return network, torch.randn(images, *CASES[name].shape, dtype=torch.float64)


def rows_of(name: str, values: Tensor, images: int) -> Tensor:
    """Return rows in the order of the network as (B, parts, ...)."""
    if CASES[name].is_part_major:
        return values.unflatten(0, (-1, images)).transpose(0, 1)
    return values.unflatten(0, (images, -1))


def reference(name: str, network: PartNetwork, inputs: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return activations and gradients (B, parts, K, *grid) of the CNN's output for the scores of `classes`."""
    features = network.cnn(network.split(inputs)).detach().requires_grad_()
    scores = network.join(features, inputs).gather(1, classes[:, None])
    (gradient,) = torch.autograd.grad(scores.sum(), features)
    return rows_of(name, features.detach(), len(inputs)), rows_of(name, gradient, len(inputs))
