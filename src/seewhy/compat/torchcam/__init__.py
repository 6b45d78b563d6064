"""The package torchcam, computed by seewhy.

The code is that for torchcam: run the model inside the block, then call the extractor.

Example:
    >>> import torch
    >>> from seewhy.compat.torchcam.methods import GradCAM
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> with GradCAM(net, target_layer="0") as extractor:
    ...     scores = net(torch.rand(1, 3, 8, 8))
    ...     cams = extractor(scores.squeeze(0).argmax().item(), scores)
    >>> cams[0].shape
    torch.Size([1, 6, 6])
"""

from __future__ import annotations

from seewhy.compat.torchcam import methods, metrics, utils
from seewhy.compat.unknown_names import name_lookup

__all__ = ["methods", "metrics", "utils"]
__getattr__ = name_lookup(__name__, "torchcam", __all__, {"explain": "use seewhy.explain and Explanation.save."})
