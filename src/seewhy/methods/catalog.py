"""The methods by name, and how a method with settings is written as text. Imports no torch."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Any

from seewhy.errors import UnknownName, UsageError

HINT = "List them: seewhy methods"
GROUPS = ("all", "fast")  # words for many methods at once
LINEAR = ("gradcam", "hirescam", "cam", "xgradcam")  # the map of a difference of scores is the difference of the maps

# Where each method's class is: file, class, name ("" for the class's in lower case), other names.
_CLASSES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("gradient", "GradCAM", "", ()),
    ("gradient", "HiResCAM", "", ()),
    ("gradient", "LayerCAM", "", ("layer",)),
    ("gradient", "GradCAMPlusPlus", "gradcam++", ("gradcampp",)),
    ("gradient", "XGradCAM", "", ()),
    ("gradient", "GradCAMElementwise", "", ("elementwise",)),
    ("gradient", "EigenGradCAM", "", ()),
    ("gradient", "SegEigenCAM", "", ()),
    ("gradient", "ShapleyCAM", "", ()),
    ("wrappers", "FinerCAM", "", ()),
    ("wrappers", "GuidedGradCAM", "", ()),
    ("activation", "CAM", "", ()),
    ("activation", "EigenCAM", "", ()),
    ("activation", "KPCACAM", "", ()),
    ("activation", "FEM", "", ()),
    ("activation", "LaFAM", "", ("mean",)),
    ("activation", "RandomCAM", "", ("random",)),
    ("activation", "DeepFeatureFactorization", "", ("dff",)),
    ("masking", "ScoreCAM", "", ()),
    ("masking", "SSCAM", "", ()),
    ("masking", "ISCAM", "", ()),
    ("masking", "GroupCAM", "", ()),
    ("masking", "OptiCAM", "", ()),
    ("ablation", "AblationCAM", "", ()),
    ("ablation", "ReciproCAM", "", ()),
    ("pixels", "PolyCAM", "", ()),
    ("pixels", "Occlusion", "", ()),
    ("pixels", "RISE", "", ()),
    ("network", "FullGrad", "", ()),
    ("network", "RefineCAM", "", ()),
    ("network", "LayerCAMFusion", "", ("fusion",)),
    ("transformer", "AttentionRollout", "", ("rollout",)),
    ("transformer", "AttentionRelevance", "", ("chefer",)),
    ("transformer", "LeGrad", "", ()),
    ("transformer", "GradECLIP", "", ()),
    ("transformer", "ViTReciproCAM", "", ()),
    ("variants", "Smooth", "", ()),
    ("variants", "SmoothGradCAMPlusPlus", "smoothgradcam++", ("smoothgradcampp",)),
    ("variants", "Integrated", "", ()),
    ("variants", "Augmented", "", ()),
    ("wrappers", "EigenSmooth", "", ()),
    ("scales", "CAMERAS", "", ()),
    ("scales", "SESS", "", ()),
)


@dataclass(frozen=True)
class MethodEntry:
    """A method's place: its `name`, the `module` and the `cls` in it, and other names it answers to."""

    name: str
    module: str
    cls: str
    aliases: tuple[str, ...] = ()


METHODS = tuple(
    MethodEntry(name or cls.lower(), f"seewhy.methods.{module}", cls, aliases)
    for module, cls, name, aliases in _CLASSES
)
CLASSES = {cls: module for module, cls, _, _ in _CLASSES}  # class name -> file
_BY_CLASS = {entry.cls: entry.name for entry in METHODS}


def find_method(name: str) -> MethodEntry:
    """The catalog entry called `name`, in any letter case, with or without "-", "_" and spaces.

    >>> find_method("Grad-CAM++").cls
    'GradCAMPlusPlus'
    """
    wanted = re.sub(r"[-_\s]", "", name).casefold()
    for entry in METHODS:
        if wanted in (entry.name, entry.cls.casefold(), *entry.aliases):
            return entry
    raise UnknownName("method", name, [entry.name for entry in METHODS], hint=HINT)


def name_of_class(cls: type) -> str:
    """The name of a method's class: the catalog's for one of ours, else the class's own in lower case."""
    return _BY_CLASS.get(cls.__name__, cls.__name__.lower())


@dataclass(frozen=True)
class MethodText:
    """A method as it was written: its entry, the methods and values given by position, and the settings by name.

    A setting may be a word that is a method's name too ("gradcam" for a variant), so the `text` is kept.
    """

    entry: MethodEntry
    given: tuple[Any, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    text: str = ""


def read_method(text: str) -> MethodText:
    """A method with settings from text: "scorecam(batch_size=64)", "smooth(layercam, samples=16)".

    >>> read = read_method("smooth(layercam, samples=16)")
    >>> read.entry.name, read.given[0].entry.name, read.settings
    ('smooth', 'layercam', {'samples': 16})

    Raises UnknownName for a name that is not in the catalog, UsageError for text that cannot be read.
    """
    name, opened, rest = text.strip().partition("(")
    entry = find_method(name)
    if not opened:
        return MethodText(entry, text=text)
    if not rest.endswith(")"):
        raise UsageError(f"method '{text}': a bracket is not closed.")
    given, settings = [], {}
    for item in split_at_commas(rest[:-1]):
        key, equals, value = item.partition("=")
        if equals and key.strip().isidentifier():
            settings[key.strip()] = read_value(value.strip())
        else:
            given.append(read_value(item))
    return MethodText(entry, tuple(given), settings, text)


def read_value(text: str) -> Any:
    """A setting: a number, True, None, a list, a method (by its name), or else a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return read_method(text)
    except UnknownName:
        if "(" in text:
            raise
        return text


def split_at_commas(text: str) -> list[str]:
    """The parts of `text` between commas, but not at commas inside brackets.

    >>> split_at_commas("a, b(c,d)")
    ['a', 'b(c,d)']
    """
    found, depth, start = [], 0, 0
    for index, sign in enumerate(text):
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            found.append(text[start:index])
            start = index + 1
    found.append(text[start:])
    return [item.strip() for item in found if item.strip()]


KIND = re.compile(r"\s*[A-Za-z]+(\[\w+\])?:")  # how a target begins that says what kind it is


def split(values: list[str] | None) -> list[str]:
    """Option values at their commas, but not at commas inside brackets: "a,b(c,d)" is a and b(c,d)."""
    return [item for value in values or [] for item in split_at_commas(value)]


def split_targets(values: list[str] | None) -> list[str]:
    """The same for targets, where one that names its kind ("box:person@1,2,3,4") is whole."""
    found = []
    for value in values or []:
        found += [value] if KIND.match(value) else split_at_commas(value)
    return found
