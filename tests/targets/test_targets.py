"""Targets for class scores by index, name and rank, functions of the output, and how specifications are parsed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy.errors import TargetError, UnknownName
from seewhy.targets import (
    ClassLogProbability,
    ClassProbability,
    ClassScore,
    Contrast,
    FunctionScore,
    TopScore,
    as_targets,
)
from seewhy.targets.base import is_equal
from seewhy.targets.class_scores import logits
from seewhy.targets.names import class_index
from seewhy.targets.parsing import parse_rank
from support.parameters import stable_id

LABELS = ("tench, Tinca tinca", "crane", "great white shark, white shark", "crane", "Egyptian cat")
OUTPUT = torch.tensor([[0.0, 1.0, 5.0, 3.0, 2.0], [9.0, 1.0, 5.0, 3.0, 2.0]])


def test_classes_by_index_and_name() -> None:
    resolved = ClassScore(4).resolve(OUTPUT, LABELS)
    assert (resolved.key, resolved.name, resolved.scores.tolist()) == ("4", "Egyptian cat", [2.0, 2.0])
    for name in ("tench", "TENCH", "Tinca tinca", "tench, Tinca tinca"):
        assert ClassScore(name).resolve(OUTPUT, LABELS).key == "0"
    assert ClassScore("white shark").resolve(OUTPUT, LABELS).name == "great white shark"


@pytest.mark.parametrize(
    "classes",
    [
        torch.tensor([2, 0]),
        torch.tensor([2, 0], dtype=torch.int32),
        [2, 0],
        (2, 0),
        range(2, -1, -2),
        np.array([2, 0]),
        np.array([2, 0], np.uint8),
        [np.int64(2), torch.tensor(0)],
        ["white shark", "tench"],
        [2, "tench"],
        np.array(["white shark", "tench"]),
    ],
    ids=stable_id,
)
def test_one_class_per_image(classes: Any) -> None:
    resolved = ClassScore(classes).resolve(OUTPUT, LABELS)
    assert resolved.key == "classes" and resolved.scores.tolist() == [5.0, 9.0]
    assert ClassProbability(classes).resolve(OUTPUT, LABELS).scores.tolist() == pytest.approx(
        [float(OUTPUT.softmax(1)[0, 2]), float(OUTPUT.softmax(1)[1, 0])]
    )
    rivals = Contrast(classes, against=ClassScore([1, 1])).resolve(OUTPUT, LABELS)
    assert rivals.scores.tolist() == [4.0, 8.0]


def test_a_list_means_several_targets_and_class_score_means_one_class_per_image() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inputs = torch.rand(2, 3, 8, 8)
    several = seewhy.explain(net, inputs, layers="0", targets=[3, 1])
    assert several.targets == ("3", "1")
    per_image = seewhy.explain(net, inputs, layers="0", targets=ClassScore([3, 1]))
    assert per_image.targets == ("classes",)
    for index, target in enumerate((3, 1)):
        assert torch.equal(per_image.map()[index], several.map(target=target)[index])


@pytest.mark.parametrize(
    "spec",
    [torch.tensor([3, 9]), np.array([3, 9]), [[3, 9]], [3, [9]], [np.array([3, 9])], [torch.tensor([3, 9]), 1]],
    ids=stable_id,
)
def test_ambiguous_specifications_name_both_spellings(spec: Any) -> None:
    with pytest.raises(TargetError, match=r"one class per image, pass ClassScore\(\[3, 9\]\); for several targets"):
        as_targets(spec)


def test_another_number_of_images_than_classes() -> None:
    with pytest.raises(TargetError, match=r"3 classes for 2 images.*targets=\[3, 9\]"):
        ClassScore([1, 2, 3]).resolve(OUTPUT, LABELS)


def test_ranks() -> None:
    assert TopScore(1).resolve(OUTPUT, LABELS).classes.tolist() == [2, 0]
    assert TopScore(3).resolve(OUTPUT, LABELS).classes.tolist() == [4, 3]
    assert TopScore(1).resolve(OUTPUT[:1], LABELS).key == "2"
    assert TopScore(1).resolve(OUTPUT, LABELS).key == "top1"
    assert [parse_rank(text) for text in ("top3", " TOP-12 ", "top", "3", "topper")] == [3, 12, None, None, None]


def test_functions_of_the_output() -> None:
    def margin(output: torch.Tensor) -> torch.Tensor:
        return output[:, 2] - output[:, 3]

    resolved = FunctionScore(margin).resolve(OUTPUT, None)
    assert resolved.key == "margin" and resolved.scores.tolist() == [2.0, 2.0] and resolved.classes is None
    with pytest.raises(TargetError, match=r"returned \(2, 5\)"):
        FunctionScore(lambda output: output).resolve(OUTPUT, None)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, [TopScore(1)]),
        ("top2", [TopScore(1), TopScore(2)]),
        ("Top-2", [TopScore(1), TopScore(2)]),
        (TopScore(4), [TopScore(4)]),
        (["top1", TopScore(3)], [TopScore(1), TopScore(3)]),
        ("654", [ClassScore(654)]),
        (np.int64(654), [ClassScore(654)]),
        (torch.tensor(654), [ClassScore(654)]),
        (np.array(654), [ClassScore(654)]),
        ([3, np.uint8(4), torch.tensor(5)], [ClassScore(3), ClassScore(4), ClassScore(5)]),
        (range(2), [ClassScore(0), ClassScore(1)]),
        ((1, "cat"), [ClassScore(1), ClassScore("cat")]),
    ],
    ids=stable_id,
)
def test_specifications(spec: Any, expected: list[Any]) -> None:
    assert is_equal(as_targets(spec), expected)


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (ClassScore(5000), TargetError, "5000: the model has 5 classes, 0 to 4"),
        (ClassScore(-1), TargetError, "-1: the model has 5 classes"),
        (ClassScore([1, 7]), TargetError, "7: the model has 5 classes"),
        (ClassScore("Egyptian cats"), UnknownName, "did you mean 'Egyptian cat'"),
        (ClassScore(["tench", "Egyptian cats"]), UnknownName, "did you mean 'Egyptian cat'"),
        (ClassScore("crane"), TargetError, "2 classes have this name.*1, 3"),
        (ClassScore(True), TargetError, "not bool"),
        (ClassScore(torch.tensor([0.5, 1.0])), TargetError, "integers, not torch.float32"),
        (ClassScore([0.5, 1.0]), TargetError, "integers, not torch.float32"),
        (ClassScore([]), TargetError, "integers, not torch.float32"),
        (ClassScore([True, False]), TargetError, "integers, not torch.bool"),
        (ClassScore(torch.tensor([1, 2, 3])), TargetError, "3 classes for 2 images"),
        (ClassScore(torch.zeros(2, 2, dtype=torch.long)), TargetError, r"shape \(2, 2\)"),
        (ClassScore([[1, 2], [3, 4]]), TargetError, r"shape \(2, 2\)"),  # type: ignore[list-item]
        (ClassScore(None), TargetError, "not NoneType"),  # type: ignore[arg-type]
        (ClassLogProbability([1, 2, 3]), TargetError, "3 classes for 2 images"),
        (TopScore(6), TargetError, "top6"),
    ],
    ids=stable_id,
)
def test_targets_that_the_output_does_not_contain(target: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        target.resolve(OUTPUT, LABELS)


@pytest.mark.parametrize("spec", [[], 3.5, torch.tensor([1, 2]), "top0", {"a": 1}, torch.tensor(0.5), np.float32(1)])
def test_invalid_specifications(spec: Any) -> None:
    with pytest.raises(TargetError):
        as_targets(spec)


def test_resolved_targets_are_immutable() -> None:
    resolved = ClassScore(1).resolve(OUTPUT, LABELS)
    with pytest.raises(AttributeError):
        resolved.name = "other"  # type: ignore[misc]


def test_names_need_labels() -> None:
    with pytest.raises(TargetError, match="has no class names"):
        ClassScore("cat").resolve(OUTPUT, None)
    assert ClassScore(1).resolve(OUTPUT, None).name == "class 1"


def test_letter_case_and_spaces_of_names_do_not_count() -> None:
    assert class_index(" egyptian CAT ", LABELS, 5) == 4


def test_class_scores_in_nested_outputs() -> None:
    assert logits({"aux": OUTPUT * 2, "logits": OUTPUT}) is OUTPUT
    assert logits((OUTPUT, None)) is OUTPUT
    for invalid in (torch.zeros(2, 5, 8, 8), torch.zeros(()), "text", torch.zeros(2, 5, dtype=torch.long)):
        with pytest.raises(TargetError, match="not class scores"):
            logits(invalid)
