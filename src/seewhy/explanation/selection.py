"""Select one map of an explanation, or one image of its batch, by the same values that `explain` accepts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import Tensor, nn

from seewhy.errors import ChoiceError, UnknownName, UsageError
from seewhy.explanation.components import merge_results
from seewhy.explanation.data import ExplanationData, MapKey, most_likely
from seewhy.explanation.target_matching import is_contrast_of, is_requested
from seewhy.methods.base import AnyMethod
from seewhy.methods.parsing import as_methods
from seewhy.targets import ClassScore, Target, TopScore, as_targets
from seewhy.targets.names import as_integer, class_index
from seewhy.targets.parsing import parse_rank

MethodChoice = str | AnyMethod | None  # None: the only one
TargetChoice = str | int | np.integer[Any] | Tensor | Target | Callable[[Any], Tensor] | None
LayerChoice = str | int | nn.Module | type[nn.Module] | None


def find_key(e: ExplanationData, method: MethodChoice, target: TargetChoice, layer: LayerChoice) -> MapKey:
    """Return the key of one map. None selects the only method, requested target, or layer of the explanation."""
    name = find_method_name(e, method)
    key = choose("target", None, e.main_targets) if target is None else find_target_key(e, target)
    return name, key, find_layer(layers_of(e, name), e, layer)


def choose(kind: str, name: str | None, choices: Sequence[str], of: str = "explanation") -> str:
    """Return `name`, or the only choice if it is None. Raises ChoiceError or UnknownName."""
    if name is None:
        return only(kind, choices)
    if name not in choices:
        raise UnknownName(kind, name, choices, hint=f"This {of} has {', '.join(choices)}.")
    return name


def only(kind: str, choices: Sequence[str], text: str = "") -> str:
    """Return the only choice. Raises ChoiceError if there are several; `text` is what the user passed."""
    if len(choices) == 1:
        return choices[0]
    subject = f"{text!r} matches {len(choices)} {kind}s" if text else f"{len(choices)} {kind}s"
    raise ChoiceError(f"{subject}: choose one, {kind}={choices[0]!r} or {', '.join(choices[1:])}.", choices)


def match_text(kind: str, names: Sequence[str], text: str | int | None, of: str) -> str:
    """Return the name that equals `text`: exactly if possible, otherwise ignoring case."""
    if text is None or text in names:
        return choose(kind, None if text is None else str(text), names, of)
    folded = [name for name in names if name.casefold() == str(text).strip().casefold()]
    return folded[0] if folded else choose(kind, str(text), names, of)


# Methods


def layers_of(e: ExplanationData, method: MethodChoice) -> tuple[str, ...]:
    """Return the layers at which a method has maps, in execution order."""
    own = find_method_name(e, method)
    names = {layer for name, _, layer in e.maps if name == own}
    return tuple(layer for layer in e.layers if layer in names)


def available_layer(e: ExplanationData, method: str, layer: str) -> str:
    """Return `layer`, or the last layer at which the method has a map."""
    names = layers_of(e, method)
    return layer if layer in names else names[-1]


def find_method_name(e: ExplanationData, method: MethodChoice) -> str:
    """Return the name under which a method's maps are stored."""
    return match_method(e.methods, method)


def match_method(names: Sequence[str], method: MethodChoice, of: str = "explanation") -> str:
    """Return the one of `names` that `method` matches. Raises ChoiceError or UnknownName.

    A name matches if it has the settings that were passed, so "scorecam" also selects "scorecam(batch_size=64)" if that
    is the only Score-CAM. A method with several maps matches each of them.
    """
    if method is None or (isinstance(method, str) and method in names):
        return choose("method", method, names, of)
    text, number = str(method), ""
    if isinstance(method, str):
        text, mark, number = method.partition("#")
        number = mark + number
    try:
        passed = as_methods(text if isinstance(method, str) else method)
    except UnknownName:
        passed = {}
    exact = [name for name in names if name.partition("#")[0] in passed]
    matches = exact or [name for name in names if any(is_refinement(name, one) for one in passed.values())]
    matches = [name for name in matches if not number or name.endswith(number)]
    if not matches:
        folded = [name for name in names if name.casefold() == str(method).strip().casefold()]
        return folded[0] if folded else choose("method", str(method), names, of)
    return only("method", matches, str(method))


def is_refinement(stored: str, passed: AnyMethod) -> bool:
    """Return True if the stored method is of the same class and has all settings that were passed."""
    try:
        (method,) = as_methods(stored.partition("#")[0]).values()
    except (UsageError, ValueError):  # a method of the user, which is not in the catalog
        return False
    return includes_settings(method, passed)


def includes_settings(method: AnyMethod, passed: AnyMethod) -> bool:
    """Return True if `method`, including its base method, has every non-default setting of `passed`."""
    if type(method) is not type(passed):
        return False
    for item in dataclasses.fields(passed):
        stored, value = getattr(method, item.name), getattr(passed, item.name)
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if value in (stored, default):
            continue
        if not (dataclasses.is_dataclass(value) and dataclasses.is_dataclass(stored)):
            return False
        if not includes_settings(stored, value):  # type: ignore[arg-type]
            return False
    return True


# Layers


def find_layer(names: Sequence[str], e: ExplanationData, layer: LayerChoice) -> str:
    """Return the name under which a layer's map is stored, among `names`."""
    if layer is None:
        return choose("layer", None, names)
    text = layer_text(layer)
    if text == "suggested" and e.suggested in names:
        return str(e.suggested)
    matches = match_layers(names, layer, e.selected_layers)
    return only("layer", matches, text) if matches else choose("layer", text, names)


