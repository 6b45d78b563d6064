"""Parse the targets of a user: an index, a name, "top5", "text:a red bus", a function, or a list of these."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from seewhy.errors import TargetError, UnknownName
from seewhy.targets.base import FunctionScore, Target
from seewhy.targets.boxes import BoxScore
from seewhy.targets.classes import ClassLogProbability, ClassProbability, ClassScore, Contrast, TopScore
from seewhy.targets.dense import RegionScore
from seewhy.targets.names import as_integer, as_number
from seewhy.targets.similarity import Similarity, TextScore
from seewhy.targets.values import OutputScore, ValueScore

OneTarget = int | np.integer[Any] | str | Target | Tensor | Callable[..., Tensor]  # a tensor: one index, shape ()
TargetSpec = OneTarget | Sequence[OneTarget] | None  # what `targets=` accepts

NUMBERS = re.compile(r"\s*-?\d+(\.\d+)?(\s*,\s*-?\d+(\.\d+)?)*\s*")
RANK = re.compile(r"top-?(\d{1,6})", re.IGNORECASE)


def as_targets(spec: TargetSpec, versus: TargetSpec = None) -> list[Target]:
    """Return the targets that a specification describes.

    A list contains targets, each of which is computed for every image: `[3, 9]` are two maps per image. One class per
    image is a single target: `ClassScore([3, 9])` is class 3 for the first image and class 9 for the second.

    Args:
        spec: None (the predicted class), a class index or name, "topK" (the K most likely classes, one target each), text
            of a kind in `KINDS` such as "region:bus", a `Target`, a function of the model's output, or a list of these.
        versus: Classes or targets to compare with; each target becomes a `Contrast` with their mean.

    Returns:
        One or more targets.

    Raises:
        TargetError: The specification cannot be read, or is ambiguous (a tensor or a list of several indices).
        UnknownName: The kind of a text is misspelled.

    Example:
        >>> as_targets(["top2", "text:a red bus"])
        [TopScore(rank=1), TopScore(rank=2), TextScore(text='a red bus')]
        >>> as_targets(3, versus=9)
        [Contrast(target=ClassScore(classes=3), against=[ClassScore(classes=9)])]
    """
    targets = parse_targets(spec)
    if versus is None:
        return targets
    against = parse_targets(versus)
    return [Contrast(target, against) for target in targets]


def parse_targets(spec: object) -> list[Target]:
    """Return the targets that a specification without `versus` describes."""
    if spec is None:
        return [TopScore(1)]
    if isinstance(spec, Target):
        return [spec]
    if isinstance(spec, str):
        return parse_text(spec)
    if (index := as_integer(spec)) is not None:
        return [ClassScore(index)]
    if isinstance(spec, (Tensor, np.ndarray)) and spec.ndim:
        raise ambiguous_classes(spec)
    if isinstance(spec, Sequence):
        if not spec:
            raise TargetError(spec, "the list is empty; omit it to explain the predicted class.")
        if any(isinstance(item, (Tensor, np.ndarray)) and item.ndim for item in spec) or any(map(is_list, spec)):
            raise ambiguous_classes(spec)
        return [target for item in spec for target in parse_targets(item)]
    if callable(spec):
        return [FunctionScore(spec)]
    raise TargetError(
        spec,
        "pass a class index, a class name, 'topK', a Target, a function of the output, or a list of these. For one class "
        "per image, ClassScore([3, 9]).",
    )


def is_list(item: object) -> bool:
    return isinstance(item, Sequence) and not isinstance(item, str)


def ambiguous_classes(spec: object) -> TargetError:
    """Return the error for several indices that may mean several targets, or one class per image."""
    return TargetError(
        spec,
        "ambiguous. For one class per image, pass ClassScore([3, 9]); for several targets, each computed for every image, "
        "pass one flat list: [3, 9].",
    )


def parse_rank(text: str) -> int | None:
    """Return K of "topK"; None for any other text. Raises TargetError for rank 0.

    >>> parse_rank("top5"), parse_rank("Top-2"), parse_rank("topaz")
    (5, 2, None)
    """
    match = RANK.fullmatch(text.strip())
    if match is None:
        return None
    if int(match[1]) == 0:
        raise TargetError(text, "ranks start at 1, as in top1 or top5.")
    return int(match[1])


def parse_text(text: str) -> list[Target]:
    """Return the targets that a text describes: "top5", "KIND:...", a class index or a class name."""
    stripped = text.strip()
    if (count := parse_rank(text)) is not None:
        return [TopScore(rank) for rank in range(1, count + 1)]
    if box := re.fullmatch(r"box\[(\w+)\]:(.+)", stripped):
        return [replace(parse_box(box[2]), decode=box[1])]
    word, colon, rest = stripped.partition(":")
    if colon and (kind := KINDS.get(word.strip().lower())):
        if not rest.strip():
            raise TargetError(text, f"nothing follows '{word.strip().lower()}:'; write for example {kind.example!r}.")
        return [kind.parse(rest.strip().strip("\"'"))]
    if re.fullmatch(r"\w+:\S.*", stripped):
        # Class names may contain a colon; only a text that resembles a kind of target is an error.
        misspelled = UnknownName("kind of target", word, KINDS)
        if misspelled.close_matches:
            example = KINDS[misspelled.close_matches[0]].example
            raise UnknownName("kind of target", word, KINDS, f"For example {example!r}.")
        return [ClassScore(text)]
    return [ClassScore(as_number(text))]


def parse_region(text: str) -> Target:
    return RegionScore(as_number(text))


def parse_point(text: str) -> Target:
    name, numbers = split_location(text, "point:bus@120,200")
    if len(numbers) not in (2, 3):
        raise TargetError(text, "a point is x,y after the '@', as in 'point:bus@120,200'.")
    return RegionScore(as_number(name), where=tuple(numbers))


def parse_box(text: str) -> BoxScore:
    name, numbers = split_location(text if "@" in text else f"@{text}", "box:person@10,20,110,220")
    if len(numbers) != 4:
        raise TargetError(text, "a box is left,top,right,bottom after the '@', as in 'box:person@10,20,110,220'.")
    left, top, right, bottom = numbers
    return BoxScore((left, top, right, bottom), as_number(name) if name else None)


def split_location(text: str, example: str) -> tuple[str, list[float]]:
    """Split "NAME@NUMBERS" into the name and the numbers."""
    name, at, numbers = text.rpartition("@")
    if not at or not NUMBERS.fullmatch(numbers):
        raise TargetError(text, f"give the location in photo pixels, for example {example!r}.")
    return name.strip(), [float(value) for value in numbers.split(",")]


def parse_output(text: str) -> Target:
    number = as_number(text)
    if isinstance(number, str) or number < 0:
        raise TargetError(text, "outputs are counted from 0: 'output:0'.")
    return OutputScore(number)


def parse_value(text: str, where: Literal["peak"] | None = None) -> Target:
    """Return the target of "mean", a channel, or either with "@x,y"."""
    name, place = text, where
    if "@" in text:
        name, numbers = split_location(text, "value:0@120,200")
        if len(numbers) not in (2, 3) or where:
            raise TargetError(text, "a value has one place: 'value:0', 'value:0@120,200' or 'peak:0'.")
        return ValueScore(parse_channel(name), tuple(numbers))
    return ValueScore(parse_channel(name), place)


def parse_channel(text: str) -> int | None:
    if text.strip().lower() in ("mean", ""):
        return None
    number = as_number(text)
    if isinstance(number, str) or number < 0:
        raise TargetError(text, "pass a channel, counted from 0, or 'mean': 'value:0', 'value:mean'.")
    return number


@dataclass(frozen=True)
class Kind:
    """A kind of target as text: how to parse the part after the colon, and an example."""

    parse: Callable[[str], Target]
    example: str


KINDS = {
    "probability": Kind(lambda text: ClassProbability(as_number(text)), "probability:minibus"),
    "logprobability": Kind(lambda text: ClassLogProbability(as_number(text)), "logprobability:minibus"),
    "output": Kind(parse_output, "output:0"),
    "value": Kind(parse_value, "value:0"),
    "peak": Kind(lambda text: parse_value(text, "peak"), "peak:0"),
    "region": Kind(parse_region, "region:bus"),
    "point": Kind(parse_point, "point:bus@120,200"),
    "box": Kind(parse_box, "box:person@10,20,110,220"),
    "text": Kind(TextScore, "text:a red bus"),
    "like": Kind(Similarity, "like:other.jpg"),
}
