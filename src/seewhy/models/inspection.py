"""Properties read from a module's layers: the number of classes and the input layout."""

from __future__ import annotations

import re

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# Modules of torchvision's classifiers; those of other tasks are in subpackages.
TORCHVISION_CLASSIFIERS = re.compile(r"torchvision\.models\.[a-z]\w*")


def count_classes(module: nn.Module) -> int | None:
    """Return the number of classes of a module, or None if it cannot be determined reliably.

    Sources: a `num_classes` attribute (timm), the config of a transformers classifier, or the last linear layer of a
    torchvision classifier.

    >>> import torchvision
    >>> count_classes(torchvision.models.resnet18(num_classes=7))
    7
    """
    kind, count = type(module), getattr(module, "num_classes", None)
    if kind.__module__.startswith("transformers.") and "Classification" in kind.__name__:
        count = getattr(module.config, "num_labels", None)
    elif TORCHVISION_CLASSIFIERS.fullmatch(kind.__module__) and (children := list(module.children())):
        heads = [layer.out_features for layer in children[-1].modules() if isinstance(layer, nn.Linear)]
        count = heads[-1] if heads else None
    return count if isinstance(count, int) and count > 0 else None


def infer_input_layout(module: nn.Module) -> tuple[int, int] | None:
    """Return the number of input channels and of spatial axes of the first convolution, or None without one.

    >>> infer_input_layout(nn.Sequential(nn.Conv1d(1, 4, 3)))
    (1, 1)
    """
    conv = next((layer for layer in module.modules() if isinstance(layer, CONVOLUTIONS)), None)
    return None if conv is None else (conv.in_channels, len(conv.kernel_size))
