"""What a user gives to be explained, a tensor or pictures, as the tensor that the network takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from seewhy.errors import UsageError
from seewhy.images import load_image, name_of
from seewhy.models import LoadedModel
from seewhy.parts import Picture
from seewhy.preprocess import Fit, Preprocess


def read_inputs(inputs: Any, loaded: LoadedModel) -> tuple[Tensor, tuple[Picture, ...] | None, bool]:
    """The tensor for the network, the pictures it was made from, and whether a single picture was given."""
    tensor, pictures, single = read(inputs, loaded)
    if tensor.is_inference():  # or it could never be part of a graph
        with torch.inference_mode(False):
            tensor = tensor.clone()
    return tensor, pictures, single


def read(inputs: Any, loaded: LoadedModel) -> tuple[Tensor, tuple[Picture, ...] | None, bool]:
    if isinstance(inputs, Tensor):
        if inputs.dim() < 3 or not inputs.is_floating_point():
            raise UsageError(
                f"inputs of shape {tuple(inputs.shape)}, {inputs.dtype}: give floats (B, C, height, width)."
            )
        return inputs, None, False
    single = not isinstance(inputs, (list, tuple))
    sources = [inputs] if single else list(inputs)
    if not sources:
        raise UsageError("no pictures: the list is empty.")
    if loaded.preprocess is None:
        raise UsageError(
            f"{loaded.uri} brings no preprocessing for pictures: pass preprocess=seewhy.Preprocess.imagenet(224), or a tensor."
        )
    pairs = [read_picture(source, loaded.preprocess) for source in sources]
    tensor = torch.cat([pair[0] for pair in pairs])
    like = next(loaded.module.parameters(), tensor)
    pictures = tuple(pair[1] for pair in pairs if pair[1] is not None)
    return tensor.to(like.device, like.dtype), pictures if len(pictures) == len(pairs) else None, single


def read_picture(source: Any, preprocess: Any) -> tuple[Tensor, Picture | None]:
    image = load_image(source)
    if isinstance(preprocess, Preprocess):
        tensor, view = preprocess(image)
        return tensor, Picture(name_of(source), image, view)
    tensor = preprocess(Image.fromarray(image))  # any other function tells nothing about where things went
    if not isinstance(tensor, Tensor) or tensor.dim() not in (3, 4):
        raise UsageError(f"the preprocess gave {type(tensor).__name__}; it must give a tensor (C, H, W).")
    return tensor if tensor.dim() == 4 else tensor[None], None


def with_fit(loaded: LoadedModel, fit: Fit) -> LoadedModel:
    if not isinstance(loaded.preprocess, Preprocess):
        raise UsageError(f"fit={fit!r}: only a seewhy.Preprocess can change how a picture meets the input size.")
    return replace(loaded, preprocess=loaded.preprocess.with_fit(fit))
