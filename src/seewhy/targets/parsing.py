"""Targets from what a user may write: an index, a name, "top5", "text:a red bus", a function, or a list of these."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

from torch import Tensor

from seewhy.errors import TargetError, UnknownName
from seewhy.targets.base import FunctionScore, Target
from seewhy.targets.boxes import BoxScore
from seewhy.targets.classes import ClassLogProbability, ClassProbability, ClassScore, Contrast, OutputScore, TopScore
from seewhy.targets.dense import RegionScore
from seewhy.targets.names import as_number
from seewhy.targets.similarity import Similarity, TextScore

OneTarget = int | str | Target | Tensor | Callable[..., Tensor]
TargetSpec = OneTarget | Sequence[OneTarget] | None  # what `targets=` accepts

NUMBERS = re.compile(r"\s*-?\d+(\.\d+)?(\s*,\s*-?\d+(\.\d+)?)*\s*")


def as_targets(spec: Any, versus: Any = None) -> list[Target]:
    """Targets from what a user may write: None (the predicted class), index, name, text (see `KINDS`), tensor, callable,
    or a list. `versus` turns each into a contrast with these classes.

    A list of targets is a list of questions, each asked of every picture. One class for each picture is *one* question:
    `ClassScore(tensor)`.

    >>> as_targets(["top2", "text:a red bus"])
    [TopScore(rank=1), TopScore(rank=2), TextScore(text='a red bus')]
    """
    found = read(spec)
    if versus is None:
        return found
    against = read(versus)
    return [Contrast(target, against) for target in found]


def read(spec: Any) -> list[Target]:
    match spec:
        case None:
            return [TopScore(1)]
        case Target():
            return [spec]
        case str() if top := re.fullmatch(r"top-?(\d{1,6})", spec.strip().lower()):
            if top[1].strip("0") == "":
                raise TargetError(spec, "ranks start at 1: top1, top5.")
            return [TopScore(rank) for rank in range(1, int(top[1]) + 1)]
        case str() if box := re.fullmatch(r"box\[(\w+)\]:(.+)", spec.strip()):
            return [replace(read_box(box[2]), decode=box[1])]
        case str() if (kind := spec.partition(":")[0].strip().lower()) in KINDS and ":" in spec:
            rest = spec.partition(":")[2].strip()
            if not rest:
                raise TargetError(spec, f"say what after '{kind}:', as in {KINDS[kind][1]!r}.")
            return [KINDS[kind][0](rest.strip("\"'"))]
        case str() if misspelt := re.fullmatch(r"(\w+):\S.*", spec.strip()):
            # a class may have a colon in its name, but none of ours begins like a misspelt kind
            if close := UnknownName("kind of target", misspelt[1], KINDS).close_matches:
                raise UnknownName("kind of target", misspelt[1], KINDS, f"Such as {KINDS[close[0]][1]!r}.")
            return [ClassScore(spec)]
        case str() | bool():
            return [ClassScore(as_number(spec))]
        case Integral():  # NumPy's too
            return [ClassScore(int(spec))]
        case Tensor():
            raise TargetError(
                spec, "for one class for each picture say ClassScore(tensor); for several questions, a list."
            )
        case Sequence():
            if not spec:
                raise TargetError(spec, "an empty list asks nothing; leave it out for the predicted class.")
            return [target for item in spec for target in read(item)]
        case _ if callable(spec):
            return [FunctionScore(spec)]
    raise TargetError(spec, "a target is a class index, a class name, 'topK', a Target or a function of the output.")


def read_region(text: str) -> Target:
    return RegionScore(as_number(text))


def read_point(text: str) -> Target:
    name, points = split_place(text, "point:bus@120,200")
    if len(points) not in (2, 3):
        raise TargetError(text, "a point is x,y after the '@', as in 'point:bus@120,200'.")
    return RegionScore(as_number(name), where=tuple(points))


def read_box(text: str) -> BoxScore:
    name, numbers = split_place(text if "@" in text else f"@{text}", "box:person@10,20,110,220")
    if len(numbers) != 4:
        raise TargetError(text, "a box is left,top,right,bottom after the '@', as in 'box:person@10,20,110,220'.")
    left, top, right, bottom = numbers
    return BoxScore((left, top, right, bottom), as_number(name) if name else None)


def split_place(text: str, example: str) -> tuple[str, list[float]]:
    name, at, place = text.rpartition("@")
    if not at or not NUMBERS.fullmatch(place):
        raise TargetError(text, f"say the place in the photo's pixels, as in {example!r}.")
    return name.strip(), [float(value) for value in place.split(",")]


def read_output(text: str) -> Target:
    number = as_number(text)
    if isinstance(number, str):
        raise TargetError(text, "outputs are counted from 0: 'output:0'.")
    return OutputScore(number)


# kind -> how to read what stands after the colon, and an example
KINDS: dict[str, tuple[Callable[[str], Target], str]] = {
    "probability": (lambda text: ClassProbability(as_number(text)), "probability:minibus"),
    "logprobability": (lambda text: ClassLogProbability(as_number(text)), "logprobability:minibus"),
    "output": (read_output, "output:0"),
    "region": (read_region, "region:bus"),
    "point": (read_point, "point:bus@120,200"),
    "box": (read_box, "box:person@10,20,110,220"),
    "text": (TextScore, "text:a red bus"),
    "like": (Similarity, "like:other.jpg"),
}
