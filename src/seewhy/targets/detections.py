"""What detectors give, in one form: candidate boxes, and a score for each class of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import TargetError, UnknownName, one_line
from seewhy.nested import first_tensor
from seewhy.targets.names import Labels


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of one picture: `boxes` (N, 4), left, top, right, bottom in the input's pixels, `scores` (N, K).

    `kept`: the list was already cut down (by non-maximum suppression), so that its order means nothing for other outputs.
    `raw`: the scores are logits, of DETR and its kin.
    """

    boxes: Tensor
    scores: Tensor
    kept: bool = False
    raw: bool = False

    def chances(self, labels: Labels) -> Tensor:
        """How likely each class of each candidate is (N, K), to choose by: without DETR's last class, "nothing"."""
        scores = self.scores.detach()
        if self.raw:
            return scores.softmax(1)[:, :-1] if has_nothing(scores.shape[1], labels) else scores.sigmoid()
        return scores.sigmoid() if scores.numel() and float(scores.min()) < 0 else scores


def has_nothing(columns: int, labels: Labels) -> bool:
    """Whether the last logit of a DETR stands for "nothing": its kin with as many logits as classes have none."""
    return labels is None or columns > len(labels)


Size = tuple[int, ...]
Decode = Callable[[Any], tuple[Tensor, Tensor]]


def detection_lists(output: Any, size: Size) -> list[Candidates]:
    """torchvision's detectors: for each picture a dict of boxes, labels and scores."""
    found = []
    for one in output:
        classes = int(one["labels"].max()) + 1 if len(one["labels"]) else 1
        table = one["scores"].new_zeros(len(one["scores"]), classes)
        table = table.scatter(1, one["labels"][:, None], one["scores"][:, None])
        found.append(Candidates(one["boxes"], table, kept=True))
    return found


def detr(output: Any, size: Size) -> list[Candidates]:
    """DETR and its kin: logits (B, N, K), in some the last one for "nothing", and boxes cx, cy, w, h in [0, 1]."""
    scores = output["logits"] if "logits" in output else output["pred_logits"]
    height, width = size
    whole = scores.new_tensor([width, height, width, height])
    return [
        Candidates(corners(box) * whole, row, raw=True) for box, row in zip(output["pred_boxes"], scores, strict=True)
    ]


def yolov5(output: Any, size: Size) -> list[Candidates]:
    """(B, N, 5 + K): cx, cy, w, h in pixels, objectness, class probabilities."""
    table = first_tensor(output)
    assert table is not None
    return [Candidates(corners(row[:, :4]), row[:, 4:5] * row[:, 5:]) for row in table]


def yolov8(output: Any, size: Size) -> list[Candidates]:
    """(B, 4 + K, N): cx, cy, w, h in pixels, class probabilities."""
    table = first_tensor(output)
    assert table is not None
    return yolov8_rows(table.transpose(1, 2))


def yolov8_rows(table: Tensor) -> list[Candidates]:
    return [Candidates(corners(row[:, :4]), row[:, 4:]) for row in table]


DECODERS: dict[str, Callable[[Any, Size], list[Candidates]]] = {
    "torchvision": detection_lists,
    "detr": detr,
    "yolov5": yolov5,
    "yolov8": yolov8,
}


def is_detections(output: Any) -> bool:
    """Whether an output says by its own names that it holds detections."""
    return kind_of(output) is not None


def kind_of(output: Any) -> str | None:
    if isinstance(output, Mapping):
        return "detr" if "pred_boxes" in output and {"logits", "pred_logits"} & set(output) else None
    if isinstance(output, Sequence) and not isinstance(output, str) and output:
        named = all(isinstance(one, Mapping) and {"boxes", "labels", "scores"} <= set(one) for one in output)
        return "torchvision" if named else None
    return None


def candidates(output: Any, decode: str | Decode | None, size: Size, target: object) -> list[Candidates]:
    """The candidates of each picture. Raises TargetError where nobody knows how to read the output."""
    if decode is None:
        decode = kind_of(output)
        if decode is None:
            found = first_tensor(output)
            shape = type(output).__name__ if found is None else tuple(found.shape)
            raise TargetError(
                target,
                f"the output {shape} does not say where its boxes are; say decode= one of {', '.join(DECODERS)}, or a "
                "function of the output that gives boxes (B, N, 4) and scores (B, N, K).",
            )
    if isinstance(decode, str):
        if decode not in DECODERS:
            raise UnknownName("decoder", decode, DECODERS, "Or give a function: output -> boxes, scores.")
        try:
            return with_classes(DECODERS[decode](output, size))
        except (IndexError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise TargetError(target, f"the output cannot be read as {decode} ({one_line(error)}).") from None
    made = decode(output)
    pair = made if isinstance(made, (tuple, list)) and len(made) == 2 else (None, None)
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in pair]
    match shapes:
        case [(batch, count, 4), (also, same, classes)] if (also, same) == (batch, count) and classes:
            return [Candidates(*both) for both in zip(*pair, strict=True)]
    what = f"boxes {shapes[0]} and scores {shapes[1]}" if pair[0] is not None else type(made).__name__
    raise TargetError(target, f"decode gave {what}; it must give (B, N, 4) and (B, N, K).")


def with_classes(found: list[Candidates]) -> list[Candidates]:
    if any(one.scores.dim() != 2 or not one.scores.shape[1] for one in found):
        raise ValueError("there is no class in it")
    return found


def corners(boxes: Tensor) -> Tensor:
    """cx, cy, w, h as left, top, right, bottom.

    >>> corners(torch.tensor([[5.0, 5.0, 4.0, 2.0]]))
    tensor([[3., 4., 7., 6.]])
    """
    x, y, width, height = boxes.unbind(-1)
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)


def overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union (N,) of boxes (N, 4) with one box (4,).

    >>> overlap(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([1.0, 0.0, 2.0, 2.0]))
    tensor([0.5000])
    """
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    shared = (high - low).clamp(min=0).prod(1)
    sizes = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    return shared / (sizes + (box[2:] - box[:2]).prod() - shared).clamp(min=1e-12)
