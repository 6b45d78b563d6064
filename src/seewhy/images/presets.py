"""Formats of other libraries' preprocessing settings, for `Preprocess.from_timm` and `Preprocess.from_torchvision`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypedDict

from seewhy.errors import UsageError
from seewhy.images.resizing import Rule

# timm's crop modes, and the rule for the resized size that each follows
TIMM_CROP_MODES: dict[str, Rule] = {"center": "cover", "squash": "exact", "border": "contain"}

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TimmConfig(TypedDict, total=False):
    """The keys of timm's data config that `Preprocess.from_timm` reads; only `input_size` is required."""

    input_size: tuple[int, int, int]
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: str
    crop_pct: float
    crop_mode: str


class ClassificationPreset(Protocol):
    """The attributes of torchvision's `ImageClassification` transforms."""

    crop_size: Sequence[int]
    resize_size: Sequence[int]
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: Any


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return one number per channel; a single number is repeated."""
    numbers = tuple(float(value) for value in values)
    numbers = numbers * channels if len(numbers) == 1 else numbers
    if len(numbers) != channels:
        raise UsageError(f"mean or std has {len(numbers)} numbers for {channels} channels; give one per channel")
    return numbers
