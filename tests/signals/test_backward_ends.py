"""A backward pass ends at the first block, and reaches every layer that it would reach from the start of the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import seewhy
from seewhy.signals import backward


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x).tanh()


class Network(nn.Module):
    """Blocks in a row, and a branch from the stem around all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(), Block())
        self.branch = Block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (self.blocks(x) * self.branch(x)).mean((2, 3))


def backward_nodes(layers: list[str], monkeypatch) -> tuple[seewhy.Explanation, list[int]]:
    """Return an explanation, and how many ends its backward pass had that are the first layer."""
    ends_of_pass, found = backward.ends_of_pass, []

    def counted(trace, total, calls):
        ends = ends_of_pass(trace, total, calls)
        found.append(sum(end is calls[0].edge for end in ends))
        return ends

    monkeypatch.setattr(backward, "ends_of_pass", counted)
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 8, 8)
    return seewhy.explain(Network(), inputs, methods=["gradcam", "hirescam"], layers=layers, targets=1), found


def same_maps_one_by_one(e: seewhy.Explanation) -> bool:
    torch.manual_seed(0)
    inputs, net = torch.randn(2, 3, 8, 8), Network()
    for (method, _, layer), maps in e.maps.items():
        alone = seewhy.explain(net, inputs, methods=method, layers=layer, targets=1)
        if not torch.allclose(alone.map(), maps, rtol=1e-4, atol=1e-7):
            return False
    return True


def test_pass_ends_at_the_first_block(monkeypatch) -> None:
    e, ends = backward_nodes(["blocks.0", "blocks.1"], monkeypatch)
    assert ends == [1] and len(e.layers) == 2 and same_maps_one_by_one(e)


def test_pass_reaches_branches_that_do_not_pass_the_first_block(monkeypatch) -> None:
    e, ends = backward_nodes(["blocks.0", "blocks.1", "branch", "branch.conv"], monkeypatch)
    assert ends == [0] and len(e.layers) == 4 and same_maps_one_by_one(e)


def test_pass_reaches_layers_inside_the_first_block(monkeypatch) -> None:
    e, ends = backward_nodes(["blocks.0", "blocks.0.conv", "stem"], monkeypatch)
    assert ends == [0] and len(e.layers) == 3 and same_maps_one_by_one(e)
