"""Questions about detections: why this box, why this class, why does its edge lie there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor

from seewhy.errors import TargetError, UnknownName
from seewhy.targets.base import EMPTY_CONTEXT, ResolvedTarget, Target, TargetContext
from seewhy.targets.detections import Candidates, Decode, candidates, has_nothing, is_detections, overlap
from seewhy.targets.names import Labels, class_name, find_class

__all__ = ["BoxScore", "best_box", "is_detections"]

PARTS = ("score", "left", "top", "right", "bottom")
LEAST = 0.1  # of intersection over union, for a candidate to count as the box that was meant


@final
@dataclass(frozen=True)
class BoxScore(Target):
    """One detection: the score of a class for one box, or a coordinate of that box, as in ODAM (Zhao and Chan, ICLR 2023).

    `box` is (left, top, right, bottom) in the photo's pixels, or in the inputs' own where those are tensors; the candidate
    with the highest score times intersection over union with it is asked. `classes` is the box's class by index or name;
    left out, the best class of that candidate. `part` "score", or "left", "top", "right", "bottom" (in input pixels).
    `decode` reads the output: "torchvision" (a list of dicts; after non-maximum suppression, which hands the scores of
    what it keeps through unchanged), "detr", "yolov5" (B, N, 5 + K), "yolov8" (B, 4 + K, N), or a function that gives
    boxes (B, N, 4) in input pixels and scores (B, N, K); the first two are recognised.

    Asked of other outputs, a head with a fixed set of candidates is read at the same candidate; where the list was cut
    down, the candidate of the class that overlaps most counts, and a box that is gone scores 0.

    Raises TargetError where no candidate overlaps the box by a tenth.
    """

    box: tuple[float, float, float, float]
    classes: int | str | None = None
    part: str = "score"
    decode: str | Decode | None = None
    bound: TargetContext = field(default=EMPTY_CONTEXT, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UnknownName("part of a box", self.part, PARTS)
        if len(self.box) != 4 or not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise TargetError(self.box, "a box is (left, top, right, bottom) with left < right and top < bottom.")

    def bind(self, around: TargetContext) -> Target:
        return replace(self, bound=around)

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        found = candidates(output, self.decode, self.bound.size, self.box)
        boxes = [self.in_input(picture) for picture in range(len(found))]
        picks = [self.pick(one, box.to(one.boxes), labels, self.classes) for one, box in zip(found, boxes, strict=True)]
        return of_candidates(
            output, found, picks, self, labels, key="box_" + ",".join(f"{value:g}" for value in self.box)
        )

    def in_input(self, picture: int) -> Tensor:
        """The box in the pixels of the input."""
        box = torch.tensor(self.box, dtype=torch.float32)
        if self.bound.views is None:
            return box
        view = self.bound.views[picture]
        left, top, right, bottom = view.box
        scale = torch.tensor([view.input_size[1] / (right - left), view.input_size[0] / (bottom - top)])
        return (box - torch.tensor([left, top]).repeat(2)) * scale.repeat(2)

    def pick(self, one: Candidates, box: Tensor, labels: Labels, classes: int | str | None) -> tuple[int, int]:
        """The candidate and class that were meant."""
        if not len(one.boxes):
            raise TargetError(self.box, "the model found nothing in this picture.")
        index = None if classes is None else find_class(classes, labels, count_classes(one, labels))
        if index is not None and index >= one.chances(labels).shape[1]:
            raise TargetError(self.box, f"the model found no {class_name(index, labels)} in this picture.")
        near = overlap(one.boxes.detach(), box)
        chances = one.chances(labels)
        table = chances if index is None else chances[:, index : index + 1]
        merit = table * near[:, None]
        merit[near < LEAST] = -1
        place = int(merit.argmax())
        row, column = divmod(place, merit.shape[1])
        if merit[row, column] < 0:
            raise TargetError(
                self.box,
                f"no candidate of the model overlaps it by {LEAST:.0%}; the best are {best_text(one, labels)}.",
            )
        return row, column if index is None else index


def best_box(output: Any, classes: int | str | None, rank: int, labels: Labels, origin: object) -> ResolvedTarget:
    """The detection with the `rank`th highest score in each picture, of one class or of any."""
    size = (1, 1)
    found = candidates(output, None, size, classes)
    picks = []
    for one in found:
        scores = one.chances(labels)
        if classes is not None:
            index = find_class(classes, labels, count_classes(one, labels))
            if index >= scores.shape[1]:
                raise TargetError(classes, f"the model found none; there are {best_text(one, labels)}.")
            scores = scores[:, index : index + 1]
        per_box, column = scores.max(1) if scores.numel() else (scores.new_zeros(0), scores.new_zeros(0))
        if classes is not None and one.kept:
            per_box = per_box.masked_fill(per_box == 0, -1)
        if not 1 <= rank <= len(per_box) or per_box.topk(rank).values[-1] < 0:
            raise TargetError(f"top{rank}", f"the model found {int((per_box >= 0).sum())} such boxes in this picture.")
        row = int(per_box.topk(rank).indices[-1])
        picks.append((row, int(column[row]) if classes is None else index))
    asked = BoxScore((0, 0, 1, 1))
    return of_candidates(output, found, picks, asked, labels, key=f"top{rank}", origin=origin)


def of_candidates(
    output: Any, found: Sequence[Candidates], picks: Sequence[tuple[int, int]], target: BoxScore, labels: Labels,
    *, key: str, origin: object = None,
) -> ResolvedTarget:  # fmt: skip
    """The score (or a coordinate) of one candidate of each picture, which stays the one for every other output."""
    chosen = [(one.boxes[row].detach(), row, column) for one, (row, column) in zip(found, picks, strict=True)]

    def rescore(other: Any, pictures: Tensor) -> Tensor:
        rows = candidates(other, target.decode, target.bound.size or (1, 1), target.box)
        values = []
        for one, picture in zip(rows, pictures.tolist(), strict=True):
            box, row, column = chosen[picture]
            if one.kept:
                row = same_box(one, box, column)
            if row < 0:
                values.append(one.scores.sum() * 0)
            elif target.part == "score":
                values.append(one.scores[row, column])
            else:
                values.append(one.boxes[row, PARTS.index(target.part) - 1])
        return torch.stack(values)

    names = list(dict.fromkeys(class_name(column, labels) for _, _, column in chosen))
    where = "" if origin is not None else " @ " + ",".join(f"{value:g}" for value in target.box)
    name = (names[0] if len(names) == 1 else key) + where
    said = "; ".join(candidate_text(one, row, column, labels) for one, (row, column) in zip(found, picks, strict=True))
    return ResolvedTarget(
        key=key if target.part == "score" else f"{target.part}_{key}",
        name=name if target.part == "score" else f"{target.part} of {name}",
        scores=rescore(output, torch.arange(len(found))),
        rescore=rescore,
        has_location=True,
        origin=target if origin is None else origin,
        notes=(f"the detection asked is {said} ({'of' if found[0].raw and not target.bound.size else 'in the pixels of'} "
               "the input)", *nothing_notes(found[0], labels)),
    )  # fmt: skip


def nothing_notes(one: Candidates, labels: Labels) -> tuple[str, ...]:
    if not one.raw:
        return ()
    if not has_nothing(one.scores.shape[1], labels):
        return ("it has as many logits as classes: each was taken to stand for itself (sigmoid), none for 'nothing'",)
    inferred = "" if labels else ", as there are no labels to count; where it has none, give labels"
    return (f"its last logit was taken to stand for 'nothing'{inferred}",)


def same_box(one: Candidates, box: Tensor, column: int) -> int:
    """The candidate of the class that overlaps a box most; -1 where none does."""
    if column >= one.scores.shape[1] or not len(one.boxes):
        return -1
    near = overlap(one.boxes.detach(), box.to(one.boxes)) * (one.scores[:, column].detach() > 0)
    return int(near.argmax()) if float(near.max()) >= LEAST else -1


def count_classes(one: Candidates, labels: Labels) -> int:
    return max(one.scores.shape[1], len(labels or ()))


def best_text(one: Candidates, labels: Labels, count: int = 3) -> str:
    chances = one.chances(labels)
    best = chances.max(1).values.topk(min(count, len(one.boxes))).indices.tolist()
    return "; ".join(candidate_text(one, row, int(chances[row].argmax()), labels) for row in best) or "none"


def candidate_text(one: Candidates, row: int, column: int, labels: Labels) -> str:
    box = ", ".join(f"{value:.4g}" for value in one.boxes[row].tolist())
    return f"{class_name(column, labels)} {float(one.scores[row, column].detach()):.3g} at ({box})"
