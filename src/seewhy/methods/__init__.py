"""The methods, by class and by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from seewhy.catalog import find_method
from seewhy.errors import UsageError
from seewhy.methods.base import Method
from seewhy.methods.gradient import GradCAM, GradCAMElementwise, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM

__all__ = [
    "GradCAM",
    "GradCAMElementwise",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "Method",
    "XGradCAM",
    "as_methods",
]


def as_methods(spec: Any) -> dict[str, Method]:
    """Methods under their names, from what a user may write: a name, a Method, or a list of them. None is Grad-CAM.

    >>> as_methods(["gradcam", HiResCAM()])
    {'gradcam': GradCAM(), 'hirescam': HiResCAM()}

    Raises UnknownName for a name that is not in the catalog, UsageError for anything else and for an empty list.
    """
    if spec is None:
        return as_methods("gradcam")
    if isinstance(spec, str):
        entry = find_method(spec)
        return {entry.name: getattr(importlib.import_module(entry.module), entry.cls)()}
    if isinstance(spec, Method):
        return {name_of(spec): spec}
    if isinstance(spec, Sequence) and spec:
        return {name: method for item in spec for name, method in as_methods(item).items()}
    raise UsageError(f"methods={spec!r}: give a method's name, a Method, or a list of them.")


def name_of(method: Method) -> str:
    """The catalog's name of a method, or its own string where it is none of ours."""
    try:
        return find_method(str(method)).name
    except UsageError:
        return str(method)
