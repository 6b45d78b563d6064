"""The suggested layer before a global maximum, and in networks with parallel branches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy.engine.branches import FEW_CHANNELS, is_spread
from seewhy.engine.suggestion import is_finite


class Winner(nn.Module):
    """Two convolutions and a head in which a few cells win."""

    def __init__(self, head: str, rank: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.body = nn.Sequential(conv(3, 16, 3), nn.ReLU(), conv(16, 32, 3), nn.ReLU())
        self.head, self.fc = head, nn.Linear(64 if head == "mean and maximum" else 32, 4)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.body(x).flatten(2)
        match self.head:
            case "maximum":
                pooled = cells.amax(2)
            case "adaptive":
                pooled = F.adaptive_max_pool1d(cells, 1)[:, :, 0]
            case "four quarters":
                pooled = F.adaptive_max_pool1d(cells, 4).mean(2)
            case "best three":
                pooled = cells.topk(3, 2).values.mean(2)
            case "mean and maximum":
                pooled = torch.cat([cells.mean(2), cells.amax(2)], 1)
            case "minimum and maximum":
                pooled = cells.amax(2) + cells.amin(2)
        return self.fc(pooled)  # type: ignore[no-any-return]


HEADS = ("maximum", "adaptive", "four quarters", "best three", "mean and maximum", "minimum and maximum")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("rank", "size"), [(1, (200,)), (2, (24, 20)), (3, (9, 8, 10))])
def test_the_layer_before_a_global_maximum_is_suggested(head: str, rank: int, size: tuple[int, ...]) -> None:
    net = Winner(head, rank).eval()
    inputs = torch.randn(1, 3, *size)
    e = seewhy.explain(net, inputs)
    assert e.layers == ("body",)
    kept = net.body(inputs).detach().requires_grad_()
    net.body.forward = lambda x: kept  # type: ignore[method-assign]
    scores = net(inputs)
    (gradient,) = torch.autograd.grad(scores[0, scores.argmax()], kept)
    expected = (gradient.flatten(2).mean(2)[:, :, None] * kept.flatten(2)).sum(1).view_as(e.map())
    torch.testing.assert_close(e.map(), expected.detach(), rtol=1e-4, atol=1e-7)


def member(channels: int = 8) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, channels, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )  # fmt: skip


class Mean(nn.Module):
    """An ensemble: the mean of the scores of several networks."""

    def __init__(self, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.members = nn.ModuleList([nn.Sequential(member(), nn.Linear(8, 4)) for _ in weights])
        with torch.no_grad():
            for module, weight in zip(self.members, weights, strict=True):
                module[1].weight.mul_(weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([module(x) for module in self.members]).mean(0)


class LateFusion(nn.Module):
    """Two different networks, whose features one linear layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.fc = member(8), member(12), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([self.left(x), self.right(x[..., ::2, ::2])], 1))  # type: ignore[no-any-return]


class Siamese(nn.Module):
    """One network that runs twice, on the image and on its mirror image."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = member(), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([self.body(x), self.body(x.flip(-1))], 1))  # type: ignore[no-any-return]


class Product(nn.Module):
    """Bilinear pooling: the product of the features of two networks."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.fc = member(), member(), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.left(x)[:, :, None] * self.right(x)[:, None]).flatten(1))  # type: ignore[no-any-return]


