"""`captum.attr`, computed by seewhy.

Example:
    >>> import torch
    >>> from seewhy.compat.captum.attr import LayerAttribution, LayerGradCam
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> attribution = LayerGradCam(net, net[0]).attribute(torch.rand(2, 3, 8, 8), target=1)
    >>> attribution.shape, LayerAttribution.interpolate(attribution, (8, 8)).shape
    (torch.Size([2, 1, 6, 6]), torch.Size([2, 1, 8, 8]))
"""

from __future__ import annotations

from seewhy.compat.captum.attr import visualization
from seewhy.compat.captum.attr.layers import (
    GuidedBackprop,
    GuidedGradCam,
    LayerActivation,
    LayerAttribution,
    LayerGradCam,
    LayerGradientXActivation,
)
from seewhy.compat.unknown_names import name_lookup

__all__ = [
    "GuidedBackprop",
    "GuidedGradCam",
    "LayerActivation",
    "LayerAttribution",
    "LayerGradCam",
    "LayerGradientXActivation",
    "visualization",
]
__getattr__ = name_lookup(
    __name__,
    "captum.attr",
    __all__,
    {
        "Occlusion": "use seewhy.explain(model, inputs, methods='occlusion').",
        "IntegratedGradients": "seewhy has integrated maps of a layer: seewhy.explain(model, inputs, methods='integrated').",
        "NoiseTunnel": "use seewhy.explain(model, inputs, methods='smooth(gradcam)').",
    },
)
