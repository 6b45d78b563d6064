"""The values in an explanation other than its maps: input images, target results, layer properties, channel features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy import storage
from seewhy.images.view import View
from seewhy.places.parts import Part
from seewhy.places.region import Region
from seewhy.targets import Target
from seewhy.targets.names import class_name

NETWORK = "network"  # the layer name of maps that belong to the entire model


@dataclass(frozen=True, eq=False)
class InputImage:
    """An image that was explained: its `source` (path or description), its upright pixels and the part the model received."""

    source: str
    photo: NDArray[np.uint8]  # (H0, W0, 3)
    view: View


@dataclass(frozen=True, eq=False)
class TargetResult:
    """The value of one target.

    `scores` are (B,). For targets that are a class, `classes` (B,) and their `probabilities` (B,). `requested` are the
    targets that the user passed for it; in a loaded explanation their `repr`. `for_comparison` is True for a class that was
    explained in addition to the requested target, so that the page can compare the two.
    """

    key: str
    name: str
    scores: Tensor
    classes: Tensor | None = None
    probabilities: Tensor | None = None
    requested: tuple[Target | str, ...] = ()
    for_comparison: bool = False

    def for_image(self, index: int, labels: Sequence[str] | None) -> TargetResult:
        """Return the result of one image of the batch. A class target gets the image's own class as key and name."""
        at = slice(index, index + 1)
        if self.classes is None:
            return dataclasses.replace(self, scores=self.scores[at])
        index_of_class = int(self.classes[index])
        chances = None if self.probabilities is None else self.probabilities[at]
        name = class_name(index_of_class, labels)
        return dataclasses.replace(
            self,
            key=str(index_of_class),
            name=name,
            scores=self.scores[at],
            classes=self.classes[at],
            probabilities=chances,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result of one image as JSON."""
        return {
            "key": self.key,
            "name": self.name,
            "class": None if self.classes is None else int(self.classes[0]),
            "score": storage.finite_or_none(self.scores[0]),
            "probability": None if self.probabilities is None else storage.finite_or_none(self.probabilities[0]),
            **({"for_comparison": True} if self.for_comparison else {}),
        }


def merge_results(results: Sequence[TargetResult]) -> tuple[TargetResult, ...]:
    """Keep one result per key: for a single image, "top1" and its class may be the same target."""
    merged: dict[str, TargetResult] = {}
    for result in results:
        first = merged.get(result.key)
        requested = (*(first.requested if first else ()), *result.requested)
        merged[result.key] = dataclasses.replace(result, requested=requested)
    return tuple(merged.values())


def non_finite_notes(results: Sequence[TargetResult]) -> list[str]:
    """Return a note for each target of one image whose score or probability is not finite."""
    names = [
        result.name
        for result in results
        if not all(
            values[:1].isfinite().all() for values in (result.scores, result.probabilities) if values is not None
        )
    ]
    return [
        f"the score of {name} or its probability is not a finite number: its maps are not reliable" for name in names
    ]


@dataclass(frozen=True)
class LayerInfo:
    """A layer as it was recorded.

    Attributes:
        kind: The class name of its module.
        grid: The lengths of the axes of its maps. With `parts`, the first one is their number.
        channels: Number of channels.
        note: What was inferred, or "".
        requested: False for the suggested layer if it was added without being selected.
        parts: For a layer with several rows per input: the frames, patches or crops of the input that the rows are.
        region: The region of the input that the maps cover, if the network crops, pads, resizes, mirrors or transposes
            its input. Otherwise None.
    """

    kind: str
    grid: tuple[int, ...]
    channels: int
    note: str = ""
    requested: bool = True
    parts: tuple[Part, ...] = ()
    region: Region | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the layer for the JSON record, with its parts or its region if it has any."""
        data = dataclasses.asdict(self)
        return {name: value for name, value in data.items() if value or name not in ("parts", "region")}


@dataclass(frozen=True, eq=False)
class ChannelFeatures:
    """The strongest channels of a layer, strongest first: their indices (B, N) and activations (B, N, *grid).

    Strength is the standard deviation over the grid: a channel that is high everywhere shows no structure.
    """

    channels: Tensor
    maps: Tensor

    @classmethod
    def strongest(cls, activations: Tensor, count: int) -> Self:
        """Return the `count` strongest channels of activations (B, K, *grid), or all if there are fewer."""
        strength = activations.flatten(2).std(2, correction=0)
        channels = strength.topk(min(count, strength.shape[1]), dim=1).indices
        rows = torch.arange(len(channels), device=channels.device)[:, None]
        return cls(channels, activations[rows, channels].detach().clone())

    def for_image(self, at: slice) -> ChannelFeatures:
        """Return the features of one image of the batch."""
        return ChannelFeatures(self.channels[at], self.maps[at])
