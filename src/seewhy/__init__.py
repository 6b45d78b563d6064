"""seewhy shows where a vision model looks: class activation maps for every layer from one forward and one backward pass.

>>> import seewhy
>>> model = seewhy.load_model()
>>> e = seewhy.explain(model, seewhy.sample("coffee"))
>>> e.top(1)[0][1], e.heatmap().shape
('espresso', torch.Size([224, 224]))
"""

from __future__ import annotations

import importlib

# Importing `typing` takes longer than everything else that `seewhy` needs before it handles signals.
TYPE_CHECKING = False

__version__ = "0.1.0"

# Where each public name is defined. Names are imported on first use, so `seewhy --help` does not import torch.
_MODULES = {
    "BoxScore": "targets",
    "BulkRun": "bulk.bulk_run",
    "ClassScore": "targets",
    "Contrast": "targets",
    "Explanation": "explanation.result",
    "ImageError": "errors",
    "LoadedModel": "models.loaded_model",
    "OverlayStyle": "rendering.overlays",
    "Preprocess": "images.preprocess",
    "RegionScore": "targets",
    "SeewhyError": "errors",
    "Target": "targets",
    "UsageError": "errors",
    "ValueScore": "targets",
    "explain": "engine.explain",
    "explain_all": "bulk.api",
    "list_models": "models.loading",
    "load_explanation": "explanation.result",
    "load_image": "images.loading",
    "load_model": "models.loading",
    "prepare": "fast.prepared",
    "read_run": "bulk.bulk_run",
    "sample": "images.samples",
    "suggest": "engine.suggestion",
}
# Public modules, reached as `seewhy.methods.GradCAM`.
_PACKAGES = ("compat", "errors", "integrations", "methods", "targets", "testing", "trust")
__all__ = ["__version__", *_MODULES]

if TYPE_CHECKING:
    from typing import Any

    from seewhy import compat as compat
    from seewhy import errors as errors
    from seewhy import integrations as integrations
    from seewhy import methods as methods
    from seewhy import targets as targets
    from seewhy import testing as testing
    from seewhy import trust as trust
    from seewhy.bulk.api import explain_all as explain_all
    from seewhy.bulk.bulk_run import BulkRun as BulkRun
    from seewhy.bulk.bulk_run import read_run as read_run
    from seewhy.engine.explain import explain as explain
    from seewhy.engine.suggestion import suggest as suggest
    from seewhy.errors import ImageError as ImageError
    from seewhy.errors import SeewhyError as SeewhyError
    from seewhy.errors import UsageError as UsageError
    from seewhy.explanation.result import Explanation as Explanation
    from seewhy.explanation.result import load_explanation as load_explanation
    from seewhy.fast.prepared import prepare as prepare
    from seewhy.images.loading import load_image as load_image
    from seewhy.images.preprocess import Preprocess as Preprocess
    from seewhy.images.samples import sample as sample
    from seewhy.models.loaded_model import LoadedModel as LoadedModel
    from seewhy.models.loading import list_models as list_models
    from seewhy.models.loading import load_model as load_model
    from seewhy.rendering.overlays import OverlayStyle as OverlayStyle
    from seewhy.targets import BoxScore as BoxScore
    from seewhy.targets import ClassScore as ClassScore
    from seewhy.targets import Contrast as Contrast
    from seewhy.targets import RegionScore as RegionScore
    from seewhy.targets import Target as Target
    from seewhy.targets import ValueScore as ValueScore


# Names that moved or were renamed, with their replacement; used in error messages only.
_RENAMED = {"Look": "OverlayStyle", "Run": "BulkRun", "load": "load_explanation", "read": "read_run"}


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"seewhy.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'seewhy' has no attribute {name!r}{_replacement(name)}")
    value = getattr(importlib.import_module(f"seewhy.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def _replacement(name: str) -> str:
    """Return what to use instead of a name that does not exist at the top level, or ""."""
    import importlib.util

    if name.startswith("_") or importlib.util.find_spec(f"seewhy.{name}"):
        return ""  # `from seewhy import storage` looks for the attribute before it imports the submodule
    if name in _RENAMED:
        return f"; it is now seewhy.{_RENAMED[name]}"
    for package in ("methods", "targets", "errors"):
        names = {other.casefold(): other for other in dir(importlib.import_module(f"seewhy.{package}"))}
        if other := names.get(name.casefold()):
            return f"; it is in seewhy.{package}: seewhy.{package}.{other}"
    close = importlib.import_module("seewhy.errors").find_close_matches(name, __all__, 1)
    return f"; did you mean seewhy.{close[0]}?" if close else ""


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
