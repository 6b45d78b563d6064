"""What a browser may ask: choices from the server's own lists. No path, no address and no setting comes from there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from seewhy.errors import UnknownName, UsageError
from seewhy.images.samples import SAMPLES
from seewhy.methods.catalog import find_method
from seewhy.models.loaded import LoadedModel
from seewhy.targets import as_number, find_class

Fit = Literal["crop", "squash", "pad"]
LAYERS = ("every", "blocks", "stages", "suggested")
MOST_CLASSES, MOST_METHODS, LONGEST_NAME = 10, 8, 120


@dataclass(frozen=True)
class Question:
    """One picture's question: the number of the `model`, names of `methods`, `targets` as `explain` takes them, one of
    `LAYERS`, how the photo meets the input, the picture's `name` as it is shown, and whether it is a `sample`."""

    model: int
    methods: tuple[str, ...]
    targets: tuple[str, ...]
    layers: str
    fit: Fit | None
    name: str
    sample: bool


def read_question(given: Mapping[str, str], models: Sequence[LoadedModel]) -> Question:
    """A question from the words of a request. Raises UsageError for what is not on the lists.

    `model` is a number, `methods` are names with commas, `top` is how many of the likeliest classes, `classes` are names or
    indices, one a line.
    """
    number = whole("model", given.get("model", "0"), len(models) - 1)
    model = models[number]
    names = [name for name in given.get("methods", "gradcam").split(",") if name.strip()]
    if not 0 < len(names) <= MOST_METHODS:  # counted first: looking many up would take its time
        raise UsageError(f"{len(names)} methods: choose 1 to {MOST_METHODS}.")
    methods = tuple(dict.fromkeys(find_method(name).name for name in names))
    sample = given.get("sample", "")
    if sample and sample not in SAMPLES:
        raise UnknownName("sample", sample[:LONGEST_NAME], SAMPLES)
    return Question(
        model=number,
        methods=methods,
        targets=read_classes(given.get("top", "1"), given.get("classes", ""), model),
        layers=listed("layers", given.get("layers", LAYERS[0]), LAYERS),
        fit=cast("Fit", listed("fit", given["fit"], get_args(Fit))) if given.get("fit") else None,
        name=sample or shown_name(given.get("name", "")),
        sample=bool(sample),
    )


def read_classes(top: str, classes: str, model: LoadedModel) -> tuple[str, ...]:
    """The likeliest classes and those named, as targets. Names must be the model's own: nothing else is looked up."""
    count = whole("top", top, MOST_CLASSES)
    lines = [line.strip()[:LONGEST_NAME] for line in classes.splitlines() if line.strip()]
    if not 0 < count + len(lines) <= MOST_CLASSES:
        raise UsageError(f"{count + len(lines)} classes: choose 1 to {MOST_CLASSES}.")
    targets = [f"top{count}"] if count else []
    for known in map(as_number, lines):
        if isinstance(known, str) and model.labels is None:
            raise UsageError("this model brings no class names; give indices.")
        targets.append(str(known if model.labels is None else find_class(known, model.labels, len(model.labels))))
    return tuple(targets)


def whole(what: str, given: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,4}", given) or int(given) > most:
        raise UsageError(f"{what}={given[:20]!r}: give a number from 0 to {most}.")
    return int(given)


def listed(what: str, given: str, choices: Sequence[str]) -> str:
    if given not in choices:
        raise UnknownName(what, given[:LONGEST_NAME], choices, hint=f"There are {', '.join(choices)}.")
    return given


def shown_name(given: str) -> str:
    """A file's name for people: its last part, without signs that cannot be seen or that turn the text around.

    >>> shown_name("../../etc/pass\\twd"), shown_name("")
    ('passwd', 'picture')
    """
    last = re.split(r"[\\/]", given)[-1]
    return "".join(sign for sign in last if sign.isprintable())[:LONGEST_NAME].strip() or "picture"
