"""The outputs of object detectors in one form: candidate boxes with a score per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import TargetError, UnknownName, one_line
from seewhy.targets.names import Labels
from seewhy.tensors.nested import first_tensor


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of one image: `boxes` (N, 4) as left, top, right, bottom in input pixels, and `scores` (N, K).

    `is_filtered`: the list is the result of non-maximum suppression, so row numbers differ between outputs.
    `are_logits`: the scores are logits, as in DETR.
    """

    boxes: Tensor
    scores: Tensor
    is_filtered: bool = False
    are_logits: bool = False

    def probabilities(self, labels: Labels) -> Tensor:
        """Return the class probabilities (N, K) that candidates are ranked by, without DETR's "no object" class."""
        scores = self.scores.detach()
        if self.are_logits:
            return scores.softmax(1)[:, :-1] if has_no_object_class(scores.shape[1], labels) else scores.sigmoid()
        return scores.sigmoid() if scores.numel() and float(scores.min()) < 0 else scores


def has_no_object_class(columns: int, labels: Labels) -> bool:
    """Return True if the last logit of a DETR means "no object"; models with as many logits as classes have none."""
    return labels is None or columns > len(labels)


Size = tuple[int, ...]
Decode = Callable[[Any], tuple[Tensor, Tensor]]  # output -> boxes (B, N, 4) in input pixels, scores (B, N, K)


def decode_torchvision(output: Any, size: Size) -> list[Candidates]:
    """torchvision's detectors: per image a dict of boxes, labels and scores."""
    candidates = []
    for one in output:
        classes = int(one["labels"].max()) + 1 if len(one["labels"]) else 1
        table = one["scores"].new_zeros(len(one["scores"]), classes)
        table = table.scatter(1, one["labels"][:, None], one["scores"][:, None])
        candidates.append(Candidates(one["boxes"], table, is_filtered=True))
    return candidates


def decode_detr(output: Any, size: Size) -> list[Candidates]:
    """DETR and its variants: logits (B, N, K), in some the last for "no object", and boxes cx, cy, w, h in [0, 1]."""
    scores = output["logits"] if "logits" in output else output["pred_logits"]
    height, width = size
    scale = scores.new_tensor([width, height, width, height])
    pairs = zip(output["pred_boxes"], scores, strict=True)
    return [Candidates(to_corners(box) * scale, row, are_logits=True) for box, row in pairs]


def decode_yolov5(output: Any, size: Size) -> list[Candidates]:
    """(B, N, 5 + K): cx, cy, w, h in pixels, objectness, class probabilities."""
    table = first_tensor(output)
    assert table is not None
    return [Candidates(to_corners(row[:, :4]), row[:, 4:5] * row[:, 5:]) for row in table]


def decode_yolov8(output: Any, size: Size) -> list[Candidates]:
    """(B, 4 + K, N): cx, cy, w, h in pixels, class probabilities."""
    table = first_tensor(output)
    assert table is not None
    return [Candidates(to_corners(row[:, :4]), row[:, 4:]) for row in table.transpose(1, 2)]


DECODERS: dict[str, Callable[[Any, Size], list[Candidates]]] = {
    "torchvision": decode_torchvision,
    "detr": decode_detr,
    "yolov5": decode_yolov5,
    "yolov8": decode_yolov8,
}


def is_detections(output: object) -> bool:
    """Return True if the keys of an output identify it as detections."""
    return detect_format(output) is not None


def detect_format(output: object) -> str | None:
    """Return the decoder that fits the keys of an output; None without one."""
    if isinstance(output, Mapping):
        return "detr" if "pred_boxes" in output and {"logits", "pred_logits"} & set(output) else None
    if isinstance(output, Sequence) and not isinstance(output, str) and output:
        has_keys = all(isinstance(one, Mapping) and {"boxes", "labels", "scores"} <= set(one) for one in output)
        return "torchvision" if has_keys else None
    return None


def find_candidates(output: object, decode: str | Decode | None, size: Size, target: object) -> list[Candidates]:
    """Return the candidates of each image. Raises TargetError if the output cannot be decoded."""
    if decode is None:
        decode = detect_format(output)
        if decode is None:
            tensor = first_tensor(output)
            shape = type(output).__name__ if tensor is None else tuple(tensor.shape)
            raise TargetError(
                target,
                f"it needs a detector, and the model's output {shape} has no known format of boxes. If it has boxes, name the "
                f"format ({', '.join(DECODERS)}), as in 'box[yolov8]:10,20,110,220' or decode='yolov8', or pass decode= a "
                "function of the output that returns boxes (B, N, 4) and scores (B, N, K).",
            )
    if isinstance(decode, str):
        if decode not in DECODERS:
            raise UnknownName("decoder", decode, DECODERS, "Or pass a function: output -> boxes, scores.")
        try:
            return check_has_classes(DECODERS[decode](output, size))
        except (IndexError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise TargetError(target, f"the output cannot be read as {decode} ({one_line(error)}).") from None
    decoded: object = decode(output)
    pair = decoded if isinstance(decoded, (tuple, list)) and len(decoded) == 2 else (None, None)
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in pair]
    match shapes:
        case [(batch, count, 4), (also, same, classes)] if (also, same) == (batch, count) and classes:
            return [Candidates(*both) for both in zip(*pair, strict=True)]
    returned = f"boxes {shapes[0]} and scores {shapes[1]}" if pair[0] is not None else type(decoded).__name__
    raise TargetError(target, f"decode returned {returned}; it must return (B, N, 4) and (B, N, K).")


def check_has_classes(candidates: list[Candidates]) -> list[Candidates]:
    """Return the candidates; ValueError if they have no class scores."""
    if any(one.scores.dim() != 2 or not one.scores.shape[1] for one in candidates):
        raise ValueError("it contains no classes")
    return candidates


def to_corners(boxes: Tensor) -> Tensor:
    """Convert cx, cy, w, h to left, top, right, bottom.

    >>> to_corners(torch.tensor([[5.0, 5.0, 4.0, 2.0]]))
    tensor([[3., 4., 7., 6.]])
    """
    x, y, width, height = boxes.unbind(-1)
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)


def intersection_over_union(boxes: Tensor, box: Tensor) -> Tensor:
    """Return the intersection over union (N,) of boxes (N, 4) with one box (4,).

    >>> intersection_over_union(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([1.0, 0.0, 2.0, 2.0]))
    tensor([0.5000])
    """
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    intersection = (high - low).clamp(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    return intersection / (areas + (box[2:] - box[:2]).prod() - intersection).clamp(min=1e-12)
