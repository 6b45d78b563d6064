"""Targets for dense outputs such as segmentations: a class over a region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import TargetError, UnknownName
from seewhy.targets.base import EMPTY_CONTEXT, ResolvedTarget, Target, TargetContext
from seewhy.targets.class_scores import candidate_notes, find_scores, other_tensors
from seewhy.targets.dense_output import class_axis, dense_logits, top_classes, winning_areas, winning_region
from seewhy.targets.names import (
    ClassSpec,
    Labels,
    class_name,
    common_key,
    common_name,
    find_classes,
    normalize_classes,
)

Point = Sequence[float]  # (x, y), or (x, y, z) in a volume
Box = Sequence[tuple[float, float]]  # (low, high) per axis


@final
@dataclass(frozen=True, eq=False)
class RegionScore(Target):
    """The logits of a class summed over a region of a dense output `(B, K, *grid)`, as in Seg-Grad-CAM, equation 2.

    Args:
        classes: As for `ClassScore`.
        where: "predicted": the cells of each image where the class wins. A mask `(height, width)`, or one per image. Or
            a point (x, y), or a list of points, each of which selects one cell. Masks and points are in photo pixels; for
            inputs that are tensors, in input pixels (a mask may also have the size of the output's grid).

    Raises:
        UnknownName: `where` is another word.
        TargetError: From `resolve`: the output is not dense, or the region is empty.

    Example:
        >>> output = torch.tensor([[[[0.0, 0.0]], [[3.0, -1.0]]]])  # (1, 2 classes, 1, 2)
        >>> resolved = RegionScore("bus").resolve(output, ["street", "bus"])
        >>> resolved.name, resolved.scores
        ('bus', tensor([3.]))

    References:
        Vinogradova et al., "Towards Interpretable Semantic Segmentation via Gradient-weighted Class Activation Mapping",
        AAAI 2020, https://arxiv.org/abs/2002.11434
    """

    classes: ClassSpec
    where: Literal["predicted"] | Tensor | NDArray[np.generic] | Point | Sequence[Point] = "predicted"
    context: TargetContext = field(default=EMPTY_CONTEXT, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", normalize_classes(self.classes))
        if isinstance(self.where, str) and self.where != "predicted":
            raise UnknownName("region", self.where, ["predicted"], "Or pass a mask, or a point (x, y).")

    def bind(self, context: TargetContext) -> Target:
        return replace(self, context=context)

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        axis = class_axis(output, self.context.size)
        scores = dense_logits(output, self.text, axis)
        classes = find_classes(self.classes, labels, scores, other_tensors(output, find_scores(output)))
        region = self.find_region(scores, classes, labels)
        return region_score(output, classes, region, labels, self, key="classes", suffix=self.suffix, axis=axis)

    @property
    def text(self) -> str:
        """The target as text, for messages: "region:bus", "point:bus@120,200", or "bus@mask" for a mask or several points."""
        name = str(self.classes)
        if isinstance(self.where, str):
            return f"region:{name}"
        points = as_points(self.where)
        kind = "point:" if points is not None and len(points) == 1 else ""
        return f"{kind}{name}@{self.suffix}"

    @property
    def suffix(self) -> str:
        """What follows "@" in the name: "mask", or the points."""
        if isinstance(self.where, str):
            return ""
        points = as_points(self.where)
        return "mask" if points is None else "+".join(",".join(f"{value:g}" for value in point) for point in points)

    def find_region(self, scores: Tensor, classes: Tensor, labels: Labels) -> Tensor:
        """Return the selected cells (B, *grid) as bool."""
        if isinstance(self.where, str):
            region = winning_region(scores, classes)
            for image, part in enumerate(region):
                if not part.any():
                    name = class_name(int(classes[image]), labels)
                    areas = winning_areas(scores[image])[:5]
                    listed = ", ".join(f"{class_name(index, labels)} {share:.0%}" for index, share in areas)
                    where = "" if len(region) == 1 else f" in image {image}"
                    raise TargetError(
                        self.text,
                        f"{name} wins in no cell{where}; classes that win: {listed}. Pass a mask or a point as `where`.",
                    )
            return region
        points = as_points(self.where)
        region = self.region_of_points(points, scores) if points is not None else self.region_of_mask(scores)
        for image, part in enumerate(region):
            if not part.any():
                raise TargetError(self.text, f"no cell of the output lies in the region (image {image}).")
        return region

    def region_of_points(self, points: Sequence[Point], scores: Tensor) -> Tensor:
        batch, _, *grid = scores.shape
        region = torch.zeros(batch, *grid, dtype=torch.bool, device=scores.device)
        for image in range(batch):
            box, size = self.grid_box(image, tuple(grid))
            for point in points:
                if len(point) != len(grid) or not all(map(math.isfinite, point)):
                    raise TargetError(self.text, f"point {tuple(point)}: pass {len(grid)} finite numbers, (x, y, ...).")
                cell = [
                    int((value - low) / (high - low) * cells // 1)
                    for value, (low, high), cells in zip(reversed(point), box, grid, strict=True)
                ]
                if not all(0 <= at < cells for at, cells in zip(cell, grid, strict=True)):
                    raise TargetError(
                        self.text,
                        f"point {tuple(point)} is outside the part that the model received, {describe_box(box, size)}.",
                    )
                region[(image, *cell)] = True
        return region

    def region_of_mask(self, scores: Tensor) -> Tensor:
        batch, _, *grid = scores.shape
        mask = torch.as_tensor(np.asarray(self.where)) if not isinstance(self.where, Tensor) else self.where
        if mask.dim() == len(grid) + 1 and len(mask) not in (1, batch):
            raise TargetError(self.text, f"{len(mask)} masks for {batch} images; pass one mask, or one per image.")
        if mask.dim() not in (len(grid), len(grid) + 1):
            raise TargetError(self.text, f"a mask of shape {tuple(mask.shape)} for a grid of {tuple(grid)}.")
        mask = (mask if mask.dim() > len(grid) else mask[None]) > 0
        size, regions = self.context.size, []
        for image in range(batch):
            own = mask[image if len(mask) > 1 else 0].to(scores.device)
            if self.context.views is None and size and tuple(own.shape) not in (size, tuple(grid)):
                raise TargetError(
                    self.text,
                    f"the mask is {tuple(own.shape)}, and the input {size}; pass a mask of the input's size, or of the "
                    f"output's, {tuple(grid)}.",
                )
            box, _ = self.grid_box(image, tuple(own.shape), is_mask=True)
            regions.append(sample_mask(own, box, grid))
        return torch.stack(regions)

    def grid_box(
        self, image: int, shape: tuple[int, ...], *, is_mask: bool = False
    ) -> tuple[list[tuple[float, float]], tuple[int, ...]]:
        """Return what the output's grid covers, (low, high) per axis in pixels, and the size in pixels of the photo."""
        if self.context.views is not None:
            view = self.context.views[image]
            left, top, right, bottom = view.box
            if is_mask and shape != view.photo_size:
                height, width = view.photo_size
                raise TargetError(
                    self.text, f"the mask is {shape}, and the photo {height} x {width}; pass a mask of its size."
                )
            return [(top, bottom), (left, right)], view.photo_size
        size = shape if is_mask or not self.context.size else self.context.size
        return [(0.0, float(length)) for length in size], size


def region_score(
    output: object,
    classes: Tensor,
    region: Tensor,
    labels: Labels,
    target: Target,
    *,
    key: str,
    suffix: str = "",
    axis: int = 1,
) -> ResolvedTarget:
    """Return the sum of each image's class logits over a region (B, *grid), which is fixed for other outputs.

    `axis` is that of the classes in the output.
    """

    def rescore(other: object, images: Tensor) -> Tensor:
        table = dense_logits(other, key, axis)
        rows, own = torch.arange(len(table), device=table.device), classes[images.to(classes.device)]
        scores = table[rows, own.to(table.device)]
        part = region[images.to(region.device)].to(scores.device)
        if part.shape[1:] != scores.shape[1:]:  # an input of another size
            part = resize_region(part, scores.shape[1:])
        return torch.where(part, scores, 0).flatten(1).sum(1)

    cells = region.flatten(1).sum(1).tolist()
    count = str(cells[0]) if len(cells) == 1 else f"{min(cells)} to {max(cells)}"
    which = "where it wins" if not suffix else "of the region" if suffix == "mask" else "of the points"
    name, key = common_name(classes, labels, key), common_key(classes, key)
    note = f"the output is dense: the target '{name}' is the sum of its logits over the {count} cells {which}"
    scores = dense_logits(output, key)
    if axis != 1 or labels is None or len(labels) != scores.shape[1]:
        note += f"; its classes are on axis {axis % scores.dim()} of {tuple(scores.shape)}"
    if labels is None:
        note += "; if its channels are values, not classes (depth, optical flow), use targets='value:mean' or 'value:0'"
    return ResolvedTarget(
        key=f"{key}@{suffix}" if suffix else key,
        name=f"{name} @ {suffix}" if suffix else name,
        scores=rescore(output, torch.arange(len(region))),
        rescore=rescore,
        has_location=True,
        target=target,
        notes=(note, *candidate_notes(output, find_scores(output))),
        region=region,
    )


def top_region(output: object, rank: int, labels: Labels, target: Target, size: Sequence[int] = ()) -> ResolvedTarget:
    """Return the class with the `rank`th most cells in each image, background excluded, over the cells where it wins."""
    axis = class_axis(output, size)
    classes = top_classes(output, rank, labels, axis)
    region = winning_region(dense_logits(output, rank, axis), classes)
    return region_score(output, classes, region, labels, target, key=f"top{rank}", axis=axis)


def as_points(where: Any) -> list[Point] | None:
    """Return a point or a list of points as a list; None for a mask."""
    if isinstance(where, (Tensor, np.ndarray)) or not len(where):
        return None
    if all(isinstance(item, Real) for item in where):
        return [where]
    if all(isinstance(item, Sequence) and all(isinstance(value, Real) for value in item) for item in where):
        return list(where) if len(where[0]) <= 3 and not isinstance(where[0][0], bool) else None
    return None


def sample_mask(mask: Tensor, box: Box, grid: Sequence[int]) -> Tensor:
    """Sample a mask at the centers of the cells of a grid that covers `box`; False outside the mask.

    >>> sample_mask(torch.tensor([[True, False]]), [(0, 1), (0, 2)], [1, 4])
    tensor([[ True,  True, False, False]])
    """
    for axis, ((low, high), cells) in enumerate(zip(box, grid, strict=True)):
        centers = low + (torch.arange(cells, device=mask.device) + 0.5) * (high - low) / cells
        at = centers.floor().long()
        inside = (at >= 0) & (at < mask.shape[axis])
        mask = mask.index_select(axis, at.clamp(0, mask.shape[axis] - 1))
        mask = mask & inside.view([-1 if other == axis else 1 for other in range(mask.dim())])
    return mask


def resize_region(region: Tensor, grid: Sequence[int]) -> Tensor:
    """Resample a region (N, *grid) to another grid by nearest neighbor."""
    box = [(0.0, float(length)) for length in region.shape[1:]]
    return torch.stack([sample_mask(one, box, grid) for one in region])


def describe_box(box: Box, size: tuple[int, ...]) -> str:
    ranges = ", ".join(
        f"{max(0.0, low):g} to {min(length, high):g}" for (low, high), length in zip(box, size, strict=True)
    )
    return f"{ranges} (" + ("height, width" if len(box) == 2 else "axis by axis") + ")"
