"""The methods, by class and by name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

from seewhy.catalog import GROUPS, METHODS, MethodEntry, MethodText, read_method
from seewhy.errors import MethodError, UsageError, close_matches
from seewhy.methods.ablation import AblationCAM, ReciproCAM
from seewhy.methods.activation import CAM, FEM, KPCACAM, DeepFeatureFactorization, EigenCAM, LaFAM, RandomCAM
from seewhy.methods.base import About, AnyMethod, Method, NetworkMethod, Sampled, Settings, SeveralMaps
from seewhy.methods.gradient import (
    EigenGradCAM,
    GradCAM,
    GradCAMElementwise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SegEigenCAM,
    ShapleyCAM,
    XGradCAM,
)
from seewhy.methods.masking import ISCAM, SSCAM, GroupCAM, OptiCAM, ScoreCAM
from seewhy.methods.network import FullGrad, LayerCAMFusion, RefineCAM
from seewhy.methods.pixels import RISE, Occlusion, PolyCAM
from seewhy.methods.scales import CAMERAS, SESS
from seewhy.methods.transformer import AttentionRelevance, AttentionRollout, GradECLIP, LeGrad, ViTReciproCAM
from seewhy.methods.variants import Augmented, Integrated, Smooth, SmoothGradCAMPlusPlus
from seewhy.methods.wrappers import EigenSmooth, FinerCAM, GuidedGradCAM

__all__ = [
    "CAM",
    "CAMERAS",
    "FEM",
    "ISCAM",
    "KPCACAM",
    "RISE",
    "SESS",
    "SSCAM",
    "AblationCAM",
    "About",
    "AnyMethod",
    "AttentionRelevance",
    "AttentionRollout",
    "Augmented",
    "DeepFeatureFactorization",
    "EigenCAM",
    "EigenGradCAM",
    "EigenSmooth",
    "FinerCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMElementwise",
    "GradCAMPlusPlus",
    "GradECLIP",
    "GroupCAM",
    "GuidedGradCAM",
    "HiResCAM",
    "Integrated",
    "LaFAM",
    "LayerCAM",
    "LayerCAMFusion",
    "LeGrad",
    "Method",
    "NetworkMethod",
    "Occlusion",
    "OptiCAM",
    "PolyCAM",
    "RandomCAM",
    "ReciproCAM",
    "RefineCAM",
    "Sampled",
    "ScoreCAM",
    "SegEigenCAM",
    "SeveralMaps",
    "ShapleyCAM",
    "Smooth",
    "SmoothGradCAMPlusPlus",
    "ViTReciproCAM",
    "XGradCAM",
    "as_methods",
]


def as_methods(spec: Any) -> dict[str, AnyMethod]:
    """Methods under their names, from what a user may write: a name with settings, a method, or a list. None is Grad-CAM.

    "all" is every method of the catalog with its own settings, "fast" those of them that need no forwards of their own.

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
    if isinstance(spec, (Method, SeveralMaps, NetworkMethod)):
        return {str(spec): spec}
    if isinstance(spec, Sequence) and spec:
        return {name: method for item in spec for name, method in as_methods(item).items()}
    raise UsageError(f"methods={spec!r}: give a method's name, a Method, or a list of them.")


def is_fast(method: AnyMethod) -> bool:
    """Whether a method shares a pass with others, or needs one of its own; none for every channel, cell or sample."""
    return (
        not isinstance(method, Sampled)
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
            close = close_matches(setting, fields)
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
        made[key] = suited(name, key, value, default)
    try:
        built: AnyMethod = cls(**made)
    except TypeError as error:
        raise MethodError(name, f"a setting is of the wrong kind ({error}).") from None
    return built


def suited(name: str, key: str, value: Any, default: Any) -> Any:
    """`value`, if it is of the kind of the setting's default. Raises MethodError otherwise."""
    if isinstance(default, Settings):
        if not isinstance(value, Method):
            raise MethodError(name, f"{key}={value}: give a method that makes a map of one layer, such as gradcam.")
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise MethodError(name, f"{key}={value}: give True or False.")
    elif isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise MethodError(name, f"{key}={value}: give a number.")
        return float(value)
    elif isinstance(default, int) and (isinstance(value, bool) or not isinstance(value, int)):
        raise MethodError(name, f"{key}={value}: give a whole number.")
    return value
