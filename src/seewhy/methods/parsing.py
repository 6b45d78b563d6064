"""Methods from what users pass: a name with settings, a Method, a list of them, or a group name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

from seewhy.errors import MethodError, UsageError, find_close_matches
from seewhy.methods.base import AnyMethod, BaseMethod, Method, MultiMapMethod, NetworkMethod, VariantMethod
from seewhy.methods.catalog import GROUPS, METHODS, MethodEntry
from seewhy.methods.method_text import MethodText, parse_method

MethodSpec = str | AnyMethod | Sequence[str | AnyMethod] | None  # what `methods=` accepts


def as_methods(spec: MethodSpec) -> dict[str, AnyMethod]:
    """Return methods by their names. None is Grad-CAM.

    "all" is every method of the catalog with default settings; "fast" those without many extra forward passes.

    Raises:
        UnknownName: A name is not in the catalog.
        MethodError: A setting is unknown or invalid.
        UsageError: Anything else is passed, or two different methods have the same name.

    >>> from seewhy.methods.gradient import HiResCAM
    >>> as_methods(["scorecam(batch_size=64)", HiResCAM()])
    {'scorecam(batch_size=64)': ScoreCAM(variant='authors', batch_size=64), 'hirescam': HiResCAM()}
    """
    if spec is None:
        return as_methods("gradcam")
    if isinstance(spec, str):
        group = spec.strip().lower()
        if group in GROUPS:
            methods = {entry.name: load_class(entry)() for entry in METHODS}
            return {name: method for name, method in methods.items() if group == "all" or is_fast(method)}
        method = build_method(parse_method(spec))
        return {str(method): method}
    if isinstance(spec, (Method, MultiMapMethod, NetworkMethod)):
        return {str(spec): spec}
    if isinstance(spec, Sequence) and spec:
        by_name: dict[str, AnyMethod] = {}
        for item in spec:
            for name, method in as_methods(item).items():
                if by_name.setdefault(name, method) != method:
                    raise UsageError(f"methods={spec!r}: two different methods are named {name!r}. Rename one class.")
        return by_name
    raise UsageError(f"methods={spec!r}: pass a method's name, a Method, or a list of them.")


def with_seed(method: AnyMethod, seed: int) -> AnyMethod:
    """Return the method, and its bases, with `seed` if it draws random numbers and has the default seed 0."""
    values = {item.name: getattr(method, item.name) for item in dataclasses.fields(method)}
    changes: dict[str, Any] = {
        name: with_seed(value, seed) for name, value in values.items() if isinstance(value, Method)
    }
    if values.get("seed") == 0:
        changes["seed"] = seed
    return dataclasses.replace(method, **changes) if changes else method


def is_fast(method: AnyMethod) -> bool:
    """Return True if a method needs no forward pass per channel, cell or sample."""
    return (
        not isinstance(method, VariantMethod)
        and not method.forwards(1000, 1000)
        and not getattr(method, "keeps_layers", False)
    )


def load_class(entry: MethodEntry) -> type[Any]:
    cls: type[Any] = getattr(importlib.import_module(entry.module), entry.cls)
    return cls


def build_method(text: MethodText) -> AnyMethod:
    """Return the method of a parsed text. Raises MethodError for an unknown or invalid setting."""
    cls, name = load_class(text.entry), text.entry.name
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for setting in text.settings:
        if setting not in fields:
            matches = find_close_matches(setting, fields)
            guess = f" - did you mean {matches[0]}?" if matches else f". It has {', '.join(fields)}." if fields else "."
            raise MethodError(name, f"it has no setting '{setting}'{guess}")
    if len(text.arguments) > len(fields):
        raise MethodError(name, f"it has {len(fields)} settings, but {len(text.arguments)} values were passed.")
    positional = dict(zip(fields, text.arguments, strict=False))
    if twice := positional.keys() & text.settings:
        raise MethodError(name, f"the setting {min(twice)} is given twice.")
    settings = {}
    for key, value in (positional | text.settings).items():
        item = fields[key]
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if isinstance(value, MethodText):
            value = value.word if isinstance(default, str) else build_method(value)
        settings[key] = check_value(name, key, value, default, str(item.type))
    try:
        method: AnyMethod = cls(**settings)
    except (TypeError, ValueError) as error:
        raise MethodError(name, f"a setting has the wrong type ({error}).") from None
    return method


def check_value(name: str, key: str, value: Any, default: Any, annotation: str) -> Any:
    """Return `value`, converted if needed, if it has the type of the setting. Raises MethodError otherwise."""
    if isinstance(default, BaseMethod):
        if not isinstance(value, Method):
            raise MethodError(name, f"{key}={value}: must be a method with one map per layer, such as gradcam.")
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise MethodError(name, f"{key}={value}: must be True or False.")
    elif annotation.startswith(("int", "float")) and not (value is None and "None" in annotation):
        return check_number(name, key, value, annotation)
    elif annotation.startswith("tuple"):
        values = value if isinstance(value, (tuple, list)) else (value,)
        return tuple(check_number(name, key, item, "float") for item in values)
    return value


def check_number(name: str, key: str, value: Any, annotation: str) -> float:
    is_integer = annotation.startswith("int")
    accepted = int if is_integer else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted) or abs(value) >= 2**63:
        raise MethodError(name, f"{key}={value}: must be {'an integer' if is_integer else 'a number'}.")
    return value if is_integer else float(value)
