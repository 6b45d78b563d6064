"""Targets for object detectors: the score of a box, or one of its edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from seewhy.errors import TargetError, UnknownName
from seewhy.targets.base import EMPTY_CONTEXT, ResolvedTarget, Target, TargetContext
from seewhy.targets.detections import (
    Candidates,
    Decode,
    find_candidates,
    has_no_object_class,
    intersection_over_union,
    is_detections,
)
from seewhy.targets.names import Labels, class_name, find_class

__all__ = ["BoxScore", "best_box", "is_detections"]

PARTS = ("score", "left", "top", "right", "bottom")
MIN_OVERLAP = 0.1  # intersection over union from which a candidate may be the box that was passed


@final
@dataclass(frozen=True)
class BoxScore(Target):
    """One detection: the score of a class for one box, or a coordinate of that box.

    The box is matched to the candidate with the highest score times intersection over union. When the model runs again on
    changed inputs, a head with a fixed set of candidates is read at the same candidate. If the output is already filtered
    by non-maximum suppression, the candidate of the class that overlaps most is used, and a lost box has score 0.

    Args:
        box: (left, top, right, bottom) in photo pixels; in input pixels for inputs that are tensors.
        classes: The box's class by index or name. Default: the best class of the candidate.
        part: "score", or the edge "left", "top", "right" or "bottom" in input pixels.
        decode: How to read the output: "torchvision" (list of dicts after non-maximum suppression, which passes the
            scores through unchanged), "detr", "yolov5" `(B, N, 5 + K)`, "yolov8" `(B, 4 + K, N)`, or a function of the
            output that returns boxes `(B, N, 4)` in input pixels and scores `(B, N, K)`. The first two are detected.

    Raises:
        UnknownName: `part` does not exist. From `resolve`: no such class or decoder.
        TargetError: `box` is empty. From `resolve`: no candidate overlaps the box by at least 10%, or the output cannot be
            decoded.

    Example:
        >>> box, label, score = torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.tensor([1]), torch.tensor([0.5])
        >>> output = [{"boxes": box, "labels": label, "scores": score}]
        >>> BoxScore((0, 0, 10, 10), "cat").resolve(output, ["background", "cat"]).scores
        tensor([0.5000])

    References:
        Zhao and Chan, "ODAM", ICLR 2023, https://arxiv.org/abs/2304.06354
    """

    box: tuple[float, float, float, float]
    classes: int | str | None = None
    part: str = "score"
    decode: str | Decode | None = None
    context: TargetContext = field(default=EMPTY_CONTEXT, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UnknownName("part of a box", self.part, PARTS)
        if len(self.box) != 4 or not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise TargetError(self.box, "a box is (left, top, right, bottom) with left < right and top < bottom.")

    @property
    def text(self) -> str:
        """The target as text, for messages, such as "box:person@10,20,110,220"."""
        name = "" if self.classes is None else f"{self.classes}@"
        return f"box:{name}{','.join(f'{value:g}' for value in self.box)}"

    def bind(self, context: TargetContext) -> Target:
        return replace(self, context=context)

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        candidates = find_candidates(output, self.decode, self.context.size, self.text)
        boxes = [self.in_input(image) for image in range(len(candidates))]
        picks = [self.pick(one, box.to(one.boxes), labels) for one, box in zip(candidates, boxes, strict=True)]
        key = "box_" + ",".join(f"{value:g}" for value in self.box)
        return candidate_score(output, candidates, picks, self, labels, key=key)

    def in_input(self, image: int) -> Tensor:
        """Return the box in input pixels."""
        box = torch.tensor(self.box, dtype=torch.float32)
        if self.context.views is None:
            return box
        view = self.context.views[image]
        left, top, right, bottom = view.box
        scale = torch.tensor([view.input_size[1] / (right - left), view.input_size[0] / (bottom - top)])
        return (box - torch.tensor([left, top]).repeat(2)) * scale.repeat(2)

    def pick(self, candidates: Candidates, box: Tensor, labels: Labels) -> tuple[int, int]:
        """Return the row and the class of the candidate that matches the box."""
        if not len(candidates.boxes):
            raise TargetError(self.text, "the model detected nothing in this image.")
        probabilities = candidates.probabilities(labels)
        index = None if self.classes is None else find_class(self.classes, labels, count_classes(candidates, labels))
        if index is not None and index >= probabilities.shape[1]:
            raise TargetError(self.text, f"the model detected no {class_name(index, labels)} in this image.")
        near = intersection_over_union(candidates.boxes.detach(), box)
        table = probabilities if index is None else probabilities[:, index : index + 1]
        merit = table * near[:, None]
        merit[near < MIN_OVERLAP] = -1
        row, column = divmod(int(merit.argmax()), merit.shape[1])
        if merit[row, column] < 0:
            raise TargetError(
                self.text,
                f"no candidate of the model overlaps it by {MIN_OVERLAP:.0%}; the best are {list_best(candidates, labels)}.",
            )
        return row, column if index is None else index


def best_box(output: object, classes: object, rank: int, labels: Labels, target: Target) -> ResolvedTarget:
    """Return the score of the detection with the `rank`th highest score in each image, of one class or of any (None)."""
    candidates = find_candidates(output, None, (1, 1), classes)
    picks = []
    for one in candidates:
        scores = one.probabilities(labels)
        if classes is not None:
            index = find_class(classes, labels, count_classes(one, labels))
            if index >= scores.shape[1]:
                raise TargetError(classes, f"the model detected none; it detected {list_best(one, labels)}.")
            scores = scores[:, index : index + 1]
        per_box, column = scores.max(1) if scores.numel() else (scores.new_zeros(0), scores.new_zeros(0))
        if classes is not None and one.is_filtered:
            per_box = per_box.masked_fill(per_box == 0, -1)
        if not 1 <= rank <= len(per_box) or per_box.topk(rank).values[-1] < 0:
            raise TargetError(f"top{rank}", f"the model detected {int((per_box >= 0).sum())} such boxes in this image.")
        row = int(per_box.topk(rank).indices[-1])
        picks.append((row, int(column[row]) if classes is None else index))
    reading = BoxScore((0, 0, 1, 1))
    return candidate_score(output, candidates, picks, reading, labels, key=f"top{rank}", target=target)


def candidate_score(
    output: object, candidates: Sequence[Candidates], picks: Sequence[tuple[int, int]], box: BoxScore, labels: Labels,
    *, key: str, target: Target | None = None,
) -> ResolvedTarget:  # fmt: skip
    """Return the score, or a coordinate, of one candidate (row, class) per image, which is fixed for other outputs.

    `target` is the target that was resolved, if it is not `box`. `box` defines the value to read.
    """
    chosen = [(one.boxes[row].detach(), row, column) for one, (row, column) in zip(candidates, picks, strict=True)]

    def rescore(other: object, images: Tensor) -> Tensor:
        rows = find_candidates(other, box.decode, box.context.size or (1, 1), box.box)
        values = []
        for one, image in zip(rows, images.tolist(), strict=True):
            position, row, column = chosen[image]
            if one.is_filtered:
                row = find_same_box(one, position, column)
            if row < 0:
                values.append(one.scores.sum() * 0)
            elif box.part == "score":
                values.append(one.scores[row, column])
            else:
                values.append(one.boxes[row, PARTS.index(box.part) - 1])
        return torch.stack(values)

    names = list(dict.fromkeys(class_name(column, labels) for _, _, column in chosen))
    suffix = "" if target is not None else " @ " + ",".join(f"{value:g}" for value in box.box)
    name = (names[0] if len(names) == 1 else key) + suffix
    listed = "; ".join(
        describe_candidate(one, row, column, labels) for one, (row, column) in zip(candidates, picks, strict=True)
    )
    unit = "as fractions of" if candidates[0].are_logits and not box.context.size else "in the pixels of"
    return ResolvedTarget(
        key=key if box.part == "score" else f"{box.part}_{key}",
        name=name if box.part == "score" else f"{box.part} of {name}",
        scores=rescore(output, torch.arange(len(candidates))),
        rescore=rescore,
        has_location=True,
        boxes=torch.stack([position for position, _, _ in chosen]),
        target=box if target is None else target,
        notes=(f"detection: {listed} ({unit} the input)", *no_object_notes(candidates[0], labels)),
    )


def no_object_notes(candidates: Candidates, labels: Labels) -> tuple[str, ...]:
    """Return a note on whether the last logit of a DETR is read as "no object"."""
    if not candidates.are_logits:
        return ()
    if not has_no_object_class(candidates.scores.shape[1], labels):
        return (
            "the model has as many logits as classes: each is read as its own class (sigmoid), none as 'no object'",
        )
    inferred = "" if labels else ", because there are no labels to count; if the model has no such logit, pass labels"
    return (f"the last logit is read as 'no object'{inferred}",)


def find_same_box(candidates: Candidates, box: Tensor, column: int) -> int:
    """Return the row of the candidate of the class that overlaps a box most; -1 if none does."""
    if column >= candidates.scores.shape[1] or not len(candidates.boxes):
        return -1
    near = intersection_over_union(candidates.boxes.detach(), box.to(candidates.boxes))
    near = near * (candidates.scores[:, column].detach() > 0)
    return int(near.argmax()) if float(near.max()) >= MIN_OVERLAP else -1


def count_classes(candidates: Candidates, labels: Labels) -> int:
    return max(candidates.scores.shape[1], len(labels or ()))


def list_best(candidates: Candidates, labels: Labels, count: int = 3) -> str:
    """Return the most likely candidates as text."""
    probabilities = candidates.probabilities(labels)
    best = probabilities.max(1).values.topk(min(count, len(candidates.boxes))).indices.tolist()
    rows = [describe_candidate(candidates, row, int(probabilities[row].argmax()), labels) for row in best]
    return "; ".join(rows) or "none"


def describe_candidate(candidates: Candidates, row: int, column: int, labels: Labels) -> str:
    box = ", ".join(f"{value:.4g}" for value in candidates.boxes[row].tolist())
    return f"{class_name(column, labels)} {float(candidates.scores[row, column].detach()):.3g} at ({box})"
