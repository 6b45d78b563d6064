"""Networks and images for which it is known which layer or method is right, to test the choice of a layer and method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.methods.base import Method
from seewhy.signals.layer import Signals

SIZE, OBJECT, CELLS = 32, 8, 16


def make_images(count: int, seed: int, *, both_sides: bool = False) -> list[Tensor]:
    """Return images of gray noise with a red striped object and a green one, each at a random place.

    With `both_sides`, there is a red object in the left half and another one in the right half. Stripes, because a blurred
    copy or the mean color has none.
    """
    generator = torch.Generator().manual_seed(seed)
    stripes = torch.tensor([0.9, 0.0]).repeat(OBJECT // 2)
    images = []
    for _ in range(count):
        image = 0.1 * torch.rand(1, 1, SIZE, SIZE, generator=generator).repeat(1, 3, 1, 1)
        for number, channel in enumerate((0, 0) if both_sides else (0, 1)):
            y, x = (2 * torch.randint(0, (SIZE - OBJECT) // 2 + 1, (2,), generator=generator)).tolist()
            if both_sides:
                x = x % (SIZE // 2 - OBJECT + 1) // 2 * 2 + number * SIZE // 2
            image[0, channel, y : y + OBJECT, x : x + OBJECT] += stripes
        images.append(image)
    return images


class Detector(nn.Module):
    """Channel 0 finds red stripes, channel 1 green ones; the others are random features that the score ignores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 2, stride=2)
        generator = torch.Generator().manual_seed(0)
        weight = 0.3 * torch.randn(6, 3, 2, 2, generator=generator)
        weight[:2] = 0
        weight[0, 0] = weight[1, 1] = torch.tensor([[0.5, -0.5], [0.5, -0.5]])
        self.conv.weight.data, self.conv.bias = weight, nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = F.relu(self.conv(x))
        return features


class Planted(nn.Module):
    """A detector, a movement of its cells, a 1x1 convolution, and class scores from its mean.

    The score reads red objects, and green ones with the opposite sign.

    Args:
        move: Applied to the features `(B, C, 16, 16)` between the layers "detector.conv" and "last".
        undo: Applied to the image before the detector.
        pool: The mean over blocks of this size comes before "last".
    """

    def __init__(
        self,
        move: Callable[[Tensor], Tensor] = torch.clone,
        undo: Callable[[Tensor], Tensor] = torch.clone,
        pool: int = 1,
    ) -> None:
        super().__init__()
        self.detector, self.move, self.undo, self.pool = Detector(), move, undo, pool
        self.last = nn.Conv2d(6, 4, 1, bias=False)
        self.last.weight.data = torch.zeros(4, 6, 1, 1)
        self.last.weight.data[0, 0] = self.last.weight.data[1, 1] = 1.0
        self.last.weight.data[2:] = 0.05 * torch.randn(2, 6, 1, 1, generator=torch.Generator().manual_seed(1))
        self.head = nn.Linear(4, 3)
        self.head.weight.data = torch.tensor([[100.0, -40, 0, 0], [-40, 100, 0, 0], [0, 0, 1, 1]])
        self.head.bias.data = torch.tensor([0.0, 0.0, 2.0])

    def forward(self, x: Tensor) -> Tensor:
        features = self.move(self.detector(self.undo(x)))
        if self.pool > 1:
            features = F.avg_pool2d(features, self.pool)
        scores: Tensor = self.head(self.last(features).mean((2, 3)))
        return scores


class BySide(nn.Module):
    """A red object is evidence in the left half, and against it in the right half: one weight per channel cannot show that."""

    def __init__(self) -> None:
        super().__init__()
        self.last = Detector()

    def forward(self, x: Tensor) -> Tensor:
        red = self.last(x)[:, 0]
        half = CELLS // 2
        score = 0.25 * (red[:, :, :half].sum((1, 2)) - red[:, :, half:].sum((1, 2)))
        return torch.stack([score, -score], 1)


