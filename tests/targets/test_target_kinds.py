"""Targets beyond one class: regions, boxes, contrasts, probabilities, texts and sums, each compared with its formula."""

from __future__ import annotations

import math
import re
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.errors import MethodError, TargetError, UnknownName, UsageError
from seewhy.images.view import View
from seewhy.targets import (
    BoxScore,
    ClassLogProbability,
    ClassProbability,
    ClassScore,
    Combined,
    Contrast,
    OutputScore,
    RegionScore,
    Similarity,
    Target,
    TargetContext,
    TextScore,
    TopScore,
    as_targets,
)
from seewhy.targets.dense import sample_mask
from support.parameters import stable_id

LABELS = ["background", "cat", "dog"]
SCORES = torch.tensor([[1.0, 3.0, -2.0], [0.5, -1.0, 4.0]])


def resolve(target: Target, output: Any, labels: Any = LABELS) -> Any:
    return target.resolve(output, labels)


# Class scores


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (ClassProbability("cat"), SCORES.softmax(1)[:, 1]),
        (ClassProbability(1, multilabel=True), SCORES.sigmoid()[:, 1]),
        (ClassLogProbability("cat"), SCORES.softmax(1)[:, 1].log()),
        (ClassLogProbability(1, multilabel=True), SCORES.sigmoid()[:, 1].log()),
        (OutputScore(2), SCORES[:, 2]),
        (OutputScore(2, negative=True), -SCORES[:, 2]),
        (Contrast("cat", ["dog"]), SCORES[:, 1] - SCORES[:, 2]),
        (Contrast(1, [0, "dog"]), SCORES[:, 1] - (SCORES[:, 0] + SCORES[:, 2]) / 2),
        (Contrast("cat", "dog"), SCORES[:, 1] - SCORES[:, 2]),
        (ClassScore(1) + 2 * ClassScore(0), SCORES[:, 1] + 2 * SCORES[:, 0]),
        (-(ClassScore(1) - ClassScore(0) * 3), 3 * SCORES[:, 0] - SCORES[:, 1]),
        (2 * Contrast(0, 1) + ClassProbability(0), 2 * (SCORES[:, 0] - SCORES[:, 1]) + SCORES.softmax(1)[:, 0]),
    ],
    ids=stable_id,
)
def test_scores_computed_from_class_scores(target: Target, expected: Tensor) -> None:
    resolved = resolve(target, SCORES)
    torch.testing.assert_close(resolved.scores, expected)
    # rescored on variants of the second image, and on both images
    variants = SCORES[1] + torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    rows = [resolve(target, row[None].repeat(2, 1)).scores[1] for row in variants]
    torch.testing.assert_close(resolved.for_image(variants, 1, 4).scores, torch.stack(rows))
    torch.testing.assert_close(resolved.for_variants(SCORES * 2).scores, resolve(target, SCORES * 2).scores)


def test_a_single_logit_is_binary_and_a_single_number_a_regression() -> None:
    logit = torch.tensor([[0.5], [-2.0]])
    torch.testing.assert_close(resolve(ClassProbability(0), logit, None).scores, logit.sigmoid()[:, 0])
    torch.testing.assert_close(resolve(ClassLogProbability(0), logit, None).scores, logit.sigmoid()[:, 0].log())
    assert resolve(OutputScore(), logit[:, 0], None).scores.tolist() == [0.5, -2.0]
    assert resolve(TopScore(), logit, ["tumour"]).name == "tumour"


def test_names_and_keys_are_short() -> None:
    resolved = resolve(Contrast("cat", ["dog", 0]), SCORES)
    assert (resolved.key, resolved.name) == ("1-2-0", "cat rather than dog or background")
    resolved = resolve(0.5 * ClassScore("cat") - ClassScore("dog"), SCORES)
    assert (resolved.key, resolved.name) == ("0.5*1-2", "0.5 cat − dog")
    assert resolve(ClassProbability("cat"), SCORES).key == "probability_1"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Contrast("cat", [1]), "compared with itself"),
        (Contrast("cat", []), "nothing to compare with"),
        (OutputScore(3), "returns 3 numbers"),
        (TopScore(4), "3 classes"),
        (ClassScore(2.5), "not float"),  # type: ignore[arg-type]
        (RegionScore("cat"), "needs a segmentation model"),
        (BoxScore((0, 0, 1, 1)), "needs a detector"),
        (TextScore("a cat"), "text encoder"),
        (Similarity("other.jpg"), "only explain"),
        (Similarity(torch.zeros(1, 3)), "pass \\(D,\\)"),
        (Similarity(torch.zeros(5)), "has 3 numbers, and the vector 5"),
    ],
    ids=stable_id,
)
def test_targets_that_class_scores_do_not_contain(target: Target, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        resolve(target, SCORES)


def test_only_targets_can_be_added() -> None:
    with pytest.raises(TargetError, match="only targets can be added"):
        ClassScore(1) + 5  # type: ignore[operator]
    assert isinstance(ClassScore(1) + ClassScore(2), Combined)


# Regions


@pytest.fixture
def dense() -> Tensor:
    """(2, 3 classes, 4, 6): in the first image the cat wins on the left half, in the second in one cell."""
    scores = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1)) * 0.1
    scores[:, 0] += 1
    scores[0, 1, :, :3] += 3
    scores[1, 1, 2, 4] += 3
    return scores


