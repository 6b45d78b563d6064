"""What an explanation is made of, beside its maps: pictures, answers, layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy import storage
from seewhy.images.view import View
from seewhy.rendering import overlays as render
from seewhy.targets import class_name


@dataclass(frozen=True, eq=False)
class InputImage:
    """A picture as it was given: its `source` in words, its upright `photo` (H0, W0, 3) uint8, and what the network saw."""

    source: str
    photo: NDArray[np.uint8]
    view: View

    def scaled(self, longest: int | None) -> tuple[Image.Image, render.Box]:
        """The photo at drawing size, with what the network did not see dimmed, and the box that it saw; made once a size."""
        cache: dict[int | None, tuple[Image.Image, render.Box]] = self.__dict__.setdefault("_scaled", {})
        if longest not in cache:
            cache[longest] = render.scaled_photo(self.photo, self.view, longest)
        return cache[longest]


@dataclass(frozen=True, eq=False)
class TargetResult:
    """What one target found: `scores` (B,), the `classes` (B,) it meant and their `probabilities` (B,) where it is a class."""

    key: str
    name: str
    scores: Tensor
    classes: Tensor | None = None
    probabilities: Tensor | None = None

    def picture(self, index: int, labels: Sequence[str] | None) -> TargetResult:
        """The answer for one picture of the batch, with its own class as key and name."""
        at = slice(index, index + 1)
        if self.classes is None:
            return TargetResult(self.key, self.name, self.scores[at])
        known = int(self.classes[index])
        chances = None if self.probabilities is None else self.probabilities[at]
        return TargetResult(str(known), class_name(known, labels), self.scores[at], self.classes[at], chances)

    def to_dict(self) -> dict[str, Any]:
        """One picture's answer for JSON."""
        return {
            "key": self.key,
            "name": self.name,
            "class": None if self.classes is None else int(self.classes[0]),
            "score": storage.number(self.scores[0]),
            "probability": None if self.probabilities is None else storage.number(self.probabilities[0]),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        def tensor(value: Any) -> Tensor | None:
            return None if value is None else torch.tensor([value])

        classes, chances = tensor(data["class"]), tensor(data["probability"])
        score = math.nan if data["score"] is None else data["score"]  # JSON has no such number
        return cls(data["key"], data["name"], torch.tensor([score]), classes, chances)


def non_finite_notes(target_results: Sequence[TargetResult]) -> list[str]:
    """A note for each answer of one picture whose score or probability is not a finite number."""
    odd = [
        answer.name
        for answer in target_results
        if not all(
            values[:1].isfinite().all() for values in (answer.scores, answer.probabilities) if values is not None
        )
    ]
    return [f"the score of {name} or its probability is not a finite number: its maps say nothing" for name in odd]


@dataclass(frozen=True)
class LayerInfo:
    """A layer as it was watched: class of its module, `grid`, `channels`, and a `note` where something was inferred.

    `requested` is False for the suggested layer if it was added without being selected.
    """

    kind: str
    grid: tuple[int, ...]
    channels: int
    note: str = ""
    requested: bool = True


@dataclass(frozen=True, eq=False)
class ChannelFeatures:
    """The strongest channels of a layer: their indices (B, N), and what they show (B, N, *grid), strongest first.

    Strongest are those that vary most over the picture (the standard deviation over the grid): a channel that is high
    everywhere shows nothing.
    """

    channels: Tensor
    maps: Tensor

    @classmethod
    def strongest(cls, activations: Tensor, count: int) -> Self:
        """Of activations (B, K, *grid) the `count` strongest channels, or all where there are fewer."""
        strength = activations.flatten(2).std(2, correction=0)
        channels = strength.topk(min(count, strength.shape[1]), dim=1).indices
        rows = torch.arange(len(channels), device=channels.device)[:, None]
        return cls(channels, activations[rows, channels].detach().clone())

    def picture(self, at: slice) -> ChannelFeatures:
        """Those of one picture of the batch."""
        return ChannelFeatures(self.channels[at], self.maps[at])
