"""Methods from what a user writes: a name with settings, a Method, a list of them, or a group name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

from seewhy.errors import MethodError, UsageError, find_close_matches
from seewhy.methods.base import AnyMethod, Method, MultiMapMethod, NetworkMethod, Settings, VariantMethod
from seewhy.methods.catalog import GROUPS, METHODS, MethodEntry, MethodText, read_method

MethodSpec = str | AnyMethod | Sequence[str | AnyMethod] | None  # what `methods=` accepts


def as_methods(spec: Any) -> dict[str, AnyMethod]:
    """Methods under their names, from what a user may write: a name with settings, a method, or a list. None is Grad-CAM.

    "all" is every method of the catalog with its own settings, "fast" those of them that need no forwards of their own.

    >>> from seewhy.methods.gradient import HiResCAM
    >>> as_methods(["scorecam(batch_size=64)", HiResCAM()])
    {'scorecam(batch_size=64)': ScoreCAM(variant='authors', batch_size=64), 'hirescam': HiResCAM()}

    Raises UnknownName for a name that is not in the catalog, MethodError for wrong settings, UsageError for anything else.
    """
    if spec is None:
        return as_methods("gradcam")
    if isinstance(spec, str):
        if spec.strip().lower() in GROUPS:
            made = {entry.name: class_of(entry)() for entry in METHODS}
            return {name: method for name, method in made.items() if spec.strip().lower() == "all" or is_fast(method)}
        built = build(read_method(spec))
        return {str(built): built}
    if isinstance(spec, (Method, MultiMapMethod, NetworkMethod)):
        return {str(spec): spec}
    if isinstance(spec, Sequence) and spec:
        found: dict[str, AnyMethod] = {}
        for item in spec:
            for name, method in as_methods(item).items():
                if found.setdefault(name, method) != method:
                    raise UsageError(f"methods={spec!r}: two different methods are called {name!r}; rename a class.")
        return found
    raise UsageError(f"methods={spec!r}: give a method's name, a Method, or a list of them.")


def seeded(method: AnyMethod, seed: int) -> AnyMethod:
    """The method, and its bases, with `seed` where it draws random numbers and has the default seed."""
    values = {item.name: getattr(method, item.name) for item in dataclasses.fields(method)}
    changed: dict[str, Any] = {name: seeded(value, seed) for name, value in values.items() if isinstance(value, Method)}
    if values.get("seed") == 0:
        changed["seed"] = seed
    return dataclasses.replace(method, **changed) if changed else method


def is_fast(method: AnyMethod) -> bool:
    """Whether a method shares a pass with others, or needs one of its own; none for every channel, cell or sample."""
    return (
        not isinstance(method, VariantMethod)
        and not method.forwards(1000, 1000)
        and not getattr(method, "keeps_layers", False)
    )


def class_of(entry: MethodEntry) -> type[Any]:
    found: type[Any] = getattr(importlib.import_module(entry.module), entry.cls)
    return found


def build(text: MethodText) -> AnyMethod:
    """The method that a text means. Raises MethodError for a setting that it does not have or that makes no sense."""
    cls, name = class_of(text.entry), text.entry.name
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for setting in text.settings:
        if setting not in fields:
            close = find_close_matches(setting, fields)
            guess = f" - did you mean {close[0]}?" if close else f"; it has {', '.join(fields)}." if fields else "."
            raise MethodError(name, f"it has no setting '{setting}'{guess}")
    if len(text.given) > len(fields):
        raise MethodError(name, f"it has {len(fields)} settings, and {len(text.given)} values were given.")
    values = dict(zip(fields, text.given, strict=False)) | text.settings
    made = {}
    for key, value in values.items():
        item = fields[key]
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if isinstance(value, MethodText):
            value = value.text if isinstance(default, str) else build(value)
        made[key] = suited(name, key, value, default, str(item.type))
    try:
        built: AnyMethod = cls(**made)
    except (TypeError, ValueError) as error:
        raise MethodError(name, f"a setting is of the wrong kind ({error}).") from None
    return built


def suited(name: str, key: str, value: Any, default: Any, kind: str) -> Any:
    """`value`, if it is of the kind of the setting's default. Raises MethodError otherwise."""
    if isinstance(default, Settings):
        if not isinstance(value, Method):
            raise MethodError(name, f"{key}={value}: give a method that makes a map of one layer, such as gradcam.")
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise MethodError(name, f"{key}={value}: give True or False.")
    elif kind.startswith(("int", "float")) and not (value is None and "None" in kind):
        return number(name, key, value, kind)
    elif kind.startswith("tuple"):
        given = value if isinstance(value, (tuple, list)) else (value,)
        return tuple(number(name, key, item, "float") for item in given)
    return value


def number(name: str, key: str, value: Any, kind: str) -> float:
    whole = kind.startswith("int")
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or abs(value) >= 2**63:
        raise MethodError(name, f"{key}={value}: give a {'whole number' if whole else 'number'}.")
    return value if whole else float(value)