def test_a_class_where_it_wins(dense: Tensor) -> None:
    expected = torch.stack([dense[0, 1, :, :3].sum(), dense[1, 1, 2, 4]])
    for target in (RegionScore("cat"), ClassScore("cat"), TopScore(1)):
        resolved = resolve(target, {"out": dense})
        assert resolved.name == "cat" and resolved.has_location and resolved.key == "1"
        torch.testing.assert_close(resolved.scores, expected)
    assert "12 cells" in resolve(RegionScore("cat"), dense[:1]).notes[0]
    # other outputs are scored over the same cells, wherever the class wins there
    torch.testing.assert_close(resolved.for_image(-dense[:1].repeat(3, 1, 1, 1), 0, 3).scores, -expected[:1].repeat(3))
    bigger = nn.functional.interpolate(dense, scale_factor=2, mode="nearest")
    torch.testing.assert_close(resolved.for_variants(bigger).scores, 4 * expected)


def test_one_class_wins_where_its_logit_is_positive() -> None:
    scores = torch.tensor([[[[1.0, -1.0], [2.0, -3.0]]]])
    assert resolve(RegionScore(0), scores, None).scores.tolist() == [3.0]


def test_points_and_masks_are_in_photo_pixels(dense: Tensor) -> None:
    # the model received columns 100 to 400 and rows 0 to 200 of a photo of 200 x 500 pixels
    view = View((200, 500), (40, 60), (100.0, 0.0, 400.0, 200.0))
    context = TargetContext(size=(40, 60), views=[view, view])
    mask = np.zeros((200, 500), bool)
    mask[100:200, 350:500] = True  # rows 2, 3 and column 5 of the grid
    for target, expected in (
        (RegionScore("cat", where=(110, 60)), dense[:, 1, 1, 0]),
        (RegionScore("cat", where=[(110, 60), (399, 199)]), dense[:, 1, 1, 0] + dense[:, 1, 3, 5]),
        (RegionScore("cat", where=mask), dense[:, 1, 2:, 5].sum(1)),
        (RegionScore("cat", where=torch.from_numpy(mask)), dense[:, 1, 2:, 5].sum(1)),
        (RegionScore("cat", where=tuple(np.array([110, 60]))), dense[:, 1, 1, 0]),
    ):
        torch.testing.assert_close(resolve(target.bind(context), dense).scores, expected)
    plain = TargetContext(size=(40, 60))
    torch.testing.assert_close(resolve(RegionScore(1, where=(5, 15)).bind(plain), dense).scores, dense[:, 1, 1, 0])
    each = torch.zeros(2, 4, 6, dtype=torch.bool)
    each[0, 0, 0] = each[1, 3, 5] = True
    expected = torch.stack([dense[0, 1, 0, 0], dense[1, 1, 3, 5]])
    torch.testing.assert_close(resolve(RegionScore(1, where=each).bind(plain), dense).scores, expected)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (RegionScore("dog"), "dog wins in no cell in image 0; classes that win"),
        (RegionScore("cat", where=(-5, 3)), "is outside the part that the model received"),
        (RegionScore("cat", where=(1, 2, 3)), "pass 2 finite numbers"),
        (RegionScore("cat", where=(1, math.nan)), "pass 2 finite numbers"),
        (RegionScore("cat", where=np.ones((8, 12), bool)), "the mask is (8, 12), and the input (40, 60)"),
        (RegionScore("cat", where=np.zeros((4, 6), bool)), "no cell of the output lies in the region"),
        (RegionScore("cat", where=np.ones((3, 4, 6), bool)), "3 masks for 2 images"),
        (RegionScore("cat", where=np.ones(4, bool)), "a mask of shape"),
        (TopScore(3), "classes win in any cell"),
    ],
    ids=stable_id,
)
def test_invalid_regions(target: Target, message: str, dense: Tensor) -> None:
    with pytest.raises(TargetError, match=re.escape(message)):
        resolve(target.bind(TargetContext(size=(40, 60))), dense)


def test_a_mask_of_another_size_than_the_photo(dense: Tensor) -> None:
    view = View((200, 500), (40, 60), (0.0, 0.0, 500.0, 200.0))
    with pytest.raises(TargetError, match="the mask is \\(4, 6\\), and the photo 200 x 500"):
        resolve(RegionScore(1, where=np.ones((4, 6), bool)).bind(TargetContext((40, 60), [view, view])), dense)
    with pytest.raises(UnknownName, match="predicted"):
        RegionScore(1, where="predcited")  # type: ignore[arg-type]


def test_different_classes_on_top(dense: Tensor) -> None:
    dense[1, 2, :, :5] += 9
    expected = torch.stack([dense[0, 1, :, :3].sum(), dense[1, 2, :, :5].sum()])
    for target in (TopScore(1), ClassScore(torch.tensor([1, 2])), RegionScore(torch.tensor([1, 2]))):
        resolved = resolve(target, dense)
        torch.testing.assert_close(resolved.scores, expected)
        torch.testing.assert_close(
            resolved.for_image(dense[1:].repeat(3, 1, 1, 1) / 2, 1, 3).scores, expected[1:].repeat(3) / 2
        )
    assert resolve(TopScore(1), dense).key == "top1" and "'top1'" in resolve(TopScore(1), dense).notes[0]


