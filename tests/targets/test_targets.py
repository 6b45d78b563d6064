"""Questions: classes by index, name and rank, functions, and what cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seewhy.errors import TargetError, UnknownName
from seewhy.targets import ClassScore, FunctionScore, TopScore, as_targets, class_index, logits

LABELS = ("tench, Tinca tinca", "crane", "great white shark, white shark", "crane", "Egyptian cat")
OUTPUT = torch.tensor([[0.0, 1.0, 5.0, 3.0, 2.0], [9.0, 1.0, 5.0, 3.0, 2.0]])


def test_classes_by_index_and_name() -> None:
    asked = ClassScore(4).resolve(OUTPUT, LABELS)
    assert (asked.key, asked.name, asked.scores.tolist()) == ("4", "Egyptian cat", [2.0, 2.0])
    for name in ("tench", "TENCH", "Tinca tinca", "tench, Tinca tinca"):
        assert ClassScore(name).resolve(OUTPUT, LABELS).key == "0"
    assert ClassScore("white shark").resolve(OUTPUT, LABELS).name == "great white shark"


def test_one_class_for_each_picture() -> None:
    asked = ClassScore(torch.tensor([2, 0])).resolve(OUTPUT, LABELS)
    assert asked.key == "classes" and asked.scores.tolist() == [5.0, 9.0]


def test_ranks() -> None:
    assert TopScore(1).resolve(OUTPUT, LABELS).classes.tolist() == [2, 0]
    assert TopScore(3).resolve(OUTPUT, LABELS).classes.tolist() == [4, 3]
    assert TopScore(1).resolve(OUTPUT[:1], LABELS).key == "2"
    assert TopScore(1).resolve(OUTPUT, LABELS).key == "top1"


def test_functions() -> None:
    def margin(output: torch.Tensor) -> torch.Tensor:
        return output[:, 2] - output[:, 3]

    asked = FunctionScore(margin).resolve(OUTPUT, None)
    assert asked.key == "margin" and asked.scores.tolist() == [2.0, 2.0] and asked.classes is None
    with pytest.raises(TargetError, match=r"gave \(2, 5\)"):
        FunctionScore(lambda output: output).resolve(OUTPUT, None)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, [TopScore(1)]),
        ("top2", [TopScore(1), TopScore(2)]),
        ("Top-2", [TopScore(1), TopScore(2)]),
        (TopScore(4), [TopScore(4)]),
        (["top1", TopScore(3)], [TopScore(1), TopScore(3)]),
    ],
)
def test_what_a_user_may_write(spec: Any, expected: list[Any]) -> None:
    assert as_targets(spec) == expected
    (number,) = as_targets("654")
    assert isinstance(number, ClassScore) and number.classes == 654


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (ClassScore(5000), TargetError, "5000: the model has 5 classes, 0 to 4"),
        (ClassScore(-1), TargetError, "-1: the model has 5 classes"),
        (ClassScore("Egyptian cats"), UnknownName, "did you mean 'Egyptian cat'"),
        (ClassScore("crane"), TargetError, "2 classes have this name.*1, 3"),
        (ClassScore(True), TargetError, "not bool"),
        (ClassScore(torch.tensor([0.5, 1.0])), TargetError, "whole numbers"),
        (ClassScore(torch.tensor([1, 2, 3])), TargetError, "3 classes for 2 pictures"),
        (ClassScore(torch.zeros(2, 2, dtype=torch.long)), TargetError, r"shape \(2, 2\)"),
        (TopScore(6), TargetError, "top6"),
    ],
)
def test_what_cannot_be_asked(target: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        target.resolve(OUTPUT, LABELS)


@pytest.mark.parametrize("spec", [[], 3.5, torch.tensor([1, 2]), "top0", {"a": 1}])
def test_what_is_no_target(spec: Any) -> None:
    with pytest.raises(TargetError):
        as_targets(spec)


def test_names_need_labels() -> None:
    with pytest.raises(TargetError, match="brings no class names"):
        ClassScore("cat").resolve(OUTPUT, None)
    assert ClassScore(1).resolve(OUTPUT, None).name == "class 1"


def test_names_are_found_as_people_write_them() -> None:
    assert class_index(" egyptian CAT ", LABELS, 5) == 4


def test_class_scores_in_any_output() -> None:
    assert logits({"aux": OUTPUT * 2, "logits": OUTPUT}) is OUTPUT
    assert logits((OUTPUT, None)) is OUTPUT
    for wrong in (torch.zeros(2, 5, 8, 8), torch.zeros(()), "text", torch.zeros(2, 5, dtype=torch.long)):
        with pytest.raises(TargetError, match="not class scores"):
            logits(wrong)
