"""The ablation layers of pytorch-grad-cam, which are accepted and not used: seewhy sets channels to 0 in a recorded pass."""

from __future__ import annotations


class AblationLayer:
    """Accepted as the ablation of channels of a convolution."""


class AblationLayerVit(AblationLayer):
    """Accepted as the ablation of channels of tokens."""


class AblationLayerFasterRCNN(AblationLayer):
    """Accepted as the ablation of channels of a feature pyramid."""