def test_a_contrast_of_classes_is_over_the_same_cells(dense: Tensor) -> None:
    cells = dense[0, :, :, :3].sum((1, 2))  # where the cat wins; the dog wins nowhere
    for target, against in ((ClassScore("cat"), "dog"), (TopScore(1), ["dog"]), (RegionScore("cat"), [ClassScore(2)])):
        resolved = resolve(Contrast(target, against), dense[:1])
        torch.testing.assert_close(resolved.scores, (cells[1] - cells[2])[None])
        assert resolved.key == "1-2" and resolved.name == "cat rather than dog" and resolved.has_location
        assert any("'dog' is summed over the same cells" in note for note in resolved.notes)
    with pytest.raises(TargetError, match="compared with itself"):
        resolve(Contrast("cat", "cat"), dense[:1])


def test_an_output_of_one_cell_is_not_dense() -> None:
    output = SCORES[:, :, None, None]
    resolved = resolve(ClassScore("dog"), output)
    assert not resolved.has_location and resolved.scores.tolist() == SCORES[:, 2].tolist() and not resolved.notes
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1)).eval()
    e = seewhy.explain(net, torch.rand(1, 3, 8, 8), targets=4, layers="0")
    assert e.methods == ("gradcam",) and e.probabilities.shape == (1, 5)
    flat = nn.Sequential(*net, nn.Flatten())
    assert torch.equal(e.map(), seewhy.explain(flat, e.inputs, targets=4, layers="0").map())


def test_a_mask_is_sampled_at_cell_centers() -> None:
    mask = torch.rand(50, 70, generator=torch.Generator().manual_seed(2)) > 0.5
    resolved = sample_mask(mask, [(-10.0, 40.0), (5.0, 65.0)], [5, 6])
    for row in range(5):
        for column in range(6):
            y, x = -10 + (row + 0.5) * 10, 5 + (column + 0.5) * 10
            assert bool(resolved[row, column]) == (y >= 0 and bool(mask[int(y), int(x)]))


# Boxes

BOXES = torch.tensor([[10.0, 10, 30, 30], [12, 10, 30, 32], [50, 50, 70, 90], [0, 0, 90, 90]])
CHANCES = torch.tensor([[0.1, 0.7, 0.0], [0.0, 0.9, 0.2], [0.1, 0.2, 0.8], [0.0, 0.3, 0.3]])


def decoded(output: Tensor) -> tuple[Tensor, Tensor]:
    return BOXES.to(output).repeat(len(output), 1, 1), output


def test_a_box_of_a_class_and_its_edges() -> None:
    output = CHANCES[None].clone().requires_grad_()
    resolved = resolve(BoxScore((10, 10, 30, 30), "cat", decode=decoded), output)
    assert resolved.scores.tolist() == pytest.approx([0.9]) and resolved.has_location
    assert "cat 0.9 at (12, 10, 30, 32)" in resolved.notes[0]
    (gradient,) = torch.autograd.grad(resolved.scores.sum(), output)
    assert gradient.nonzero().tolist() == [[0, 1, 1]]
    assert resolve(BoxScore((50, 50, 70, 90), decode=decoded), output).name.startswith("dog")
    edge = resolve(BoxScore((10, 10, 30, 30), "cat", part="bottom", decode=decoded), output)
    assert edge.scores.tolist() == [32.0] and edge.name.startswith("bottom of cat")
    # the candidate stays, even where another has become better
    assert resolved.for_image(1 - output.repeat(3, 1, 1), 0, 3).scores.tolist() == pytest.approx([0.1] * 3)


def test_boxes_are_in_photo_pixels() -> None:
    view = View((400, 400), (100, 100), (100.0, 0.0, 300.0, 200.0))
    target = BoxScore((120, 20, 160, 60), decode=decoded).bind(TargetContext((100, 100), [view]))
    assert target.in_input(0).tolist() == [10, 10, 30, 30]  # type: ignore[attr-defined]
    assert resolve(target, CHANCES[None]).scores.tolist() == pytest.approx([0.9])


def as_lists(scores: Tensor, boxes: Tensor = BOXES) -> list[dict[str, Tensor]]:
    """The format of torchvision: per image the boxes after non-maximum suppression, best first."""
    best, labels = scores.max(2)
    order = best.argsort(dim=1, descending=True)
    return [
        {"boxes": boxes[row], "labels": label[row], "scores": value[row]}
        for row, label, value in zip(order, labels, best, strict=True)
    ]


def as_detr(logits: Tensor) -> dict[str, Tensor]:
    left, top, right, bottom = (BOXES / 100).unbind(1)
    centred = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], 1)
    nothing = torch.zeros(*logits.shape[:2], 1)
    return {"logits": torch.cat([logits, nothing], 2), "pred_boxes": centred.repeat(len(logits), 1, 1)}


def as_yolo5(chances: Tensor) -> Tensor:
    boxes = as_detr(chances)["pred_boxes"] * 100
    return torch.cat([boxes, torch.ones(*chances.shape[:2], 1), chances], 2)


