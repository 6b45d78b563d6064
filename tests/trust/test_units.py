"""The sums of a map in the units of a removal test, and masks that cover units."""

from __future__ import annotations

import pytest
import torch

from seewhy.trust.metrics.units import cover_units, unit_sums


@pytest.mark.parametrize("cells", [(7, 7), (14, 14), (28, 56), (112, 112), (5, 9)], ids=str)
def test_sums_keep_the_total_and_the_sign(cells: tuple[int, int]) -> None:
    maps = torch.randn(3, *cells, generator=torch.Generator().manual_seed(0)).double()
    sums = unit_sums(maps, (7, 7))
    assert sums.shape == (3, 49)
    torch.testing.assert_close(unit_sums(-maps, (7, 7)), -sums)
    ones = unit_sums(torch.ones(1, *cells), (7, 7))
    assert float(ones.sum()) == pytest.approx(cells[0] * cells[1]) and float(ones.std()) < 1e-9


def test_cells_of_a_finer_map_are_added_up() -> None:
    one = torch.randn(112, 112, generator=torch.Generator().manual_seed(1)).double()
    expected = [float(one[16 * y : 16 * y + 16, 16 * x : 16 * x + 16].sum()) for y in range(7) for x in range(7)]
    assert unit_sums(one[None], (7, 7))[0].tolist() == pytest.approx(expected)


def test_each_pixel_belongs_to_one_unit() -> None:
    masks = cover_units(torch.eye(12, dtype=torch.bool), (3, 4), (10, 18))
    assert masks.shape == (12, 10, 18) and torch.equal(masks.sum(0), torch.ones(10, 18))
    sizes = masks.sum((1, 2))
    assert float(sizes.min()) == 3 * 4 and float(sizes.max()) == 4 * 5
