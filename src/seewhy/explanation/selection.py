"""What of an explanation is meant: one map by method, target and layer, or one picture of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seewhy.errors import ChoiceError, UnknownName
from seewhy.targets import class_index

if TYPE_CHECKING:
    from seewhy.explanation.result import Explanation

MapKey = tuple[str, str, str]  # method, target, layer


def find_key(e: Explanation, method: str | None, target: str | int | None, layer: str | None) -> MapKey:
    """The key of one map; what is left out must have one value only."""
    method = choose("method", method, e.methods)
    return (
        method,
        choose("target", target_key(e, target), e.targets),
        choose("layer", layer, e.layers_of(method)),
    )


def target_key(e: Explanation, target: str | int | None) -> str | None:
    """The key of a target that was named by its key, its class's name or index, or a synonym."""
    if target is None or str(target) in e.targets:
        return None if target is None else str(target)
    for answer in e.target_results:
        if answer.name == target:
            return answer.key
    if e.labels is not None and not str(target).lstrip("-").isdecimal():
        index = str(class_index(str(target), e.labels, len(e.labels)))
        return index if index in e.targets else str(target)
    return str(target)


def choose(kind: str, given: str | None, choices: Sequence[str], of: str = "explanation") -> str:
    """`given`, or the only choice there is. Raises ChoiceError where there are several, UnknownName where it is none."""
    if given is None:
        if len(choices) == 1:
            return choices[0]
        raise ChoiceError(
            f"{len(choices)} {kind}s, so say which: {kind}={choices[0]!r} or {', '.join(choices[1:])}.", choices
        )
    if given not in choices:
        raise UnknownName(kind, given, choices, hint=f"This {of} has {', '.join(choices)}.")
    return given


def fields_of(e: Explanation, index: int) -> dict[str, Any]:
    """The fields that differ in the explanation of picture `index` alone."""
    at = slice(index, index + 1)
    target_results = [answer.picture(index, e.labels) for answer in e.target_results]
    keys = {answer.key: new.key for answer, new in zip(e.target_results, target_results, strict=True)}
    return {
        "maps": {(method, keys[target], layer): maps[at] for (method, target, layer), maps in e.maps.items()},
        "has_gradient": {(keys[target], layer): which[at] for (target, layer), which in e.has_gradient.items()},
        "target_results": tuple(
            {answer.key: answer for answer in target_results}.values()
        ),  # 654 may be a picture's top1 as well
        "logits": None if e.logits is None else e.logits[at],
        "inputs": None if e.inputs is None else e.inputs[at],
        "images": None if e.images is None else e.images[at],
        "channel_features": {layer: features.picture(at) for layer, features in e.channel_features.items()},
        "single": True,
    }


def counted(word: str, names: Sequence[str]) -> str:
    """One name is said as such ("layer conv1"), of several only how many ("7 layers")."""
    return f"{word} {names[0]}" if len(names) == 1 else f"{len(names)} {word}s"