def match_layers(
    names: Sequence[str], layer: LayerChoice, selected: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Return the first match: this name, the layers it selected in `explain`, all calls of a module, or a pattern."""
    text = layer_text(layer)
    if isinstance(layer, str) and layer in names:
        return [layer]
    matches = [name for name in (selected or {}).get(text, ()) if name in names]
    matches = matches or [name for name in names if re.fullmatch(re.escape(text) + r"#\d+", name)]
    if not matches and any(sign in text for sign in "*?["):
        matches = [name for name in names if fnmatchcase(name, text) or fnmatchcase(name.partition("#")[0], text)]
    return matches


def layer_text(entry: object) -> str:
    """Return the text of an entry of `layers=`. A module is identified by its object, so this text is never saved."""
    if isinstance(entry, nn.Module):
        return f"<{type(entry).__name__} {id(entry)}>"
    return entry.__name__ if isinstance(entry, type) else str(entry)


# Targets


def find_target_key(e: ExplanationData, target: TargetChoice) -> str:
    """Return the key of a target from its key, class name or index, text, or as it was passed to `explain`."""
    index = as_integer(target)
    text = str(target) if index is None else str(index)
    if isinstance(target, str) and target in e.targets:
        return target
    passed = parse_target(target)
    for matches in (requested_as(e, passed), named_as(e, text, passed), contrasts_of(e, passed)):
        if matches:
            return only("target", matches, text)
    return choose("target", text, e.targets)


def parse_target(target: object) -> Target:
    """Return the target that was passed; "topK" is the class of rank K, and any other unknown text a class name."""
    if isinstance(target, str) and (rank := parse_rank(target)) is not None:
        return TopScore(rank)
    try:
        targets = as_targets(target)  # type: ignore[arg-type]
    except UsageError:
        if not isinstance(target, str):
            raise
        return ClassScore(target)
    if len(targets) > 1:
        raise ChoiceError(f"target={target!r}: a map has one target, but this is a list of {len(targets)}.", ())
    return targets[0]


def requested_as(e: ExplanationData, passed: Target) -> list[str]:
    """Return the keys of the targets that were passed to `explain` in this form."""
    return [result.key for result in e.target_results if is_requested(result.requested, passed, e.labels)]


def named_as(e: ExplanationData, text: str, passed: Target) -> list[str]:
    """Return the keys of the targets with this name, class name, synonym, class index or rank."""
    folded = text.strip().casefold()
    matches = [result.key for result in e.target_results if folded in (result.key.casefold(), result.name.casefold())]
    if matches:
        return matches
    index: int | None = None
    if isinstance(passed, TopScore) and len(e) == 1:
        ranking = most_likely(e, passed.rank)
        index = ranking[-1][0] if len(ranking) == passed.rank else None
    elif isinstance(passed, ClassScore) and isinstance(passed.classes, int):
        index = passed.classes
    elif isinstance(passed, ClassScore) and isinstance(passed.classes, str):
        if e.labels is not None:
            index = class_index(passed.classes, e.labels, len(e.labels))
        else:
            folded = passed.classes.strip().casefold()
            return [result.key for result in e.target_results if result.name.casefold() == folded]
    return [str(index)] if str(index) in e.targets else []


def contrasts_of(e: ExplanationData, passed: Target) -> list[str]:
    """Return the keys of the contrasts that have `passed` as first target: explain(targets=passed, versus=...)."""
    return [result.key for result in e.target_results if is_contrast_of(result.requested, passed, e.labels)]


def fields_for_targets(e: ExplanationData, targets: Sequence[str]) -> dict[str, Any]:
    """Return the fields that change when the explanation is reduced to some of its targets."""
    return {
        "maps": {key: maps for key, maps in e.maps.items() if key[1] in targets},
        "target_results": tuple(result for result in e.target_results if result.key in targets),
        "has_gradient": {key: which for key, which in e.has_gradient.items() if key[0] in targets},
        "checks": {key: found for key, found in e.checks.items() if key[1] in targets},
        "drops": {key: found for key, found in e.drops.items() if key in targets},
        "curves": {key: found for key, found in e.curves.items() if key[1] in targets},
        "random_curves": {key: found for key, found in e.random_curves.items() if key in targets},
    }


# Images


def fields_for_image(e: ExplanationData, index: int) -> dict[str, Any]:
    """Return the fields that change when the explanation is reduced to image `index`."""
    at = slice(index, index + 1)
    results = [result.for_image(index, e.labels) for result in e.target_results]
    keys = {result.key: new.key for result, new in zip(e.target_results, results, strict=True)}
    return {
        "maps": {(method, keys[target], layer): maps[at] for (method, target, layer), maps in e.maps.items()},
        "has_gradient": {(keys[target], layer): which[at] for (target, layer), which in e.has_gradient.items()},
        "target_results": merge_results(results),
        "logits": None if e.logits is None else e.logits[at],
        "inputs": None if e.inputs is None else e.inputs[at],
        "images": None if e.images is None else e.images[at],
        "checks": {(method, keys[target], layer): found[at] for (method, target, layer), found in e.checks.items()},
        "drops": {keys[target]: found[at] for target, found in e.drops.items()},
        "curves": {(method, keys[target], layer): found[at] for (method, target, layer), found in e.curves.items()},
        "random_curves": {keys[target]: found[at] for target, found in e.random_curves.items()},
        "channel_features": {layer: features.for_image(at) for layer, features in e.channel_features.items()},
        "single": True,
    }
