"""Modules that are called several times, or on frames, see what the network passes to each call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy.errors import LayerError


class Base(nn.Module):
    """Positive weights, so that the heat of a bright spot lies where the spot is."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.second = nn.Conv2d(channels, 6, 3, 1, 1), nn.Conv2d(6, 6, 3, 1, 1)
        self.relu, self.pool, self.fc = nn.ReLU(), nn.MaxPool2d(2), nn.Linear(6, 2)
        for convolution in (self.cnn, self.second):
            nn.init.uniform_(convolution.weight, 0, 0.2)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.fc.weight, 1.0)

    def head(self, features: Tensor) -> Tensor:
        return self.fc(features.mean((2, 3)))  # type: ignore[no-any-return]


class Fused(Base):
    """An image and its mirror image through one stem, then layers that are called as often as there are images."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.cnn(x)) + self.relu(self.cnn(x.flip(3))).flip(3)
        return self.head(self.pool(self.relu(self.second(self.pool(y)))))


class Refined(Base):
    """A CNN for each frame, then a block that is called as often as there are frames."""

    def forward(self, x: Tensor) -> Tensor:
        y = sum(self.relu(self.cnn(x[:, frame])) for frame in range(x.shape[1]))
        for _ in range(x.shape[1]):
            y = self.relu(self.second(y))
        return self.head(y)


class Stacked(Base):
    """The frames of a clip as channels."""

    def __init__(self) -> None:
        super().__init__(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.cnn(x.flatten(1, 2))))


class Frames(Base):
    """A CNN for each frame, which sees it as `arrange` returns it."""

    def __init__(self, arrange: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.arrange = arrange

    def forward(self, x: Tensor) -> Tensor:
        rows = self.arrange(x.flatten(0, 1))
        return self.head(self.relu(self.cnn(rows))).unflatten(0, (len(x), -1)).mean(1)


def spot(*size: int, at: tuple[slice | int, ...]) -> Tensor:
    x = 0.001 * torch.rand(size, generator=torch.Generator().manual_seed(0))
    x[at] = 1
    return x


def center(heat: Tensor) -> list[float]:
    heat = torch.where(heat > 0.3, heat, 0.0)
    totals = [heat.sum([other for other in range(heat.dim()) if other != axis]) for axis in range(heat.dim())]
    return [float((one * (torch.arange(len(one)) + 0.5)).sum() / one.sum()) for one in totals]


IMAGE = spot(1, 3, 24, 24, at=(..., slice(3, 6), slice(17, 20)))
CLIP = spot(1, 4, 3, 16, 36, at=(slice(None), 3, slice(None), slice(1, 5), slice(26, 30)))


@pytest.mark.parametrize("layer", ["cnn#1", "cnn#2", "relu#1", "relu#2", "relu#3", "pool#1", "pool#2", "second"])
def test_calls_after_two_views_were_fused(layer: str) -> None:
    e = seewhy.explain(Fused().eval(), IMAGE, layers="all", methods="hirescam", targets=1)
    row, column = center(e.heatmap(layer=layer)[0])
    assert abs(row - 4.5) < 1.5
    assert abs(column - 18.5) < 1.5
    assert bool(e.layer_info[layer].parts) == (layer in ("cnn#1", "cnn#2", "relu#1", "relu#2"))


def test_a_block_after_a_loop_belongs_to_no_frame() -> None:
    e = seewhy.explain(Refined().eval(), CLIP, targets=1)
    assert e.layers == ("cnn#4",)
    with pytest.raises(LayerError, match="has fewer axes than an input of shape"):
        seewhy.explain(Refined().eval(), CLIP, layers="second", targets=1)


@pytest.mark.parametrize("combine", [Stacked, lambda: Mean(lambda x: x.mean(1)), lambda: Mean(lambda x: x.amax(1))])
def test_frames_that_are_combined_are_no_single_frame(combine: Callable[[], nn.Module]) -> None:
    for layers in (None, "cnn"):
        with pytest.raises(LayerError, match="no single frame or slice is what it shows"):
            seewhy.explain(combine().eval(), CLIP, layers=layers, targets=1)


class Mean(Base):
    def __init__(self, combine: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.cnn(self.combine(x))))


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: F.pad(x, (0, 0, 10, 10)),
        lambda x: F.pad(x, (8, 8, 8, 8), mode="reflect"),
        lambda x: F.interpolate(F.pad(x, (0, 0, 10, 10)), (20, 20), mode="bilinear"),
    ],
)
def test_frames_that_are_padded_are_refused(arrange: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(LayerError, match="where in the input they are could not be observed"):
        seewhy.explain(Frames(arrange).eval(), CLIP, targets=1)


@pytest.mark.parametrize(
    "arrange", [lambda x: x, lambda x: (x - 0.4) / 0.2, lambda x: F.interpolate(x, (8, 18), mode="bilinear")]
)
def test_frames_that_are_normalized_or_resized(arrange: Callable[[Tensor], Tensor]) -> None:
    e = seewhy.explain(Frames(arrange).eval(), CLIP, targets=1, methods="hirescam")
    frame, row, column = center(e.heatmap()[0])
    assert abs(frame - 3.5) < 0.5
    assert abs(row - 3) < 1
    assert abs(column - 28) < 1


@pytest.mark.parametrize(
    "turn", [lambda x: x.rot90(1, (2, 3)), lambda x: x.transpose(2, 3), lambda x: F.pad(x[:, :, 4:], (0, 0, 0, 4))]
)
def test_calls_that_see_other_regions_are_stated(turn: Callable[[Tensor], Tensor]) -> None:
    class Turned(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.cnn(x)).relu()) + 2 * self.head(self.second(self.cnn(turn(x))).relu())

    for layers in (None, "cnn", "second"):
        e = seewhy.explain(Turned().eval(), IMAGE, layers=layers, targets=1)
        assert any("the calls of 'cnn' see different regions of the input" in note for note in e.notes)


def test_an_image_and_its_transpose_as_rows_are_refused() -> None:
    class Rows(Base):
        def forward(self, x: Tensor) -> Tensor:
            rows = self.relu(self.cnn(torch.cat([x, x.transpose(2, 3)])))
            return self.head(rows).unflatten(0, (2, -1)).mean(0)

    with pytest.raises(LayerError, match="where in the input they are could not be observed"):
        seewhy.explain(Rows().eval(), IMAGE, targets=1)


def test_calls_on_features_are_no_regions_of_the_input() -> None:
    class Shared(Base):
        """One head for features of several sizes, as in RetinaNet and FCOS."""

        def forward(self, x: Tensor) -> Tensor:
            features = self.relu(self.cnn(x))
            levels = [features, self.pool(features), self.pool(self.pool(features))]
            return sum(self.head(self.second(level).relu()) for level in levels)  # type: ignore[return-value]

    for seed in range(4):
        torch.manual_seed(seed)
        e = seewhy.explain(Shared().eval(), torch.randn(1, 3, 24, 24), targets=1, layers="second")
        assert not e.notes
