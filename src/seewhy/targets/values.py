"""Targets for outputs that are values, not classes: a number, depth, optical flow, heatmaps of keypoints, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import TargetError, UnknownName
from seewhy.targets.base import EMPTY_CONTEXT, ResolvedTarget, Target, TargetContext
from seewhy.targets.class_scores import candidate_notes, class_scores, find_scores, logits
from seewhy.targets.dense import Point, RegionScore, resize_region
from seewhy.targets.dense_output import has_channels_last
from seewhy.targets.names import Labels, class_name
from seewhy.tensors.nested import named_tensor

NAMED = ("predicted_depth", "flow", "heatmaps", "out", "logits")  # keys of the values in models with several outputs


@final
@dataclass(frozen=True, eq=False)
class ValueScore(Target):
    """The mean of an output's values: of a channel, or of the lengths of all its vectors.

    It fits outputs without classes: depth `(B, height, width)`, optical flow `(B, 2, height, width)`, heatmaps of keypoints
    `(B, K, height, width)`, token features `(B, N, D)` and embeddings `(B, D)`.

    Args:
        channel: The channel, from 0. None: the length of the vector of all channels at each position; an output without
            channel axis, or with a single channel, has no vectors, so it is the value itself.
        where: None: all positions. "peak": the position of each image where the value is highest. A mask, a point (x, y) or a
            list of points, as for `RegionScore`.

    Raises:
        UnknownName: `where` is another word.
        TargetError: From `resolve`: the output has no such channel, or no positions for `where`.

    Example:
        >>> depth = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
        >>> ValueScore().resolve(depth, None).scores, ValueScore(where="peak").resolve(depth, None).scores
        (tensor([3.]), tensor([6.]))
        >>> flow = torch.tensor([[[[3.0]], [[-4.0]]]])
        >>> ValueScore().resolve(flow, None).scores, ValueScore(1).resolve(flow, None).scores
        (tensor([5.]), tensor([-4.]))
    """

    channel: int | None = None
    where: Literal["peak"] | Tensor | NDArray[np.generic] | Point | Sequence[Point] | None = None
    context: TargetContext = field(default=EMPTY_CONTEXT, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.where, str) and self.where != "peak":
            raise UnknownName("place", self.where, ["peak"], "Or pass a mask, or a point (x, y).")

    @property
    def name(self) -> str:
        """The name, such as "value of channel 0 at 120,200"."""
        text = "value" if self.channel is None else f"value of channel {self.channel}"
        if self.where is None:
            return text
        suffix = "its peak" if isinstance(self.where, str) else RegionScore(0, self.where).suffix
        return f"{text} at {suffix}"

    def bind(self, context: TargetContext) -> Target:
        return replace(self, context=context)

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        values = self.values(output)
        region = self.find_region(values)

        def rescore(other: object, images: Tensor) -> Tensor:
            table = self.values(other)
            if region is None:
                return table.flatten(1).mean(1) if table.dim() > 1 else table
            part = region[images.to(region.device)].to(table.device)
            if part.shape[1:] != table.shape[1:]:  # an input of another size
                part = resize_region(part, table.shape[1:])
            return torch.where(part, table, 0).flatten(1).sum(1) / part.flatten(1).sum(1)

        has_location = region is not None
        choice = candidate_notes(output, named_tensor(output, NAMED), NAMED)
        return ResolvedTarget(
            key=self.name.replace(" ", "_"),
            name=self.name,
            scores=rescore(output, torch.arange(len(values))),
            rescore=rescore,
            has_location=has_location,
            target=self,
            notes=(f"target: the mean of the {self.describe(output)}", *choice),
            region=region,
        )

    def values(self, output: object) -> Tensor:
        """Return the values (B, *positions)."""
        tensor = values_in(output)
        if tensor is None or tensor.dim() < 2 or not tensor.is_floating_point():
            shape = type(output).__name__ if tensor is None else tuple(tensor.shape)
            raise TargetError(self.name, f"the model's output is {shape}, not a float tensor (B, ...).")
        axis = channel_axis(tensor, self.context.size)
        if axis is None:
            if self.channel:
                raise TargetError(
                    self.name, f"the output {tuple(tensor.shape)} has no channel axis, so only channel 0."
                )
            return tensor
        if self.channel is None:
            return tensor.squeeze(axis) if tensor.shape[axis] == 1 else tensor.norm(dim=axis)
        if not 0 <= self.channel < tensor.shape[axis]:
            raise TargetError(
                self.name, f"the output has {tensor.shape[axis]} channels, 0 to {tensor.shape[axis] - 1}."
            )
        return tensor.select(axis, self.channel)

    def describe(self, output: object) -> str:
        """Return what the score is the mean of, in words."""
        tensor = values_in(output)
        assert tensor is not None
        axis, shape = channel_axis(tensor, self.context.size), tuple(tensor.shape)
        if axis is not None and self.channel is None and shape[axis] > 1:
            return f"lengths of the vectors of {shape[axis]} numbers in the output {shape}"
        return f"output {shape}" if self.name == "value" else f"{self.name}, in the output {shape}"

    def find_region(self, values: Tensor) -> Tensor | None:
        """Return the selected positions (B, *positions) as bool; None for all."""
        if self.where is None:
            return None
        if values.dim() < 2:
            raise TargetError(
                self.name,
                "it needs an output with values at each position, such as depth (B, height, width), and this model's has one "
                "row of numbers per image; use 'value:0' or 'output:0'.",
            )
        if isinstance(self.where, str):
            flat = values.detach().flatten(1)
            region = torch.zeros_like(flat, dtype=torch.bool)
            region[torch.arange(len(flat)), flat.argmax(1)] = True
            return region.reshape(values.shape)
        # A region of a dense output with one class is found in the same way.
        finder = RegionScore(0, self.where, context=self.context)
        return finder.find_region(values[:, None], torch.zeros(len(values), dtype=torch.long), None)


@final
@dataclass(frozen=True, eq=False)
class OutputScore(Target):
    """One number of the output: the prediction of a regression, or the logit of a binary classifier.

    Args:
        index: Position in the output, from 0. A model with one number per image, `(B,)` or `(B, 1)`, has only 0.
        negative: True: the number times -1, so that the map shows evidence against it.

    Raises:
        TargetError: From `resolve`: the output has no such number.

    Example:
        >>> OutputScore().resolve(torch.tensor([0.5, -2.0]), None).scores
        tensor([ 0.5000, -2.0000])
    """

    index: int = 0
    negative: bool = False

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        scores = logits(output, f"output {self.index}")
        if not 0 <= self.index < scores.shape[1]:
            raise TargetError(
                f"output {self.index}",
                f"the model returns {scores.shape[1]} numbers per image, 0 to {scores.shape[1] - 1}.",
            )
        name = f"output {self.index}" if labels is None else class_name(self.index, labels)
        sign = "not " if self.negative else ""

        def rescore(other: object, images: Tensor) -> Tensor:
            value = logits(other)[:, self.index]
            return -value if self.negative else value

        own, notes = rescore(output, torch.arange(len(scores))), candidate_notes(output, find_scores(output))
        key = f"{sign}output {self.index}".replace(" ", "_")
        return ResolvedTarget(key, sign + name, own, rescore, target=self, notes=notes)


def values_in(output: object) -> Tensor | None:
    """Return the values of an output; one number per image (B,) as (B, 1)."""
    tensor = named_tensor(output, NAMED)
    return tensor[:, None] if tensor is not None and tensor.dim() == 1 else tensor


def channel_axis(tensor: Tensor, size: Sequence[int]) -> int | None:
    """Return the axis of the channels of an output; None if it has none.

    Outputs (B, D) and (B, K, *grid) have it second, outputs (B, *grid, K) last (`has_channels_last`). With three axes and
    for images, it is depth (B, height, width) if it has the aspect ratio of the input, else tokens (B, N, D).
    """
    if tensor.dim() != 3 or len(size) == 1:
        return tensor.dim() - 1 if has_channels_last(tensor.shape, size) else 1
    height, width = tensor.shape[1:]
    full = tuple(size) if len(size) == 2 else (1, 1)
    return None if height * full[1] == width * full[0] or len(size) != 2 else 2


def is_value_grid(output: object, size: Sequence[int]) -> bool:
    """Return True for an output with one value at each position of an image, as depth."""
    tensor = named_tensor(output, NAMED)
    return tensor is not None and has_values_only(output, size) and channel_axis(tensor, size) is None


def has_values_only(output: object, size: Sequence[int]) -> bool:
    """Return True for an image model's output with three axes, as depth or tokens, which cannot be class scores."""
    tensor = named_tensor(output, NAMED)
    is_values = tensor is not None and tensor.dim() == 3 and tensor.is_floating_point() and len(size) in (2, 3)
    return is_values and class_scores(output) is None
