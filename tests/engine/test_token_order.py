"""Tokens lie where the grid places them, to the exact cell; other orders are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError

CELLS = 5 * 6  # rows times columns


class Tokens(nn.Module):
    """Patches as tokens, in the order that `arrange` gives them, and one transformer layer with skip connections."""

    def __init__(self, arrange: Callable[[Tensor], Tensor], patch: int = 8, stride: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.arrange, self.embed = arrange, nn.Conv2d(3, 16, patch, stride)
        self.special = nn.Parameter(torch.randn(1, 1, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 4)

    def with_token(self, tokens: Tensor, place: int) -> Tensor:
        special = self.special.expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, :place], special, tokens[:, place:]], 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.arrange(self.embed(x)) if not hasattr(self, "place") else self.with_token(
            self.arrange(self.embed(x)), self.place
        )  # fmt: skip
        return self.fc(self.norm(self.block(tokens)).mean(1))  # type: ignore[no-any-return]


def by_rows(cells: Tensor) -> Tensor:
    return cells.flatten(2).transpose(1, 2)


def by_columns(cells: Tensor) -> Tensor:
    return cells.transpose(2, 3).flatten(2).transpose(1, 2)


def reversed_rows(cells: Tensor) -> Tensor:
    return by_rows(cells.flip(2))


def there_and_back(cells: Tensor) -> Tensor:
    cells = cells.clone()
    cells[:, :, 1::2] = cells[:, :, 1::2].flip(3)
    return by_rows(cells)


def shifted(cells: Tensor) -> Tensor:
    return by_rows(cells).roll(1, 1)


def in_windows(cells: Tensor) -> Tensor:
    return torch.cat([by_rows(part) for part in cells.split(3, 3)], 1)


def shuffled(cells: Tensor) -> Tensor:
    return by_rows(cells)[:, torch.randperm(CELLS, generator=torch.Generator().manual_seed(1))]


INPUTS = torch.randn(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("place", [None, 0])
@pytest.mark.parametrize(("patch", "stride"), [(8, 8), (12, 7)])
def test_tokens_row_by_row(place: int | None, patch: int, stride: int) -> None:
    net = Tokens(by_rows, patch, stride).eval()
    if place is not None:
        net.place = place
    e = seewhy.explain(net, INPUTS)
    assert tuple(e.map().shape[1:]) == (5, 6)
    assert not any("could not be checked" in note for note in e.notes)


@pytest.mark.parametrize("arrange", [by_columns, reversed_rows, there_and_back, shifted, in_windows, shuffled])
def test_other_orders_are_refused(arrange: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(LayerError, match="not in that order"):
        seewhy.explain(Tokens(arrange).eval(), INPUTS)


@pytest.mark.parametrize("place", [CELLS // 2, CELLS // 2 + 3, 1, CELLS])
def test_a_class_token_in_the_middle_or_at_the_end_shifts_nothing_silently(place: int) -> None:
    """As in Vision Mamba. Read as a first token, it would move half of the cells, or all, by one."""
    net = Tokens(by_rows).eval()
    net.place = place
    with pytest.raises(LayerError, match="not in that order"):
        seewhy.explain(net, INPUTS)


class Video(nn.Module):
    """Tokens of small blocks of a clip."""

    def __init__(self, *, time_last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.time_last, self.embed = time_last, nn.Conv3d(3, 16, (2, 8, 8), (2, 8, 8))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.embed(x)
        tokens = (cells.movedim(2, -1) if self.time_last else cells).flatten(2).transpose(1, 2)
        return self.fc(self.norm(self.block(tokens)).mean(1))  # type: ignore[no-any-return]


def test_tokens_of_clips() -> None:
    clip = torch.randn(1, 3, 6, 32, 40)
    e = seewhy.explain(Video(time_last=False).eval(), clip)
    assert tuple(e.map().shape[1:]) == (3, 4, 5) and tuple(e.heatmap().shape[1:]) == (6, 32, 40)
    with pytest.raises(LayerError, match="not in that order"):
        seewhy.explain(Video(time_last=True).eval(), clip)