def as_yolo8(chances: Tensor) -> Tensor:
    return torch.cat([as_detr(chances)["pred_boxes"] * 100, chances], 2).transpose(1, 2)


@pytest.mark.parametrize(
    ("make", "decode"),
    [(as_lists, None), (as_yolo5, "yolov5"), (as_yolo8, "yolov8")],
)
def test_detector_formats(make: Callable[[Tensor], Any], decode: str | None) -> None:
    output = CHANCES[None]
    for classes, expected in (("cat", 0.9), (None, 0.9)):
        target = BoxScore((10, 10, 30, 30), classes, decode=decode).bind(TargetContext((100, 100)))
        resolved = resolve(target, make(output))
        assert resolved.scores.tolist() == pytest.approx([expected]), classes
    variants = torch.stack([CHANCES * 0.5, CHANCES * 0.25])
    assert resolved.for_image(make(variants), 0, 2).scores.tolist() == pytest.approx([0.45, 0.225])


def detr(logits: Tensor) -> dict[str, Tensor]:
    """The same boxes with these logits, (1, 4, K)."""
    return {"logits": logits[None], "pred_boxes": as_detr(CHANCES[None])["pred_boxes"]}


def test_the_no_object_class_of_a_detr_is_not_a_class() -> None:
    logits = torch.tensor([[0.0, 2, -1, 5], [0, 1, -1, 0], [0, 0, 3, 0], [0, 0, 0, 9]])  # the last: nothing
    box = BoxScore((10, 10, 30, 30)).bind(TargetContext((100, 100)))
    resolved = resolve(box, detr(logits))  # the second candidate, whose probability is higher
    assert resolved.name.startswith("cat") and resolved.scores.tolist() == [1.0]
    assert "the last logit is read as 'no object'" in resolved.notes[1]
    assert (
        resolve(TopScore(1), detr(logits)).name == "dog" and resolve(ClassScore("cat"), detr(logits)).scores.item() == 1
    )
    assert "because there are no labels to count" in resolve(box, detr(logits), None).notes[1]
    with pytest.raises(TargetError, match=r"the best are dog 3 at .*; cat 1 at .*; cat 2 at"):
        resolve(BoxScore((80, 0, 99, 5)).bind(TargetContext((100, 100))), detr(logits))


def test_a_detr_without_no_object_class() -> None:
    logits = torch.tensor([[-9.0, 1, -1], [-9, 0, 4], [-9, -9, -9], [-9, -9, -9]])
    resolved = resolve(TopScore(1), detr(logits))
    assert resolved.name == "dog" and resolved.scores.tolist() == [4.0] and "(sigmoid)" in resolved.notes[1]
    assert resolve(ClassScore(2), detr(logits)).scores.tolist() == [4.0]
    assert resolve(BoxScore((10, 10, 30, 30)).bind(TargetContext((100, 100))), detr(logits)).scores.tolist() == [4.0]


@pytest.mark.parametrize(
    ("decode", "output", "message"),
    [
        ("yolov5", torch.zeros(1, 4, 5), "cannot be read as yolov5 (it contains no classes)"),
        (lambda output: None, torch.zeros(1, 4, 5), "decode returned NoneType; it must return (B, N, 4) and (B, N, K)"),
        (lambda output: (BOXES, None), torch.zeros(1), "decode returned boxes (4, 4) and scores NoneType"),
        (
            lambda output: (BOXES[None], CHANCES[None, :2]),
            torch.zeros(1),
            "decode returned boxes (1, 4, 4) and scores (1, 2, 3)",
        ),
    ],
)
def test_outputs_without_boxes(decode: Any, output: Tensor, message: str) -> None:
    with pytest.raises(TargetError, match=re.escape(message)):
        resolve(BoxScore((10, 10, 30, 30), decode=decode), output)


def test_box_text_with_a_decoder() -> None:
    (target,) = as_targets("box[yolov8]:person@10,20,110,220")
    assert target == BoxScore((10, 20, 110, 220), "person", decode="yolov8")
    with pytest.raises(UnknownName, match="no decoder 'yolo9'"):
        resolve(as_targets("box[yolo9]:1@10,20,110,220")[0], torch.zeros(1))


