"""Options in a model URI, `?key=value&key=value`: parsing and validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from seewhy.errors import ModelError, UnknownName

FILE_OPTIONS = ("arch", "num_classes", "labels")
NAME_OPTIONS = ("pretrained", "num_classes", "labels")
CLIP_OPTIONS = ("pretrained", "labels")
EMBEDDED_OPTIONS = ("labels",)
PROGRAM_OPTIONS = ("labels",)
FILE_EXAMPLE = "weights.pth?arch=timm/resnet18"


def parse_options(text: str) -> dict[str, str]:
    """
    >>> parse_options("arch=timm/resnet18&labels=a+b.txt")
    {'arch': 'timm/resnet18', 'labels': 'a+b.txt'}
    """
    # parse_qsl decodes "+" as a space, but "+" is legal in file names.
    return dict(parse_qsl(text.replace("+", "%2B"), keep_blank_values=True))


def check_options(source: str, options: Mapping[str, str], valid: Iterable[str]) -> None:
    valid = tuple(valid)
    for name in options:
        if name not in valid:
            raise UnknownName("option", name, valid, f"'{source}?' takes {', '.join(valid)}.")


def parse_boolean(source: str, text: str) -> bool:
    """
    >>> parse_boolean("timm/resnet18", "False")
    False
    """
    if text.lower() not in ("true", "false"):
        raise ModelError(source, f"pretrained={text}: use pretrained=true or pretrained=false")
    return text.lower() == "true"


def parse_num_classes(source: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise ModelError(source, f"num_classes={text[:20]}: must be an integer of at least 1, with at most 9 digits")
    return int(text)


def check_num_classes(uri: str, requested: int, published: int) -> None:
    """Raise `ModelError` if published weights would get a head that is not trained."""
    if requested != published:
        raise ModelError(
            uri,
            f"its published weights have {published} classes, and a head for {requested} would be random; pass the "
            f"weights that you trained ('weights.pth?arch={uri}&num_classes={requested}'), or add pretrained=false for "
            "random weights",
        )
