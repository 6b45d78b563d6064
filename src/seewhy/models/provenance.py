"""What made the maps, for results that should be made again."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from seewhy.images.preprocess import Preprocess
from seewhy.models.loading import LoadedModel


def provenance(loaded: LoadedModel, *, hashed: bool) -> dict[str, Any]:
    """Model, weights, preprocessing and versions."""
    preprocess = loaded.preprocess.to_dict() if isinstance(loaded.preprocess, Preprocess) else None
    kind = type(loaded.module)
    return {
        "model": loaded.uri,
        "class": f"{kind.__module__}.{kind.__qualname__}",
        # A bare module may be in the middle of training: its hash would cost more than the maps, and tell less.
        "weights": loaded.weights_hash if hashed else None,
        "preprocess": preprocess,
        "versions": versions(),
    }


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    for package in ("seewhy", "torchvision", "timm", "pillow", "transformers", "open_clip_torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