class Pair(nn.Module):
    """Features and class scores, both (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.conv(x).relu().mean((2, 3))
        return features, self.head(features)


def test_a_note_names_the_tensor_that_is_used() -> None:
    torch.manual_seed(0)
    net = Pair().eval()
    e = seewhy.explain(net, torch.rand(1, 3, 8, 8), targets=1, layers="conv")
    assert any("output[0] (1, 4) is explained, and not output[1] (1, 4)" in note for note in e.notes)
    e = seewhy.explain(net, torch.rand(1, 3, 8, 8), targets=Similarity(torch.ones(4)), layers="conv")
    assert any("similarity is computed on the model's output" in note for note in e.notes)
    named = resolve(Similarity(torch.ones(3)), {"embedding": SCORES})
    assert not named.notes and not resolve(ClassScore(1), {"logits": SCORES, "hidden": SCORES}).notes


class Several(nn.Module):
    """Features, class scores (B, 6) and a number per image, arranged by `arrange`."""

    def __init__(self, arrange: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.number, self.arrange = nn.Conv2d(3, 4, 3), nn.Linear(4, 6), nn.Linear(4, 1), arrange

    def forward(self, x: Tensor) -> object:
        grid = self.conv(x).relu()
        features = grid.mean((2, 3))
        return self.arrange(grid, self.head(features), self.number(features)[:, 0])  # type: ignore[operator]


@dataclass
class Record:
    grid: Tensor
    scores: Tensor


Fields = namedtuple("Fields", "features logits")
Other = namedtuple("Other", "first second")

AMBIGUOUS = {
    "number, scores": (lambda g, y, n: (n, y), "output[0] (2,)", "output[1] (2, 6)", "output[1][:, 0]"),
    "scores, number": (lambda g, y, n: (y, n), "output[0] (2, 6)", "output[1] (2,)", "output[1]"),
    "named numbers": (lambda g, y, n: {"age": n, "sex": y}, "output['age'] (2,)", "output['sex'] (2, 6)", "['sex'][:, 0]"),
    "grid, scores": (lambda g, y, n: (g, y), "output[0] (2, 4, 6, 6)", "output[1] (2, 6)", "output[1][:, 0]"),
    "scores, grid": (lambda g, y, n: [y, g], "output[0] (2, 6)", "output[1] (2, 4, 6, 6)", "output[1].flatten(1).mean(1)"),
    "seg, cls": (lambda g, y, n: {"seg": g, "cls": y}, "output['seg'] (2, 4, 6, 6)", "output['cls'] (2, 6)", "['cls'][:, 0]"),
    "depth, scores": (lambda g, y, n: (g.mean(1), y), "output[0] (2, 6, 6)", "output[1] (2, 6)", "output[1][:, 0]"),
    "dataclass": (lambda g, y, n: Record(g, y), "output.grid (2, 4, 6, 6)", "output.scores (2, 6)", "output.scores[:, 0]"),
    "named tuple": (lambda g, y, n: Other(y, n), "output.first (2, 6)", "output.second (2,)", "output.second"),
    "nested": (lambda g, y, n: ({"a": y}, [n]), "output[0]['a'] (2, 6)", "output[1][0] (2,)", "output[1][0]"),
    "loss first": (lambda g, y, n: (n.sum(), y, y[:, :3]), "output[1] (2, 6)", "output[2] (2, 3)", "output[2][:, 0]"),
    "features, scores": (
        lambda g, y, n: {"features": g, "scores": y}, "output['scores'] (2, 6)", "output['features'] (2, 4, 6, 6)", "mean(1)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", AMBIGUOUS)
def test_a_note_names_all_tensors_that_could_be_explained(form: str) -> None:
    arrange, used, other, example = AMBIGUOUS[form]
    net, inputs = Several(arrange).eval(), torch.rand(2, 3, 8, 8)
    (note,) = (note for note in seewhy.explain(net, inputs, layers="conv").notes if "several tensors" in note)
    assert f"{used} is explained, and not {other}" in note and note.endswith(example)
    code = note.partition("targets=")[2]
    seewhy.explain(net, inputs, layers="conv", targets=eval(code))  # the advice works


def test_messages_do_not_deny_class_scores() -> None:
    net, inputs = Several(AMBIGUOUS["grid, scores"][0]).eval(), torch.rand(2, 3, 8, 8)
    with pytest.raises(
        TargetError, match=r"the explained tensor has 4 classes, 0 to 3; .* and not output\[1\] \(2, 6\)"
    ):
        seewhy.explain(net, inputs, layers="conv", targets=5)
    with pytest.raises(seewhy.UsageError, match="the explained output is not a table of class scores"):
        seewhy.explain(net, inputs, layers="conv")[0].top()
    net = Several(AMBIGUOUS["depth, scores"][0]).eval()
    with pytest.raises(TargetError, match=r"not output\[1\] \(2, 6\)"):
        seewhy.explain(net, inputs, layers="conv", targets=5)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda g, y, n: y,
        lambda g, y, n: Fields(g, y),
        lambda g, y, n: {"hidden": g, "logits": y},
        lambda g, y, n: {"aux": y * 2, "out": y},
        lambda g, y, n: (n.sum(), y),
        lambda g, y, n: (y, y.argmax(1)),
        lambda g, y, n: (y, torch.zeros(5, 6)),
    ],
)
def test_one_candidate_needs_no_note(arrange: object) -> None:
    net, inputs = Several(arrange).eval(), torch.rand(2, 3, 8, 8)
    e = seewhy.explain(net, inputs, layers="conv", targets=[0, ClassProbability(1)])
    assert not any("several" in note for note in e.notes)
    assert torch.equal(e.logits, net.head(net.conv(inputs).relu().mean((2, 3))))


@pytest.mark.parametrize(
    "arrange",
    [
        lambda g, y, n: y.topk(3),
        lambda g, y, n: tuple(y.sort(descending=True)),
        lambda g, y, n: dict(zip(("scores", "labels"), y.topk(4), strict=True)),
        lambda g, y, n: [{"scores": row.sort()[0], "labels": row.sort()[1]} for row in y],
    ],
)
def test_sorted_scores_have_a_note(arrange: object) -> None:
    """The class is then a position in a list of classes."""
    inputs = torch.rand(2, 3, 8, 8)
    notes = [seewhy.explain(Several(f).eval(), inputs, layers="conv").notes for f in (arrange, lambda g, y, n: y)]
    assert [sum("as of topk" in note for note in some) for some in notes] == [1, 0]


@pytest.mark.parametrize("axes", [1, 2])
def test_one_number_per_image(axes: int) -> None:
    """It can be a logit or a regression: a note states which, and how to choose."""
    net = Several(lambda g, y, n: n if axes == 1 else n[:, None]).eval()
    inputs, number = torch.rand(2, 3, 8, 8), "one number per image"
    assert sum(number in note for note in seewhy.explain(net, inputs, layers="conv").notes) == 1
    for options in ({"targets": "value:mean"}, {"targets": "output:0"}, {"scores": "logits"}, {"labels": ["cat"]}):
        e = seewhy.explain(net, inputs, layers="conv", **options)  # type: ignore[arg-type]
        assert not any(number in note for note in e.notes)
        assert torch.allclose(e.target_results[0].scores, net(inputs).flatten())


def test_multilabel_applies_to_targets_and_methods() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double()
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    logits = net(image).detach()
    for text, expected in (
        ("probability:0", logits.sigmoid()[0, 0]),
        ("logprobability:0", logits.sigmoid()[0, 0].log()),
    ):
        e = seewhy.explain(net, image, targets=text, multilabel=True, layers="1")
        torch.testing.assert_close(e.target_results[0].scores[0], expected)
    for method in ("scorecam", "iscam", "reciprocam(score=probability)", "shapleycam"):
        one, many = (
            seewhy.explain(net, image, methods=method, layers="1", targets=0, multilabel=m).map() for m in (0, 1)
        )
        assert not torch.allclose(one, many), method


def test_score_cam_of_one_logit_follows_the_model() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).double()
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    own = seewhy.explain(net, image, methods="scorecam", layers="1", targets=0).map()
    a = net[1](net[0](image)).detach()[0]
    assert (a.flatten(1).amax(1) > 0).all()
    masks = nn.functional.interpolate(a[:, None], (8, 8), mode="bilinear")
    masks = (masks - masks.amin((2, 3), keepdim=True)) / (
        masks.amax((2, 3), keepdim=True) - masks.amin((2, 3), keepdim=True)
    )
    weights = net(masks * image).sigmoid()[:, 0].detach()
    expected = (weights[:, None, None] * a).sum(0)
    torch.testing.assert_close(own[0] / own.max(), expected / expected.max())
    with torch.no_grad():
        net[4].weight.neg_()
    assert not torch.allclose(own, seewhy.explain(net, image, methods="scorecam", layers="1", targets=0).map())


def test_equal_targets_are_merged() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    image = torch.rand(2, 3, 8, 8)
    assert seewhy.explain(net, image, layers="0", targets=["probability:0", "probability:0"]).targets == (
        "probability_0",
    )
    assert seewhy.explain(net, image, layers="0", targets=[0, np.int64(0)], versus=1).targets == ("0-1",)
    rows = Contrast(ClassScore(torch.tensor([0, 1])), [ClassScore(torch.tensor([2, 0]))])  # one rival per image
    e = seewhy.explain(net, image, layers="0", targets=rows)
    assert e.logits is not None
    torch.testing.assert_close(e.target_results[0].scores, e.logits[[0, 1], [0, 1]] - e.logits[[0, 1], [2, 0]])
    with pytest.raises(TargetError, match="compared with itself"):
        resolve(Contrast(ClassScore(torch.tensor([0, 1])), [ClassScore(torch.tensor([2, 1]))]), SCORES)
    first, second = (lambda output: output[:, 0]), (lambda output: output[:, 1])
    resolved = seewhy.explain(net, image, layers="0", targets=Contrast(as_targets(first)[0], as_targets(second)))
    torch.testing.assert_close(resolved.target_results[0].scores, e.logits[:, 0] - e.logits[:, 1])


def test_a_lost_box_has_score_zero() -> None:
    resolved = resolve(BoxScore((10, 10, 30, 30), "cat"), as_lists(CHANCES[None]))
    gone = [{"boxes": BOXES[2:3], "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}]
    assert resolved.for_image(gone, 0, 1).scores.tolist() == [0.0]
    empty = [{"boxes": BOXES[:0], "labels": torch.zeros(0, dtype=torch.long), "scores": torch.zeros(0)}]
    assert resolved.for_image(empty, 0, 1).scores.tolist() == [0.0]


def test_the_best_boxes_by_rank_and_class() -> None:
    for make in (as_lists, lambda chances: as_detr(chances.logit(1e-6))):
        first, second = resolve(TopScore(1), make(CHANCES[None])), resolve(TopScore(2), make(CHANCES[None]))
        assert first.name == "cat" and second.name == "dog" and first.has_location
        assert resolve(ClassScore("dog"), make(CHANCES[None])).name == "dog"


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (BoxScore((80, 0, 99, 5), decode=decoded), TargetError, "no candidate of the model overlaps it by 10%; the best are"),
        (BoxScore((0, 0, 9, 9), "bird", decode=decoded), UnknownName, "no class 'bird'"),
        (BoxScore((0, 0, 9, 9), decode="yolo"), UnknownName, "did you mean 'yolov"),
        (BoxScore((0, 0, 9, 9), decode="detr"), TargetError, "cannot be read as detr"),
        (BoxScore((0, 0, 9, 9), decode=lambda output: (output, output)), TargetError, "it must return"),
    ],
    ids=stable_id,
)  # fmt: skip
def test_boxes_that_do_not_match(target: Target, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(target, CHANCES[None])


def test_invalid_boxes() -> None:
    with pytest.raises(UnknownName, match="part of a box 'botom'"):
        BoxScore((0, 0, 1, 1), part="botom")
    with pytest.raises(TargetError, match="left < right"):
        BoxScore((5, 0, 1, 1))
    nothing = [{"boxes": BOXES[:0], "labels": torch.zeros(0, dtype=torch.long), "scores": torch.zeros(0)}]
    with pytest.raises(TargetError, match="detected nothing"):
        resolve(BoxScore((0, 0, 9, 9)), nothing)
    with pytest.raises(TargetError, match="detected 0 such boxes"):
        resolve(TopScore(1), nothing)
    with pytest.raises(TargetError, match="detected none"):
        resolve(ClassScore("dog"), [{"boxes": BOXES[:1], "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}])


# As text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("probability:cat", ClassProbability),
        ("logprobability:1", ClassLogProbability),
        ("output:2", OutputScore),
        ("region:cat", RegionScore),
        ("point:cat@12,30.5", RegionScore),
        ("box:cat@1,2,3,4", BoxScore),
        ("box:1,2,3,4", BoxScore),
        ("text:a red bus", TextScore),
        ("like:other.jpg", Similarity),
        ("cat: tabby", ClassScore),
    ],
)
def test_targets_as_text(text: str, expected: type[Target]) -> None:
    (resolved,) = as_targets(text)
    assert type(resolved) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("point:cat", "point:bus@120,200"),
        ("point:cat@1", "a point as x,y"),
        ("box:cat@1,2,3", "left,top,right,bottom"),
        ("box:cat@4,2,3,9", "left < right"),
        ("output:-1", "counted from 0"),
        ("text:", "nothing follows 'text:'"),
        ("boxx:cat@1,2,3,4", "did you mean 'box'"),
    ],
)
def test_misspelled_targets(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        as_targets(text)


def test_versus_makes_contrasts() -> None:
    resolved = as_targets(["cat", 2], versus="background")
    assert [resolve(target, SCORES).name for target in resolved] == [
        "cat rather than background",
        "dog rather than background",
    ]


# Through explain


@pytest.fixture
def segmenter() -> nn.Module:
    """Class 1 is brightness, so the logits of two equal bright squares differ only by location."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)
    )
    return net.double()


