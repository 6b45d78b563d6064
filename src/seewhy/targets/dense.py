"""Questions about a place: a class over a region of a dense output, such as a segmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import TargetError, UnknownName
from seewhy.images.view import View
from seewhy.nested import named_tensor
from seewhy.targets.base import EMPTY_CONTEXT, ResolvedTarget, Target, TargetContext
from seewhy.targets.names import Labels, class_name, common_key, common_name, find_classes

BACKGROUND = ("background", "__background__")
NAMED = ("logits", "out")  # where models that give several tensors keep the dense one


@final
@dataclass(frozen=True, eq=False)
class RegionScore(Target):
    """The logits of a class summed over a region of a dense output (B, K, *grid): Seg-Grad-CAM (Vinogradova et al.,
    AAAI 2020), equation 2.

    `classes` is an index, a name, or a tensor (B,) of indices. `where` is "predicted" (each picture's cells where the class
    wins), a mask, or the places of one cell each: a point (x, y) or a list of them. Masks, (height, width) or one for each
    picture, and points are in the photo's pixels; for inputs that are tensors, in the inputs' own (a mask may also be of the
    output's grid).

    Raises TargetError where the region is empty or the output is not dense.

    >>> output = torch.tensor([[[[0.0, 0.0]], [[3.0, -1.0]]]])  # (1, 2 classes, 1, 2)
    >>> asked = RegionScore("bus").resolve(output, ["street", "bus"])
    >>> asked.name, asked.scores
    ('bus', tensor([3.]))
    """

    classes: int | str | Tensor
    where: Literal["predicted"] | Tensor | np.ndarray[Any, Any] | Sequence[Any] = "predicted"
    bound: TargetContext = field(default=EMPTY_CONTEXT, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.where, str) and self.where != "predicted":
            raise UnknownName("region", self.where, ["predicted"], "Or give a mask, or a point (x, y).")

    def bind(self, around: TargetContext) -> Target:
        return replace(self, bound=around)

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        scores = dense_logits(output, self.classes)
        classes = find_classes(self.classes, labels, scores)
        region = self.region(scores, classes, labels)
        return over_region(output, classes, region, labels, self, key="classes", suffix=self.suffix)

    @property
    def suffix(self) -> str:
        if isinstance(self.where, str):
            return ""
        points = as_points(self.where)
        return "mask" if points is None else "+".join(",".join(f"{value:g}" for value in point) for point in points)

    def region(self, scores: Tensor, classes: Tensor, labels: Labels) -> Tensor:
        """The cells (B, *grid) that count, as bool."""
        if isinstance(self.where, str):
            region = where_it_wins(scores, classes)
            for picture, part in enumerate(region):
                if not part.any():
                    name = class_name(int(classes[picture]), labels)
                    found = ", ".join(f"{class_name(c, labels)} {share:.0%}" for c, share in areas(scores[picture])[:5])
                    which = "" if len(region) == 1 else f" in picture {picture}"
                    raise TargetError(
                        self.classes, f"{name} wins in no cell{which}; there are {found}; give a mask or a point."
                    )
            return region
        points = as_points(self.where)
        region = self.at_points(points, scores) if points is not None else self.in_mask(scores)
        for picture, part in enumerate(region):
            if not part.any():
                raise TargetError(self.classes, f"no cell of the output lies in the region (picture {picture}).")
        return region

    def at_points(self, points: Sequence[Sequence[float]], scores: Tensor) -> Tensor:
        batch, _, *grid = scores.shape
        region = torch.zeros(batch, *grid, dtype=torch.bool, device=scores.device)
        for picture in range(batch):
            box, size = self.frame(picture, tuple(grid))
            for point in points:
                if len(point) != len(grid) or not all(map(math.isfinite, point)):
                    raise TargetError(self.classes, f"point {tuple(point)}: give {len(grid)} numbers, (x, y, ...).")
                place = [
                    int((value - low) / (high - low) * cells // 1)
                    for value, (low, high), cells in zip(reversed(point), box, grid, strict=True)
                ]
                if not all(0 <= at < cells for at, cells in zip(place, grid, strict=True)):
                    raise TargetError(
                        self.classes,
                        f"point {tuple(point)} lies outside of what the network saw, {seen_text(box, size)}.",
                    )
                region[(picture, *place)] = True
        return region

    def in_mask(self, scores: Tensor) -> Tensor:
        batch, _, *grid = scores.shape
        mask = torch.as_tensor(np.asarray(self.where)) if not isinstance(self.where, Tensor) else self.where
        if mask.dim() == len(grid) + 1 and len(mask) not in (1, batch):
            raise TargetError(self.classes, f"{len(mask)} masks for {batch} pictures; give one, or one for each.")
        if mask.dim() not in (len(grid), len(grid) + 1):
            raise TargetError(self.classes, f"a mask of shape {tuple(mask.shape)} for a grid of {tuple(grid)}.")
        mask = (mask if mask.dim() > len(grid) else mask[None]) > 0
        found = []
        for picture in range(batch):
            own = mask[picture if len(mask) > 1 else 0].to(scores.device)
            if self.bound.views is None and self.bound.size and tuple(own.shape) not in (self.bound.size, tuple(grid)):
                raise TargetError(
                    self.classes,
                    f"the mask is {tuple(own.shape)}, and the input {self.bound.size}; give one of its size, or of the "
                    f"output's, {tuple(grid)}.",
                )
            box, _ = self.frame(picture, tuple(own.shape), photo=True)
            found.append(sampled(own, box, grid))
        return torch.stack(found)

    def frame(
        self, picture: int, shape: tuple[int, ...], *, photo: bool = False
    ) -> tuple[list[tuple[float, float]], tuple[int, ...]]:
        """What the output's grid covers, as (low, high) for each axis in pixels, and the size of the whole in them."""
        if self.bound.views is not None:
            view: View = self.bound.views[picture]
            left, top, right, bottom = view.box
            if photo and shape != view.photo_size:
                height, width = view.photo_size
                raise TargetError(
                    self.classes, f"the mask is {shape}, and the photo {height} x {width}; give one of its size."
                )
            return [(top, bottom), (left, right)], view.photo_size
        size = shape if photo or not self.bound.size else self.bound.size
        return [(0.0, float(length)) for length in size], size


def over_region(
    output: Any, classes: Tensor, region: Tensor, labels: Labels, origin: object, *, key: str, suffix: str = ""
) -> ResolvedTarget:
    """The sum of each picture's class's logits over a region (B, *grid), which stays the same for every other output."""

    def rescore(other: Any, pictures: Tensor) -> Tensor:
        found = dense_logits(other, key)
        rows, own = torch.arange(len(found), device=found.device), classes[pictures.to(classes.device)]
        scores = found[rows, own.to(found.device)]
        part = region[pictures.to(region.device)].to(scores.device)
        if part.shape[1:] != scores.shape[1:]:  # an input of another size
            part = nearest(part, scores.shape[1:])
        return torch.where(part, scores, 0).flatten(1).sum(1)

    cells = region.flatten(1).sum(1).tolist()
    counted = str(cells[0]) if len(cells) == 1 else f"{min(cells)} to {max(cells)}"
    how = "where it wins" if not suffix else "of the region" if suffix == "mask" else "of the points"
    name, key = common_name(classes, labels, key), common_key(classes, key)
    note = f"the output is dense: '{name}' is asked as the sum of its logits over the {counted} cells {how}"
    return ResolvedTarget(
        key=f"{key}@{suffix}" if suffix else key,
        name=f"{name} @ {suffix}" if suffix else name,
        scores=rescore(output, torch.arange(len(region))),
        rescore=rescore,
        has_location=True,
        origin=origin,
        notes=(note,),
        region=region,
    )


def top_region(output: Any, rank: int, labels: Labels, origin: object) -> ResolvedTarget:
    """Each picture's class that wins in the `rank`th most cells, background aside, over where it wins."""
    classes = top_classes(output, rank, labels)
    region = where_it_wins(dense_logits(output, rank), classes)
    return over_region(output, classes, region, labels, origin, key=f"top{rank}")


def top_classes(output: Any, rank: int, labels: Labels) -> Tensor:
    """The class (B,) that wins in the `rank`th most cells of each picture, background aside."""
    scores = dense_logits(output, f"top{rank}")
    found = [
        [index for index, _ in areas(one) if class_name(index, labels).casefold() not in BACKGROUND] for one in scores
    ]
    if any(len(classes) < rank for classes in found):
        raise TargetError(f"top{rank}", f"{min(map(len, found))} classes win in any cell of the output.")
    return torch.tensor([classes[rank - 1] for classes in found], device=scores.device)


def where_it_wins(scores: Tensor, classes: Tensor) -> Tensor:
    """The cells (B, *grid) where each picture's class wins."""
    won = predicted(scores)
    return won == classes.view(-1, *[1] * (won.dim() - 1))


def is_dense(output: Any, axes: int = 2) -> bool:
    """Whether a model's output is class scores for every cell of a grid (B, K, height, width), of a volume, or, where inputs
    have one of `axes`, of a signal; a grid of one cell is a fully convolutional network's way to give class scores."""
    tensor = dense_tensor(output)
    if tensor is None or not (3 if axes == 1 else 4) <= tensor.dim() <= 5 or not tensor.is_floating_point():
        return False
    return tensor.shape[2:].numel() > 1


def dense_tensor(output: Any) -> Tensor | None:
    return named_tensor(output, NAMED)


def dense_logits(output: Any, target: object) -> Tensor:
    """The dense class scores (B, K, *grid) in a model's output. Raises TargetError where there are none."""
    scores = dense_tensor(output)
    if scores is None or scores.dim() < 3 or not scores.is_floating_point():
        shape = type(output).__name__ if scores is None else tuple(scores.shape)
        raise TargetError(target, f"the model's output is {shape}, not class scores on a grid (B, K, height, width).")
    return scores


def predicted(scores: Tensor) -> Tensor:
    """The winning class of each cell (B, *grid); with one class it wins where its logit is positive, else -1 does."""
    if scores.shape[1] == 1:
        return (scores[:, 0].detach() > 0).long() - 1
    return scores.detach().argmax(1)


def areas(scores: Tensor) -> list[tuple[int, float]]:
    """(class, share of cells) of one picture (K, *grid), largest first."""
    won = predicted(scores[None]).flatten()
    won = won[won >= 0]
    counts = torch.bincount(won, minlength=len(scores)) / max(1, scores[0].numel())
    order = counts.argsort(descending=True, stable=True).tolist()
    return [(index, float(counts[index])) for index in order if counts[index] > 0]


def as_points(where: Any) -> list[Sequence[float]] | None:
    """A point (x, y) or a list of points, as a list; None for a mask."""
    if isinstance(where, (Tensor, np.ndarray)) or not len(where):
        return None
    if all(isinstance(item, Real) for item in where):
        return [where]
    if all(isinstance(item, Sequence) and all(isinstance(v, Real) for v in item) for item in where):
        return list(where) if len(where[0]) <= 3 and not isinstance(where[0][0], bool) else None
    return None


def sampled(mask: Tensor, box: Sequence[tuple[float, float]], grid: Sequence[int]) -> Tensor:
    """A mask read at the centres of the cells of a grid that covers `box`; outside of the mask it is False.

    >>> sampled(torch.tensor([[True, False]]), [(0, 1), (0, 2)], [1, 4])
    tensor([[ True,  True, False, False]])
    """
    for axis, ((low, high), cells) in enumerate(zip(box, grid, strict=True)):
        centres = low + (torch.arange(cells, device=mask.device) + 0.5) * (high - low) / cells
        at = centres.floor().long()
        inside = (at >= 0) & (at < mask.shape[axis])
        mask = mask.index_select(axis, at.clamp(0, mask.shape[axis] - 1))
        mask = mask & inside.view([-1 if other == axis else 1 for other in range(mask.dim())])
    return mask


def nearest(region: Tensor, grid: Sequence[int]) -> Tensor:
    """A region (N, *grid) on another grid."""
    whole = [(0.0, float(length)) for length in region.shape[1:]]
    return torch.stack([sampled(one, whole, grid) for one in region])


def seen_text(box: Sequence[tuple[float, float]], size: tuple[int, ...]) -> str:
    axes = ", ".join(
        f"{max(0.0, low):g} to {min(length, high):g}" for (low, high), length in zip(box, size, strict=True)
    )
    return f"{axes} (" + ("height, width" if len(box) == 2 else "axis by axis") + ")"
