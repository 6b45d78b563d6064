"""Covered parts of a photo: which pixels change, what they show, and the change of the probabilities."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

import seewhy
from seewhy.errors import UnknownName, UsageError
from seewhy.trust import CoverTest, Rectangle, Stroke, cover_photo
from seewhy.trust.fillers import REACH, Blur

SIZES = [(40, 60), (61, 37), (7, 5)]


def noise(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)


def centers(size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the centers of all pixels, in fractions of the width and height."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    return (x + 0.5) / width, (y + 0.5) / height


def covered(size: tuple[int, int], *shapes: Rectangle | Stroke) -> NDArray[np.bool_]:
    """Return which pixels a color covers: the photo is black, and the color white."""
    return cover_photo(np.zeros((*size, 3), np.uint8), shapes, "#ffffff").all(2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("edges", [(0, 0, 1, 1), (0.25, 0.1, 0.75, 0.3), (0, 0.5, 0.34, 1), (0.999, 0.999, 1, 1)])
def test_rectangle_covers_the_pixels_with_centers_inside(size: tuple[int, int], edges: Any) -> None:
    left, top, right, bottom = edges
    x, y = centers(size)
    expected = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    np.testing.assert_array_equal(covered(size, Rectangle(*edges)), expected)


@pytest.mark.parametrize("size", [(200, 300), (181, 97)])
@pytest.mark.parametrize("points", [[(0.5, 0.5)], [(0.2, 0.3), (0.7, 0.8)], [(0, 0), (0.5, 0.1), (1, 1), (0, 1)]])
def test_stroke_covers_the_pixels_within_its_radius(size: tuple[int, int], points: Any) -> None:
    radius = 0.1
    x, y = (fractions * side for fractions, side in zip(centers(size), size[::-1], strict=True))
    corners = np.array(points) * size[::-1]
    distance = np.min([np.hypot(x - one[0], y - one[1]) for one in corners], 0)
    for (ax, ay), (bx, by) in pairwise(corners):
        along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / math.hypot(bx - ax, by - ay) ** 2
        along = along.clip(0, 1)
        distance = np.minimum(distance, np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)))
    mask = covered(size, Stroke(points, radius))
    assert mask[distance <= radius * max(size) - 1].all()
    assert not mask[distance >= radius * max(size) + 1].any()


@pytest.mark.parametrize("filler", ["blur", "mean", "#123456"])
def test_pixels_outside_are_untouched_and_the_photo_is_not_modified(filler: str) -> None:
    photo = noise((50, 70))
    original = photo.copy()
    shapes = [Rectangle(0.1, 0.2, 0.4, 0.5), Stroke([(0.8, 0.2), (0.6, 0.9)], 0.05)]
    result = cover_photo(photo, shapes, filler)
    mask = covered((50, 70), *shapes)
    np.testing.assert_array_equal(photo, original)
    np.testing.assert_array_equal(result[~mask], photo[~mask])
    assert (result[mask] != photo[mask]).any(1).mean() > 0.9
    np.testing.assert_array_equal(cover_photo(photo, [], filler), photo)


def test_mean_and_color_are_exact() -> None:
    photo, everything = noise((30, 20)), [Rectangle(0, 0, 1, 1)]
    mean = np.rint(photo.reshape(-1, 3).mean(0))
    assert (cover_photo(photo, everything, "mean") == mean).all()
    assert (cover_photo(photo, everything, "#0a80ff") == (10, 128, 255)).all()


def test_blur_of_a_small_photo_is_a_gaussian() -> None:
    photo = noise((60, 90))
    result = cover_photo(photo, [Rectangle(0, 0, 1, 1)])
    sigmas = [Blur().sigma * side for side in photo.shape[:2]]
    for channel in range(3):
        expected = ndimage.gaussian_filter(photo[..., channel].astype(float), sigmas, mode="mirror", truncate=REACH)
        assert np.abs(result[..., channel] - expected).max() < 2  # another radius by rounding, and 8 bits


def test_blur_of_a_large_photo_is_close_to_a_gaussian_and_the_same_in_every_part() -> None:
    photo = np.asarray(Image.fromarray(noise((12, 16))).resize((960, 720), Image.Resampling.BICUBIC))
    entire = cover_photo(photo, [Rectangle(0, 0, 1, 1)])
    sigmas = [Blur().sigma * 720, Blur().sigma * 960, 0]
    expected = ndimage.gaussian_filter(photo.astype(float), sigmas, mode="mirror", truncate=REACH)
    assert np.abs(entire - expected).max() < 4 and np.abs(entire - expected).mean() < 0.6
    part = cover_photo(photo, [Rectangle(0.3, 0.2, 0.61, 0.77)])
    at = np.s_[round(0.2 * 720) : round(0.77 * 720), round(0.3 * 960) : round(0.61 * 960)]
    difference = np.abs(part[at].astype(int) - entire[at])  # Pillow rounds after each axis
    assert difference.max() <= 2 and difference.mean() < 0.2


@pytest.mark.parametrize(
    "edges", [(0.5, 0, 0.5, 1), (0.6, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0, math.nan, 1, 1)]
)
def test_invalid_rectangles_are_rejected(edges: Any) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        Rectangle(*edges)


@pytest.mark.parametrize(
    ("points", "radius"),
    [([], 0.1), ([(0.5, 1.5)], 0.1), ([(math.nan, 0)], 0.1), ([(0, 0)], 0), ([(0, 0)], math.nan), ([(0, 0)], 2)],
)
def test_invalid_strokes_are_rejected(points: Any, radius: float) -> None:
    with pytest.raises(UsageError, match="give"):
        Stroke(points, radius)


@pytest.mark.parametrize("filler", ["", "linear", "#fff", "#12345g", "red", "#1234567"])
def test_unknown_fillers_are_rejected(filler: str) -> None:
    with pytest.raises(UnknownName, match="filler"):
        cover_photo(noise((8, 8)), [], filler)


# Probabilities


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    return seewhy.load_image(seewhy.sample("cat_espresso"))


@pytest.mark.parametrize("fit", [None, "squash", "pad"])
@pytest.mark.parametrize("prepared", [False, True])
def test_probabilities_are_those_of_an_independently_covered_photo(
    embedded: seewhy.LoadedModel, photo: NDArray[np.uint8], fit: Any, prepared: bool
) -> None:
    """The result equals that of `explain` for a photo that was covered with plain NumPy, for each fit."""
    model = seewhy.prepare(embedded) if prepared else embedded
    by_hand = photo.copy()
    height, width = photo.shape[:2]
    by_hand[round(0.2 * height) : round(0.6 * height), round(0.1 * width) : round(0.7 * width)] = (10, 200, 30)
    result = CoverTest(model, photo, fit=fit).run([Rectangle(0.1, 0.2, 0.7, 0.6)], "#0ac81e")
    np.testing.assert_array_equal(result.photo, by_hand)
    before, after = (
        seewhy.explain(embedded, image, layers="suggested", fit=fit).probabilities[0] for image in (photo, by_hand)
    )
    assert [one.index for one in result.changes[:5]] == before.topk(5).indices.tolist()
    assert {one.index for one in result.changes} == {*before.topk(5).indices.tolist(), *after.topk(5).indices.tolist()}
    assert len({one.index for one in result.changes}) == len(result.changes)
    for one in result.changes:
        assert one.name == embedded.labels[one.index].split(",")[0]  # type: ignore[index]
        assert one.before == pytest.approx(float(before[one.index]), abs=1e-5)
        assert one.after == pytest.approx(float(after[one.index]), abs=1e-5)
        assert one.change == one.after - one.before


def test_unchanged_photo_has_change_0(embedded: seewhy.LoadedModel, photo: NDArray[np.uint8]) -> None:
    test = CoverTest(embedded, photo)
    result = test.run([])
    assert [one.change for one in result.changes] == [0.0] * 5
    flat = np.full((64, 64, 3), 77, np.uint8)  # its mean color covers it without a visible change
    assert all(one.change == 0 for one in CoverTest(embedded, flat).run([Rectangle(0, 0, 0.5, 1)], "mean").changes)
    again = test.predict_with(test.model, seewhy.engine.inputs.read_inputs(photo, embedded))
    assert torch.equal(again, test.probabilities)


def test_covering_the_object_lowers_its_class(embedded: seewhy.LoadedModel, bus: Any) -> None:
    changes = CoverTest(embedded, seewhy.load_image(bus)).run([Rectangle(0, 0.2, 1, 0.7)]).changes
    assert changes[0].name == "minibus" and changes[0].before > 0.5 and changes[0].after < 0.05


class Red(nn.Module):
    """Class scores (B, K) from the mean of the red channel."""

    def __init__(self, weights: list[float], end: nn.Module | None = None) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, len(weights), 1)
        with torch.no_grad():
            self.convolution.weight.zero_()
            self.convolution.weight[:, 0, 0, 0] = torch.tensor(weights)
            self.convolution.bias.zero_()  # type: ignore[union-attr]
        self.end = end or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.end(self.convolution(x).mean((2, 3)))
        return scores


def load(net: nn.Module, labels: list[str] | None = None) -> seewhy.LoadedModel:
    return seewhy.load_model(
        net, preprocess=seewhy.Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3, "box", 16), labels=labels
    )


RED = np.full((16, 16, 3), (255, 0, 0), np.uint8)
HALF = [Rectangle(0, 0, 0.5, 1)]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_model_with_one_class_without_labels() -> None:
    (change,) = CoverTest(load(Red([2.0])), RED).run(HALF, "#000000").changes
    assert change.name == "class 0"
    assert (change.before, change.after) == pytest.approx((sigmoid(2), sigmoid(1)))


def test_independent_classes() -> None:
    changes = CoverTest(load(Red([2.0, -2.0, 1.0])), RED, multilabel=True).run(HALF, "#000000").changes
    assert {one.index: (one.before, one.after) for one in changes} == {
        0: pytest.approx((sigmoid(2), sigmoid(1))),
        1: pytest.approx((sigmoid(-2), sigmoid(-1))),
        2: pytest.approx((sigmoid(1), sigmoid(0.5))),
    }


@pytest.mark.parametrize("end", [nn.Sigmoid(), nn.Softmax(1)])
def test_scores_that_are_probabilities_get_no_second_function(end: nn.Module) -> None:
    net = Red([2.0, -1.0], end)
    changes = CoverTest(load(net, ["a", "b"]), RED).run(HALF, "#000000").changes
    expected = [end(torch.tensor([[2.0, -1.0]]) * red)[0, 0].item() for red in (1, 0.5)]
    assert (changes[0].name, changes[0].before, changes[0].after) == ("a", *map(pytest.approx, expected))
    logits = CoverTest(load(net), RED, scores="logits").run([]).changes
    assert logits[0].before == pytest.approx(end(torch.tensor([[2.0, -1.0]])).softmax(1)[0, 0].item())


def test_model_without_batch_axis_in_its_output() -> None:
    class Squeezed(Red):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).squeeze()

    changes = CoverTest(load(Squeezed([1.0, 0.0])), RED).run(HALF, "#000000").changes
    assert [one.before for one in changes] == pytest.approx([sigmoid(1), sigmoid(-1)])


class Segmentation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.convolution(x)}


def test_models_without_class_scores_are_rejected_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"no class scores \(B, K\)") as error:
        CoverTest(load(Segmentation()), RED)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="no preprocessing"):
        CoverTest(Red([1.0]), RED)
