"""What stands behind the question mark of a model's name, `?key=value&key=value`, and what it may say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl

from seewhy.errors import ModelError, UnknownName

FILE_OPTIONS = ("arch", "num_classes", "labels")
NAME_OPTIONS = ("pretrained", "num_classes", "labels")
CLIP_OPTIONS = ("pretrained", "labels")
FILE_EXAMPLE = "weights.pth?arch=timm/resnet18"


def parse(text: str) -> dict[str, str]:
    """
    >>> parse("arch=timm/resnet18&labels=a+b.txt")
    {'arch': 'timm/resnet18', 'labels': 'a+b.txt'}
    """
    # a plus sign in a file name is a plus sign, not a blank
    return dict(parse_qsl(text.replace("+", "%2B"), keep_blank_values=True))


def check_options(source: str, given: Mapping[str, str], known: Iterable[str]) -> None:
    known = tuple(known)
    for name in given:
        if name not in known:
            raise UnknownName("option", name, known, f"'{source}?' takes {', '.join(known)}.")


def yes_or_no(source: str, text: str) -> bool:
    """
    >>> yes_or_no("timm/resnet18", "False")
    False
    """
    if text.lower() not in ("true", "false"):
        raise ModelError(source, f"pretrained={text}: say pretrained=true or pretrained=false")
    return text.lower() == "true"


def whole_number(source: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ModelError(source, f"num_classes={text}: a number of classes is a whole number from 1 on")
    return int(text)


def check_head(uri: str, wanted: int, published: int) -> None:
    """Raise `ModelError` where published weights would get a head that nobody has trained."""
    if wanted != published:
        raise ModelError(
            uri,
            f"its published weights have {published} classes, and a head for {wanted} would be random; give the weights "
            f"that you trained ('weights.pth?arch={uri}&num_classes={wanted}'), or add pretrained=false for random ones",
        )


def given_labels(text: str) -> Sequence[str] | str:
    """Labels as they stand in a name: a file of them, or themselves with commas between.

    >>> given_labels("cat, dog"), given_labels("cat"), given_labels("names.txt")
    (['cat', 'dog'], ['cat'], 'names.txt')
    """
    if Path(text).expanduser().is_file() or ("," not in text and Path(text).suffix):
        return text
    return [label.strip() for label in text.split(",")]
