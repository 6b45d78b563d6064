"""The provenance record of a result: model, weights, preprocessing and package versions."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded_model import LoadedModel

PACKAGES = ("seewhy", "torchvision", "timm", "pillow", "transformers", "open_clip_torch")


def collect_provenance(loaded: LoadedModel, *, hash_weights: bool) -> dict[str, Any]:
    """Return the model URI, class, weights hash, preprocessing and package versions, for JSON."""
    preprocess = loaded.preprocess.to_dict() if isinstance(loaded.preprocess, Preprocess) else None
    kind = type(loaded.module)
    return {
        "model": loaded.uri,
        "class": f"{kind.__module__}.{kind.__qualname__}",
        # Not for a bare module, which may be in training: its hash would take longer than the maps.
        "weights": loaded.weights_hash if hash_weights else None,
        "preprocess": preprocess,
        "versions": package_versions(),
    }


@cache
def package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