class Gate(nn.Module):
    """A second network that weights the channels of the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.gate, self.fc = member()[:4], member(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.body(x) * self.gate(x).sigmoid()[:, :, None, None]).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("net", "layers"),
    [
        (Mean((1, 1, 0.01)), {"members.0.0.3", "members.1.0.3", "members.2.0.3"}),
        (Mean((1, 3)), {"members.0.0.3", "members.1.0.3"}),
        (LateFusion(), {"left.3", "right.3"}),
        (Siamese(), {"body.3#1", "body.3#2"}),
        (Product(), {"left.3", "right.3"}),
        (Gate(), {"body", "gate.3"}),
    ],
    ids=["three members", "two members", "late fusion", "siamese", "product", "gate"],
)
def test_all_parallel_branches_are_named(net: nn.Module, layers: set[str]) -> None:
    e = seewhy.explain(net.eval(), torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
    (note,) = [note for note in e.notes if "parallel" in note]
    assert {name for name in layers if name in note} | set(e.layers) == layers
    assert all(
        layer in seewhy.explain(net, torch.randn(1, 3, 40, 40), layers=sorted(layers)).layers for layer in layers
    )


def test_the_strongest_branch_is_suggested() -> None:
    for weights in ((1, 1, 0.01), (0.01, 1, 0.01), (1, 0.01, 0.02)):
        suggested = seewhy.suggest(Mean(weights).eval(), torch.randn(1, 3, 40, 40)).layer
        assert weights[int(suggested.split(".")[1])] == 1


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


@pytest.mark.parametrize("kind", ["inception", "skip", "dense"])
def test_branches_inside_a_network_are_no_parallel_branches(kind: str) -> None:
    """They are joined again before the last grid."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block, self.last = nn.Conv2d(3, 8, 3), Block(), nn.Conv2d(16, 8, 1)
            self.fc = nn.Linear(24 if kind == "dense" else 8, 4)

        def forward(self, x: Tensor) -> Tensor:
            stem = self.stem(x)
            block = self.block(stem)
            last = self.last(block)
            if kind == "skip":
                last = last + stem
            if kind == "dense":
                last = torch.cat([last, block], 1)
            return self.fc(last.mean((2, 3)))  # type: ignore[no-any-return]

    assert seewhy.suggest(Net().eval(), torch.randn(1, 3, 16, 16)).note == ""


class TwoScales(nn.Module):
    """Two branches with different grids, whose scores are added."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(8, 4), nn.Linear(8, 4)])

    def forward(self, x: Tensor) -> Tensor:
        return self.heads[0](self.fine(x).mean((2, 3))) + self.heads[1](self.coarse(x).mean((2, 3)))  # type: ignore[no-any-return]


def test_branches_are_shown_together() -> None:
    torch.manual_seed(0)
    net, inputs = TwoScales().double().eval(), torch.randn(2, 3, 16, 24, dtype=torch.float64)
    suggested = seewhy.explain(net, inputs, targets=1)
    assert any("layers='branches' shows all of them" in note for note in suggested.notes)
    e = seewhy.explain(net, inputs, targets=1, layers="branches", methods="hirescam")
    assert e.layers == ("fine", "coarse")
    fine, coarse = e.map(layer="fine"), e.map(layer="coarse")
    enlarged = nn.functional.interpolate(coarse[:, None], (8, 12), mode="bilinear")[:, 0] / 4
    assert torch.allclose(e.combined_map(), fine + enlarged, atol=1e-12)
    assert torch.allclose(e.combined_map(layers=["fine"]), fine)
    # HiResCAM before mean pooling and a linear head adds up to the score without the biases.
    biases = net.heads[0].bias[1] + net.heads[1].bias[1]
    total = e.map(layer="fine").sum((1, 2)) + e.map(layer="coarse").sum((1, 2))
    assert torch.allclose(total, (net(inputs)[:, 1] - biases).detach(), atol=1e-12)
    assert torch.allclose(e[0].combined_map(), e.combined_map()[0])


def test_branches_of_a_network_with_one_path_is_the_suggested_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    assert seewhy.explain(net, torch.rand(1, 3, 8, 8), layers="branches").layers == ("1",)


def test_a_gradient_that_only_later_channels_receive_is_spread() -> None:
    gradient = torch.zeros(1, FEW_CHANNELS + 2, 4, 5)
    assert not is_spread(gradient)
    gradient[0, -1, :2] = -1e-30
    assert is_spread(gradient)  # half of the cells
    gradient[0, -1, 0, 0] = 0
    assert not is_spread(gradient)
    gradient[0, 0, 0, :2] = float("nan")
    assert is_spread(gradient.flip(1)) and is_spread(gradient)


def test_all_values_are_finite_although_their_sum_overflows() -> None:
    assert is_finite(torch.ones(3)) and is_finite(torch.full((4,), 3e38))
    assert not is_finite(torch.tensor([1.0, float("nan")]))
    assert not is_finite(torch.tensor([float("inf"), -float("inf")]))
