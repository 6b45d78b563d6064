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
    "AblationCAM": "methods",
    "AttentionRelevance": "methods",
    "AttentionRollout": "methods",
    "Augmented": "methods",
    "BoxScore": "targets",
    "CAM": "methods",
    "CAMERAS": "methods",
    "ClassLogProbability": "targets",
    "ClassProbability": "targets",
    "ClassScore": "targets",
    "Contrast": "targets",
    "DeepFeatureFactorization": "methods",
    "EigenCAM": "methods",
    "EigenGradCAM": "methods",
    "EigenSmooth": "methods",
    "Explanation": "explanation.result",
    "FEM": "methods",
    "FinerCAM": "methods",
    "FullGrad": "methods",
    "FunctionScore": "targets",
    "GradCAM": "methods",
    "GradCAMElementwise": "methods",
    "GradCAMPlusPlus": "methods",
    "GradECLIP": "methods",
    "Grid": "tracing.grid",
    "GroupCAM": "methods",
    "GuidedGradCAM": "methods",
    "HiResCAM": "methods",
    "ISCAM": "methods",
    "Integrated": "methods",
    "KPCACAM": "methods",
    "LaFAM": "methods",
    "LayerCAM": "methods",
    "LayerCAMFusion": "methods",
    "LeGrad": "methods",
    "LoadedModel": "models.loading",
    "Look": "rendering.overlays",
    "Method": "methods",
    "MethodError": "errors",
    "NetworkMethod": "methods",
    "Occlusion": "methods",
    "OptiCAM": "methods",
    "OutputScore": "targets",
    "PolyCAM": "methods",
    "Preprocess": "images.preprocess",
    "RISE": "methods",
    "RandomCAM": "methods",
    "ReciproCAM": "methods",
    "RefineCAM": "methods",
    "RegionScore": "targets",
    "Run": "bulk.bulk_run",
    "SESS": "methods",
    "SSCAM": "methods",
    "Sampled": "methods",
    "ScoreCAM": "methods",
    "SeewhyError": "errors",
    "SegEigenCAM": "methods",
    "SeveralMaps": "methods",
    "ShapleyCAM": "methods",
    "Similarity": "targets",
    "Smooth": "methods",
    "SmoothGradCAMPlusPlus": "methods",
    "Target": "targets",
    "TextScore": "targets",
    "TopScore": "targets",
    "ViTReciproCAM": "methods",
    "View": "images.view",
    "XGradCAM": "methods",
    "explain": "engine.pipeline",
    "explain_all": "bulk.job",
    "list_models": "models.loading",
    "load": "explanation.result",
    "load_image": "images.loading",
    "load_model": "models.loading",
    "read": "bulk.bulk_run",
    "sample": "images.samples",
    "suggest": "engine.suggestion",
}
__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from seewhy.bulk.bulk_run import Run as Run
    from seewhy.bulk.bulk_run import read as read
    from seewhy.bulk.job import explain_all as explain_all
    from seewhy.engine.pipeline import explain as explain
    from seewhy.engine.suggestion import suggest as suggest
    from seewhy.errors import MethodError as MethodError
    from seewhy.errors import SeewhyError as SeewhyError
    from seewhy.explanation.result import Explanation as Explanation
    from seewhy.explanation.result import load as load
    from seewhy.images.loading import load_image as load_image
    from seewhy.images.preprocess import Preprocess as Preprocess
    from seewhy.images.samples import sample as sample
    from seewhy.images.view import View as View
    from seewhy.methods import CAM as CAM
    from seewhy.methods import CAMERAS as CAMERAS
    from seewhy.methods import FEM as FEM
    from seewhy.methods import ISCAM as ISCAM
    from seewhy.methods import KPCACAM as KPCACAM
    from seewhy.methods import RISE as RISE
    from seewhy.methods import SESS as SESS
    from seewhy.methods import SSCAM as SSCAM
    from seewhy.methods import AblationCAM as AblationCAM
    from seewhy.methods import AttentionRelevance as AttentionRelevance
    from seewhy.methods import AttentionRollout as AttentionRollout
    from seewhy.methods import Augmented as Augmented
    from seewhy.methods import DeepFeatureFactorization as DeepFeatureFactorization
    from seewhy.methods import EigenCAM as EigenCAM
    from seewhy.methods import EigenGradCAM as EigenGradCAM
    from seewhy.methods import EigenSmooth as EigenSmooth
    from seewhy.methods import FinerCAM as FinerCAM
    from seewhy.methods import FullGrad as FullGrad
    from seewhy.methods import GradCAM as GradCAM
    from seewhy.methods import GradCAMElementwise as GradCAMElementwise
    from seewhy.methods import GradCAMPlusPlus as GradCAMPlusPlus
    from seewhy.methods import GradECLIP as GradECLIP
    from seewhy.methods import GroupCAM as GroupCAM
    from seewhy.methods import GuidedGradCAM as GuidedGradCAM
    from seewhy.methods import HiResCAM as HiResCAM
    from seewhy.methods import Integrated as Integrated
    from seewhy.methods import LaFAM as LaFAM
    from seewhy.methods import LayerCAM as LayerCAM
    from seewhy.methods import LayerCAMFusion as LayerCAMFusion
    from seewhy.methods import LeGrad as LeGrad
    from seewhy.methods import Method as Method
    from seewhy.methods import NetworkMethod as NetworkMethod
    from seewhy.methods import Occlusion as Occlusion
    from seewhy.methods import OptiCAM as OptiCAM
    from seewhy.methods import PolyCAM as PolyCAM
    from seewhy.methods import RandomCAM as RandomCAM
    from seewhy.methods import ReciproCAM as ReciproCAM
    from seewhy.methods import RefineCAM as RefineCAM
    from seewhy.methods import Sampled as Sampled
    from seewhy.methods import ScoreCAM as ScoreCAM
    from seewhy.methods import SegEigenCAM as SegEigenCAM
    from seewhy.methods import SeveralMaps as SeveralMaps
    from seewhy.methods import ShapleyCAM as ShapleyCAM
    from seewhy.methods import Smooth as Smooth
    from seewhy.methods import SmoothGradCAMPlusPlus as SmoothGradCAMPlusPlus
    from seewhy.methods import ViTReciproCAM as ViTReciproCAM
    from seewhy.methods import XGradCAM as XGradCAM
    from seewhy.models.loading import LoadedModel as LoadedModel
    from seewhy.models.loading import list_models as list_models
    from seewhy.models.loading import load_model as load_model
    from seewhy.rendering.overlays import Look as Look
    from seewhy.targets import BoxScore as BoxScore
    from seewhy.targets import ClassLogProbability as ClassLogProbability
    from seewhy.targets import ClassProbability as ClassProbability
    from seewhy.targets import ClassScore as ClassScore
    from seewhy.targets import Contrast as Contrast
    from seewhy.targets import FunctionScore as FunctionScore
    from seewhy.targets import OutputScore as OutputScore
    from seewhy.targets import RegionScore as RegionScore
    from seewhy.targets import Similarity as Similarity
    from seewhy.targets import Target as Target
    from seewhy.targets import TextScore as TextScore
    from seewhy.targets import TopScore as TopScore
    from seewhy.tracing.grid import Grid as Grid


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'seewhy' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"seewhy.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
