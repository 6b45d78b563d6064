"""The methods of torchcam under their names there."""

from __future__ import annotations

from seewhy.compat.torchcam.methods.core import OutputTarget
from seewhy.compat.torchcam.methods.extractors import (
    CAM,
    ISCAM,
    SSCAM,
    GradCAM,
    GradCAMpp,
    LayerCAM,
    ScoreCAM,
    SmoothGradCAMpp,
    XGradCAM,
)
from seewhy.compat.torchcam.methods.wrappers import FinerCAM, RefineCAM
from seewhy.compat.unknown_names import name_lookup

__all__ = [
    "CAM",
    "ISCAM",
    "SSCAM",
    "FinerCAM",
    "GradCAM",
    "GradCAMpp",
    "LayerCAM",
    "OutputTarget",
    "RefineCAM",
    "ScoreCAM",
    "SmoothGradCAMpp",
    "XGradCAM",
]
__getattr__ = name_lookup(
    __name__, "torchcam.methods", __all__, {"LeGrad": "use seewhy.explain(model, inputs, methods='legrad')."}
)