class Colors(nn.Module):
    """The mean color decides, wherever it is: covering with the mean color changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (nn.Conv2d(3, 3, 5, padding=2, padding_mode="circular", bias=False) for _ in range(2))
        for seed, layer in enumerate((self.first, self.last)):
            layer.weight.data = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(seed))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = 0.05 * self.last(self.first(x)).mean((2, 3))
        return scores


def shuffle(x: Tensor) -> Tensor:
    """Move the cells by one fixed permutation."""
    order = torch.randperm(x.shape[2] * x.shape[3], generator=torch.Generator().manual_seed(7))
    return x.flatten(2)[:, :, order].reshape(x.shape)


def roll(x: Tensor) -> Tensor:
    """Shift by half of each side; twice is no shift."""
    return x.roll((x.shape[2] // 2, x.shape[3] // 2), (2, 3))


def mirror(x: Tensor) -> Tensor:
    """Mirror top and bottom, and left and right."""
    return x.flip(2, 3)


def spread(x: Tensor) -> Tensor:
    """Replace each cell by a mean over nearly the entire grid."""
    return F.avg_pool2d(x, 15, stride=1, padding=7, count_include_pad=True)


@dataclass(frozen=True)
class NoiseMap(Method):
    """Smooth noise that depends on the image and the seed: all seeds are equally good, and none is right."""

    seed: int = 0

    def __call__(self, signals: Signals) -> Tensor:
        grid = signals.activations.shape[2:]
        rows = []
        for one in signals.activations:
            key = int(one.detach().double().abs().sum() * 1e6) % 2**31
            generator = torch.Generator().manual_seed(key * 31 + self.seed)
            rows.append(F.interpolate(torch.randn(1, 1, 5, 5, generator=generator), grid, mode="bilinear")[0, 0])
        return torch.stack(rows).to(signals.activations)


@dataclass(frozen=True)
class Case:
    """One planted case. `good` are the acceptable answers (method, layer); empty for a null case, where none is better."""

    name: str
    network: Callable[[], nn.Module]
    methods: tuple[str | Method, ...]
    layers: tuple[str, ...]
    good: tuple[tuple[str, str], ...] = ()
    both_sides: bool = False
    target: int | None = 0


GRADIENT = ("gradcam", "hirescam", "layercam")
DETECTOR, LAST = "detector.conv", "last"
NOISE = tuple(NoiseMap(seed) for seed in range(1, 11))


def at(layer: str, *methods: str) -> tuple[tuple[str, str], ...]:
    return tuple((method, layer) for method in methods)


CASES = (
    Case("the usual last layer is wrong: cells shuffled before it", lambda: Planted(shuffle), GRADIENT,
         (DETECTOR, LAST), at(DETECTOR, *GRADIENT)),
    Case("the usual last layer is wrong: cells mirrored before it", lambda: Planted(mirror), GRADIENT,
         (DETECTOR, LAST), at(DETECTOR, *GRADIENT)),
    Case("the usual last layer is wrong: cells shifted before it", lambda: Planted(roll), GRADIENT,
         (DETECTOR, LAST), at(DETECTOR, *GRADIENT)),
    Case("the usual last layer is wrong: cells averaged before it", lambda: Planted(spread), GRADIENT,
         (DETECTOR, LAST), at(DETECTOR, *GRADIENT)),
    Case("the first layer is wrong: it sees a shifted image", lambda: Planted(roll, roll), GRADIENT,
         (DETECTOR, LAST), at(LAST, *GRADIENT)),
    Case("the last layer is coarse: 2 x 2 cells", lambda: Planted(pool=8), ("hirescam",),
         (DETECTOR, LAST), at(DETECTOR, "hirescam")),
    Case("Grad-CAM is wrong: the sign depends on the place", BySide, ("gradcam", "hirescam"),
         ("last.conv",), at("last.conv", "hirescam"), both_sides=True),
    Case("LayerCAM is wrong: it drops negative evidence", Planted, ("layercam", "hirescam"),
         (LAST,), at(LAST, "hirescam")),
    Case("null: ten maps of noise of the last layer", Planted, NOISE, (LAST,)),
    Case("null: ten maps of noise at two layers", lambda: Planted(shuffle), NOISE[:5], (DETECTOR, LAST)),
    Case("null: equal methods at a mean-pooled layer", Planted, ("gradcam", "hirescam", "xgradcam"), (LAST,)),
    Case("null: the score does not depend on places", Colors, GRADIENT, ("first", "last"), target=None),
)  # fmt: skip
