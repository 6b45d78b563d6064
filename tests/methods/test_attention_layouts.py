"""Attention matrices whose axes have another order than (B, heads, N, N), or which are computed one head at a time."""

from __future__ import annotations

from itertools import product

import pytest
from torch import Tensor, nn

import seewhy
from seewhy.errors import MethodError
from support.attention_networks import HEADS, LAYOUTS, REFUSED, SHOWS_VALUES, LayoutViT, softmax_by_hand
from support.identity_networks import assert_close, random_normal

PRODUCTS = ("attentionrollout", "attentionrelevance")


def images_of(count: int) -> Tensor:
    return random_normal(count, 3, 32, 48)


@pytest.mark.parametrize("is_mean_pooled", [False, True])
@pytest.mark.parametrize(("kind", "count"), list(product(LAYOUTS, [1, HEADS, 3, 4])))
def test_every_layout_has_the_map_of_the_reference(kind: str, count: int, is_mean_pooled: bool) -> None:
    """Also where there are as many images as heads, so that the shapes do not show which axis is which."""
    net, x = LayoutViT(kind, is_mean_pooled=is_mean_pooled), images_of(count)
    for name, expected in net.reference(x, 1).items():
        if name in PRODUCTS or kind != "head modules":
            assert_close(seewhy.explain(net, x, methods=name, targets=1).map(), expected, rtol=1e-9)


def test_heads_in_modules_are_in_no_block() -> None:
    """The innermost repeated modules are the heads, so LeGrad does not know where a block ends."""
    with pytest.raises(MethodError, match="no repeated block"):
        seewhy.explain(LayoutViT("head modules"), images_of(2), methods="legrad", targets=1)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_gradeclip_of_every_layout(kind: str) -> None:
    net, x = LayoutViT(kind), images_of(2)
    if kind not in SHOWS_VALUES:
        with pytest.raises(MethodError, match="by hand"):
            seewhy.explain(net, x, methods="gradeclip", targets=1)
        return
    expected = seewhy.explain(LayoutViT("sdpa"), x[:1], methods="gradeclip", targets=1).map()
    assert_close(seewhy.explain(net, x, methods="gradeclip", targets=1).map()[:1], expected, rtol=1e-9)


@pytest.mark.parametrize(("kind", "name"), list(product(REFUSED, [*PRODUCTS, "legrad", "gradeclip", "vitreciprocam"])))
def test_unknown_layouts_are_refused(kind: str, name: str) -> None:
    with pytest.raises(MethodError, match=r"second last axis|was found"):
        seewhy.explain(LayoutViT(kind), images_of(2), methods=name, targets=1)


@pytest.mark.parametrize("name", [*PRODUCTS, "legrad(last=4)"])
def test_blocks_that_run_twice(name: str) -> None:
    """Each call of a block is a layer."""
    net, x = LayoutViT("sdpa", calls=(0, 1, 0, 1)), images_of(2)
    assert_close(seewhy.explain(net, x, methods=name, targets=1).map(), net.reference(x, 1)[name], rtol=1e-9)


class TwoStreams(nn.Module):
    """The mean score of two transformers, which run in turns or one after the other."""

    def __init__(self, kind: str, is_interleaved: bool) -> None:
        super().__init__()
        self.first, self.second, self.is_interleaved = LayoutViT(kind), LayoutViT(kind), is_interleaved

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_interleaved:
            return (self.first(x) + self.second(x)) / 2
        a, b = self.first.tokens(x), self.second.tokens(x)
        for one, other in zip(self.first.blocks, self.second.blocks, strict=True):
            a, b = one(a), other(b)
        return (self.first.read(a) + self.second.read(b)) / 2


@pytest.mark.parametrize(("kind", "is_interleaved"), list(product(["sdpa", "each head"], [False, True])))
def test_parallel_branches_are_refused(kind: str, is_interleaved: bool) -> None:
    """The product of the layers of two branches has no meaning."""
    with pytest.raises(MethodError, match="do not follow each other"):
        seewhy.explain(TwoStreams(kind, is_interleaved), images_of(2), methods="attentionrollout", targets=1)


class WindowedNet(nn.Module):
    """Attention of one head within windows of the image, as many as there are images."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 5)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        windows = tokens.reshape(len(x) * 2, 1, -1, 8)
        windows = softmax_by_hand(windows, windows, windows)
        return self.head(windows.reshape(tokens.shape).mean(1))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_windows_are_no_heads(count: int) -> None:
    with pytest.raises(MethodError, match=r"\S"):
        seewhy.explain(WindowedNet(), images_of(count), methods="attentionrollout", targets=1)
