"""Validation of requests: a value is on one of the server's lists, or a number in a range. There is no path, URL or setting."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, cast, get_args

from seewhy.engine.options import Fit
from seewhy.errors import UnknownName, UsageError
from seewhy.images.samples import SAMPLES
from seewhy.methods.catalog import find_method
from seewhy.models.loaded_model import LoadedModel
from seewhy.targets.names import as_number, find_class
from seewhy.trust.covering.photo_cover import Shape, check_filler

LAYERS = ("every", "blocks", "stages", "suggested")
MAX_CLASSES, MAX_METHODS, MAX_NAME_LENGTH = 10, 8, 120


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """The valid part of a request that all endpoints share.

    `model` is the index of the model, `name` is the file name to display, or the name of the sample if `is_sample`.
    """

    model: int
    fit: Fit | None
    name: str
    is_sample: bool


@dataclass(frozen=True, kw_only=True)
class ExplainRequest(ImageRequest):
    """A valid request to explain one image. `layers` is one of `LAYERS`."""

    methods: tuple[str, ...]
    targets: tuple[str, ...]
    layers: str


@dataclass(frozen=True, kw_only=True)
class CoverRequest(ImageRequest):
    """A valid request to cover parts of one image."""

    filler: str
    shapes: tuple[Shape, ...] = ()


class ImageFields(TypedDict):
    """The fields of an `ImageRequest`."""

    model: int
    fit: Fit | None
    name: str
    is_sample: bool


def parse_image_fields(query: Mapping[str, str], models: Sequence[LoadedModel]) -> ImageFields:
    """Parse `model`, an index, `fit`, and `name` or `sample`."""
    sample = query.get("sample", "")
    if sample and sample not in SAMPLES:
        raise UnknownName("sample", sample[:MAX_NAME_LENGTH], SAMPLES)
    return {
        "model": parse_integer("model", query.get("model", "0"), len(models) - 1),
        "fit": cast("Fit", check_choice("fit", query["fit"], get_args(Fit))) if query.get("fit") else None,
        "name": sample or clean_file_name(query.get("name", "")),
        "is_sample": bool(sample),
    }


def parse_request(query: Mapping[str, str], models: Sequence[LoadedModel]) -> ExplainRequest:
    """Parse the query of a request to explain. Raises UsageError for a value that is not on the lists.

    `methods` are comma-separated names, `top` is a number of most likely classes, `classes` are names or indices, one per line.
    """
    fields = parse_image_fields(query, models)
    names = [name for name in query.get("methods", "gradcam").split(",") if name.strip()]
    if not 0 < len(names) <= MAX_METHODS:  # before the lookup, which takes time per name
        raise UsageError(f"{len(names)} methods: choose 1 to {MAX_METHODS}.")
    return ExplainRequest(
        **fields,
        methods=tuple(dict.fromkeys(find_method(name).name for name in names)),
        targets=parse_classes(query.get("top", "1"), query.get("classes", ""), models[fields["model"]]),
        layers=check_choice("layers", query.get("layers", LAYERS[0]), LAYERS),
    )


def parse_cover_request(query: Mapping[str, str], models: Sequence[LoadedModel]) -> CoverRequest:
    """Parse the query of a request to cover parts of an image; `filler` is "blur", "mean" or a color. Raises UsageError."""
    filler = query.get("filler", "blur")
    check_filler(filler)
    return CoverRequest(**parse_image_fields(query, models), filler=filler)


def parse_classes(top: str, classes: str, model: LoadedModel) -> tuple[str, ...]:
    """Return the most likely classes and the listed classes as targets. Only names of the model's classes are accepted."""
    count = parse_integer("top", top, MAX_CLASSES)
    lines = [line.strip()[:MAX_NAME_LENGTH] for line in classes.splitlines() if line.strip()]
    if not 0 < count + len(lines) <= MAX_CLASSES:
        raise UsageError(f"{count + len(lines)} classes: choose 1 to {MAX_CLASSES}.")
    targets = [f"top{count}"] if count else []
    for choice in map(as_number, lines):
        if isinstance(choice, str) and model.labels is None:
            raise UsageError("this model has no class names; use class indices.")
        targets.append(str(choice if model.labels is None else find_class(choice, model.labels, len(model.labels))))
    return tuple(targets)


def parse_integer(name: str, text: str, maximum: int) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) > maximum:
        raise UsageError(f"{name}={text[:20]!r}: expected an integer from 0 to {maximum}.")
    return int(text)


def check_choice(name: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise UnknownName(name, text[:MAX_NAME_LENGTH], choices, hint=f"Choices: {', '.join(choices)}.")
    return text


def clean_file_name(path: str) -> str:
    """Return the last part of a path for display, without control characters and text direction marks.

    >>> clean_file_name("../../etc/pass\\twd"), clean_file_name("")
    ('passwd', 'image')
    """
    last = re.split(r"[\\/]", path)[-1]
    return "".join(sign for sign in last if sign.isprintable())[:MAX_NAME_LENGTH].strip() or "image"
