"""The package pytorch-grad-cam (`pytorch_grad_cam`), computed by seewhy.

Example:
    >>> import torch
    >>> from seewhy.compat.pytorch_grad_cam import GradCAM
    >>> from seewhy.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> with GradCAM(model=net, target_layers=[net[0]]) as cam:
    ...     grayscale_cam = cam(input_tensor=torch.rand(1, 3, 8, 8), targets=[ClassifierOutputTarget(2)])
    >>> grayscale_cam.shape, grayscale_cam.dtype
    ((1, 8, 8), dtype('float32'))
"""

from __future__ import annotations

from seewhy.compat.pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerFasterRCNN, AblationLayerVit
from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM
from seewhy.compat.pytorch_grad_cam.cams import (
    FEM,
    KPCA_CAM,
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    FullGrad,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    RandomCAM,
    ScoreCAM,
    SegEigenCAM,
    ShapleyCAM,
    XGradCAM,
)
from seewhy.compat.pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel
from seewhy.compat.pytorch_grad_cam.multi_layer import SESS, FinerCAM, RefineCAM
from seewhy.compat.unknown_names import name_lookup

__all__ = [
    "FEM",
    "KPCA_CAM",
    "SESS",
    "AblationCAM",
    "AblationLayer",
    "AblationLayerFasterRCNN",
    "AblationLayerVit",
    "BaseCAM",
    "EigenCAM",
    "EigenGradCAM",
    "FinerCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "GuidedBackpropReLUModel",
    "HiResCAM",
    "LayerCAM",
    "RandomCAM",
    "RefineCAM",
    "ScoreCAM",
    "SegEigenCAM",
    "ShapleyCAM",
    "XGradCAM",
]
__getattr__ = name_lookup(
    __name__,
    "pytorch_grad_cam",
    __all__,
    {"DeepFeatureFactorization": "use seewhy.explain(..., methods='deepfeaturefactorization')."},
)