def twice_bright() -> Tensor:
    image = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    image[..., 3:6, 3:6] = 1
    image[..., 10:13, 10:13] = 1
    return image


def test_targets_with_a_location_default_to_hirescam(segmenter: nn.Module) -> None:
    e = seewhy.explain(segmenter, twice_bright(), layers="1", targets=RegionScore(1, where=(4, 4)))
    assert e.methods == ("hirescam",)
    assert any("hirescam, because the target has a location" in note for note in e.notes)
    heat = e.map()
    assert float(heat[..., 8:, 8:].abs().sum()) == 0 and float(heat.abs().sum()) > 0
    coarse = seewhy.explain(segmenter, twice_bright(), layers="1", targets="point:1@4,4", methods="gradcam")
    assert any("each channel a single weight" in note for note in coarse.notes)
    assert float(coarse.map()[..., 8:, 8:].abs().sum()) > 0


def test_region_maps_equal_their_formula(segmenter: nn.Module) -> None:
    image = twice_bright()
    mask = np.zeros((16, 16), bool)
    mask[2:8, 2:8] = True
    e = seewhy.explain(
        segmenter, image, methods=["gradcam", "hirescam"], layers="1", targets=RegionScore(1, where=mask)
    )
    features = segmenter[:2](image).detach().requires_grad_()
    score = segmenter[2:](features)[0, 1][torch.from_numpy(mask)].sum()
    (gradient,) = torch.autograd.grad(score, features)
    torch.testing.assert_close(e.map("hirescam"), (gradient * features).sum(1).detach())
    torch.testing.assert_close(e.map("gradcam"), (gradient.mean((2, 3), keepdim=True) * features).sum(1).detach())


