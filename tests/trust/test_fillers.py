"""Fillers against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from seewhy.errors import UnknownName, UsageError
from seewhy.trust.fillers import Blur, Filler, LinearImputation, Mean, as_filler, gaussian_blur, impute


@pytest.mark.parametrize("filler", [Blur(), Mean(), LinearImputation()], ids=["blur", "mean", "linear"])
def test_pixels_that_are_not_covered_stay(filler: Filler) -> None:
    image = torch.randn(3, 24, 20, generator=torch.Generator().manual_seed(0))
    covered = torch.zeros(2, 24, 20)
    covered[0, 3:9, 5:11] = 1
    changed = filler.bind(image)(covered)
    assert changed.shape == (2, 3, 24, 20)
    torch.testing.assert_close(changed[1], image)
    kept = (covered[0] == 0).expand_as(image)
    torch.testing.assert_close(changed[0][kept], image[kept])
    assert not torch.allclose(changed[0][~kept], image[~kept])


def test_blur_equals_that_of_scipy() -> None:
    image = np.random.default_rng(0).normal(size=(2, 40, 50))
    ours = gaussian_blur(torch.from_numpy(image)[None], (3.0, 4.0))[0].numpy()
    for channel, blurred in zip(image, ours, strict=True):
        rows = ndimage.gaussian_filter1d(channel, 3.0, axis=0, mode="mirror", radius=7)
        expected = ndimage.gaussian_filter1d(rows, 4.0, axis=1, mode="mirror", radius=10)
        np.testing.assert_allclose(blurred, expected, atol=1e-9)


def test_blur_of_an_image_smaller_than_the_gaussian() -> None:
    assert gaussian_blur(torch.ones(1, 1, 4, 4), (9.0, 9.0)).allclose(torch.ones(1))


def test_mean_is_the_color_of_the_image() -> None:
    image = torch.arange(24.0).reshape(2, 3, 4)
    changed = Mean().bind(image)(torch.ones(1, 3, 4))
    assert changed[0].flatten(1).unique(dim=1).tolist() == [[5.5], [17.5]]


def slow_impute(image: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Solve the dense system of ROAD, one equation per covered pixel."""
    height, width = covered.shape
    places = [(y, x) for y in range(height) for x in range(width) if covered[y, x]]
    matrix, right = np.zeros((len(places), len(places))), np.zeros((len(places), len(image)))
    for row, (y, x) in enumerate(places):
        weights = {
            (y + dy, x + dx): 1 / 12 if dy and dx else 1 / 6
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy or dx) and 0 <= y + dy < height and 0 <= x + dx < width
        }
        matrix[row, row] = sum(weights.values())
        for place, weight in weights.items():
            if covered[place]:
                matrix[row, places.index(place)] -= weight
            else:
                right[row] += weight * image[:, place[0], place[1]]
    result = image.copy()
    result[:, covered] = np.linalg.solve(matrix, right).T
    return result


def test_imputation_solves_the_system_of_road() -> None:
    random = np.random.default_rng(1)
    image, covered = random.normal(size=(3, 9, 11)), random.random((9, 11)) < 0.7
    np.testing.assert_allclose(impute(image, covered), slow_impute(image, covered), atol=1e-10)


def test_a_ramp_is_imputed_exactly_inside_the_image() -> None:
    image = (2.0 * np.arange(16)[:, None] - 3.0 * np.arange(12))[None]
    covered = np.zeros((16, 12), bool)
    covered[2:13, 1:10] = True
    np.testing.assert_allclose(impute(image, covered), image, atol=1e-9)


def test_imputed_values_stay_between_the_known_ones() -> None:
    random = np.random.default_rng(2)
    image, covered = random.normal(size=(1, 20, 20)), random.random((20, 20)) < 0.9
    known = image[0][~covered]
    values = impute(image, covered)[0][covered]
    assert known.min() <= values.min() and values.max() <= known.max()


def test_a_fully_covered_image_has_the_mean_color() -> None:
    image = np.random.default_rng(3).normal(size=(3, 6, 6))
    np.testing.assert_allclose(
        impute(image, np.ones((6, 6), bool)), np.broadcast_to(image.mean((1, 2))[:, None, None], (3, 6, 6))
    )


def test_noise_is_added_to_covered_pixels_and_repeats() -> None:
    image, covered = torch.zeros(1, 30, 30), torch.zeros(1, 30, 30)
    covered[:, 5:25, 5:25] = 1
    fill = LinearImputation(noise=0.5, seed=3).bind(image)
    first, second = fill(covered), fill(covered)
    assert torch.equal(first, second)
    assert first[0, 0, 5:25, 5:25].std() == pytest.approx(0.5, rel=0.1)
    assert not first[0, 0, :5].any()


def test_names() -> None:
    assert as_filler("mean") == Mean()
    assert as_filler(Blur(0.1)).sigma == 0.1  # type: ignore[attr-defined]
    with pytest.raises(UnknownName, match="Use blur, mean, linear"):
        as_filler("blurr")
    with pytest.raises(UsageError, match="this input has 1 axes"):
        LinearImputation().bind(torch.zeros(2, 9))
