"""See why a vision network decides as it does: a class activation map for every layer, from one forward and one backward.

>>> import seewhy
>>> model = seewhy.load_model()
>>> e = seewhy.explain(model, seewhy.sample("coffee"))
>>> e.top(1)[0][1], e.heatmap.shape
('espresso', torch.Size([224, 224]))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives. They are imported on first use, so that `seewhy --help` need not wait for torch.
_HOME = {
    "ClassScore": "targets",
    "Explanation": "explanation",
    "FunctionScore": "targets",
    "GradCAM": "methods",
    "GradCAMElementwise": "methods",
    "GradCAMPlusPlus": "methods",
    "HiResCAM": "methods",
    "LayerCAM": "methods",
    "LoadedModel": "models",
    "Look": "render",
    "Method": "methods",
    "Preprocess": "preprocess",
    "SeewhyError": "errors",
    "TopScore": "targets",
    "View": "view",
    "XGradCAM": "methods",
    "explain": "pipeline",
    "list_models": "models",
    "load": "explanation",
    "load_image": "images",
    "load_model": "models",
    "sample": "samples",
    "suggest": "suggestion",
}
__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from seewhy.errors import SeewhyError as SeewhyError
    from seewhy.explanation import Explanation as Explanation
    from seewhy.explanation import load as load
    from seewhy.images import load_image as load_image
    from seewhy.methods import GradCAM as GradCAM
    from seewhy.methods import GradCAMElementwise as GradCAMElementwise
    from seewhy.methods import GradCAMPlusPlus as GradCAMPlusPlus
    from seewhy.methods import HiResCAM as HiResCAM
    from seewhy.methods import LayerCAM as LayerCAM
    from seewhy.methods import Method as Method
    from seewhy.methods import XGradCAM as XGradCAM
    from seewhy.models import LoadedModel as LoadedModel
    from seewhy.models import list_models as list_models
    from seewhy.models import load_model as load_model
    from seewhy.pipeline import explain as explain
    from seewhy.preprocess import Preprocess as Preprocess
    from seewhy.render import Look as Look
    from seewhy.samples import sample as sample
    from seewhy.suggestion import suggest as suggest
    from seewhy.targets import ClassScore as ClassScore
    from seewhy.targets import FunctionScore as FunctionScore
    from seewhy.targets import TopScore as TopScore
    from seewhy.view import View as View


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'seewhy' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"seewhy.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