def test_perturbation_methods_rescore_regions_and_sums(segmenter: nn.Module) -> None:
    for target in (RegionScore(1, where=(4, 4)), RegionScore(1, where=(4, 4)) - RegionScore(0, where=(11, 11))):
        e = seewhy.explain(
            segmenter, twice_bright(), methods=["occlusion", "scorecam(variant=paper)"], layers="1", targets=target
        )
        assert all(torch.isfinite(e.map(method)).all() for method in e.methods)


def test_contrast_is_the_difference_of_the_maps() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3)).double()
    inputs = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    e = seewhy.explain(net, inputs, methods=["gradcam", "hirescam", "xgradcam"], layers="1", targets=[0, 1])
    contrast = seewhy.explain(net, inputs, methods=["gradcam", "hirescam", "xgradcam"], layers="1", targets=0, versus=1)
    for method in e.methods:
        torch.testing.assert_close(contrast.map(method), e.map(method, 0) - e.map(method, 1))
    with pytest.raises(MethodError, match="needs a class"):
        seewhy.explain(net, inputs, methods="finercam", layers="1", targets=Contrast(0, 1))


def test_similarity_to_an_image_and_a_text(tmp_path: Path) -> None:
    model = seewhy.load_model()
    other = tmp_path / "other.png"
    Image.fromarray(np.full((60, 60, 3), 200, np.uint8)).save(other)
    e = seewhy.explain(model, seewhy.sample("coffee"), targets=f"like:{other}")
    assert e.targets == ("like other.png",) and -1 <= float(e.target_results[0].scores) <= 1
    same = seewhy.explain(model, seewhy.sample("coffee"), targets=Similarity(seewhy.sample("coffee")))
    assert float(same.target_results[0].scores) == pytest.approx(1)
    with pytest.raises(TargetError, match="no text encoder"):
        seewhy.explain(model, seewhy.sample("coffee"), targets="text:a red bus")
    with pytest.raises(TargetError, match="needs a model with preprocessing"):
        net = nn.Sequential(nn.Conv2d(3, 4, 3))
        seewhy.explain(net, torch.rand(1, 3, 8, 8), targets=f"like:{other}", layers=nn.Conv2d)


def test_multilabel_probabilities() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    inputs = torch.rand(1, 3, 8, 8)
    e = seewhy.explain(net, inputs, layers="0", targets=[0, 1], multilabel=True)
    chances = net(inputs).sigmoid()[0]
    assert [float(answer.probabilities) for answer in e.target_results] == pytest.approx(chances[:2].tolist())  # type: ignore[arg-type]
    assert dict((index, p) for index, _, p in e.top(3)) == pytest.approx(dict(enumerate(chances.tolist())))


def test_a_binary_logit_has_a_probability() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1), nn.Flatten(0))
    inputs = torch.rand(2, 3, 8, 8)
    e = seewhy.explain(net, inputs, layers="0")
    assert e.target_results[0].probabilities.tolist() == pytest.approx(net(inputs).sigmoid().tolist())  # type: ignore[union-attr]


class ClassesLast(nn.Module):
    """A network whose dense output has its classes on the last axis, unless `front` is True."""

    def __init__(self, axes: int, classes: int, front: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.front, stride = front, 1 if axes == 1 else 2
        self.cnn, self.out = conv(2, 4, 3, stride, 1), conv(4, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.out(self.cnn(x).relu())
        return scores if self.front else scores.movedim(1, -1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("classes", [1, 2, 3, 21])
@pytest.mark.parametrize("size", [(24,), (16, 24), (15, 22), (32, 32), (8, 12, 16)], ids=str)
def test_classes_on_the_last_axis(size: tuple[int, ...], classes: int) -> None:
    inputs = torch.randn(2, 2, *size)
    last, first = (ClassesLast(len(size), classes, front).eval() for front in (False, True))
    at = (1,) * len(size)
    contrast = Contrast(RegionScore(0, at), against=[1]) if classes > 1 else RegionScore(0, at)
    for target in (None, contrast, RegionScore(classes - 1, at), "value:mean", "value:0", "peak:0"):
        if classes == 1 and target is None:
            continue  # the class may win in no cell
        e, same = (seewhy.explain(net, inputs, targets=target, layers="cnn") for net in (last, first))
        assert torch.allclose(e.target_results[0].scores, same.target_results[0].scores, atol=1e-5)
        assert e.target_results[0].name == same.target_results[0].name
        assert torch.allclose(e.map(), same.map(), atol=1e-6)
    if classes > 1:
        with pytest.raises(TargetError, match=f"has {classes} classes"):
            seewhy.explain(last, inputs, targets=classes, layers="cnn")
        notes = seewhy.explain(last, inputs, layers="cnn").notes
        assert any(f"its classes are on axis {len(size) + 1} of" in note for note in notes)


def test_the_axis_of_the_classes_is_stated() -> None:
    """A square input and as many classes as rows show no axis: the second is used, and the note names it."""
    inputs = torch.randn(1, 2, 32, 32)
    for front in (True, False):
        for labels in (None, ["cat", "dog"]):
            e = seewhy.explain(ClassesLast(2, 16, front).eval(), inputs, labels=labels, layers="cnn")
            assert any("its classes are on axis 1 of (1, 16, 16, 16)" in note for note in e.notes)


@pytest.mark.parametrize("classes", [1, 4, 6, 8, 10, 21])
@pytest.mark.parametrize("size", [(30, 40), (32, 32), (17, 29)])
def test_grids_that_fit_the_input_roughly_have_their_classes_first(size: tuple[int, int], classes: int) -> None:
    """With a stride of 4, the 10 x 8 cells for 40 x 30 pixels have another aspect ratio than the input."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3, 4, 1), nn.Conv2d(4, classes, 1)).eval()
    inputs = torch.randn(1, 2, *size)
    e = seewhy.explain(net, inputs, targets=RegionScore(0, (1, 1)))
    assert torch.allclose(e.target_results[0].scores, net(inputs)[:, 0, 0, 0])
