"""The images that are explained at each step: read once, before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import torch
from torch import Tensor

from seewhy.errors import UsageError, describe_argument
from seewhy.images.loading import load_image
from seewhy.images.preprocess import Preprocess
from seewhy.images.types import ImageArray, ImageSource
from seewhy.models.loaded_model import PreprocessFunction
from seewhy.storage.paths import number_duplicates, safe_name

ImagesSpec = Tensor | ImageSource | Sequence[Tensor | ImageSource]


@dataclass(frozen=True, eq=False)
class FixedImages:
    """Model inputs (B, C, *size) on the CPU, or decoded images that the preprocessing turns into them; and their names."""

    data: Tensor | list[ImageArray]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def inputs(self, device: torch.device, dtype: torch.dtype) -> Tensor | list[ImageArray]:
        """Return what `explain` takes, for a model with weights of this device and type."""
        return self.data.to(device, dtype) if isinstance(self.data, Tensor) else self.data


def read_images(
    images: ImagesSpec, preprocess: Preprocess | PreprocessFunction | None, names: Sequence[str] | None
) -> FixedImages:
    """Read images. Raises UsageError for what cannot be explained, ImageError for an image that cannot be read."""
    sources = list(images) if isinstance(images, (list, tuple)) else [images]
    if not sources:
        raise UsageError("images: the list is empty.")
    data: Tensor | list[ImageArray]
    if all(isinstance(item, Tensor) for item in sources):
        data = as_batch(images)  # type: ignore[arg-type]
        defaults = [f"image_{number}" for number in range(1, len(data) + 1)]
    else:
        if preprocess is None:
            raise UsageError(
                "images that are not tensors need preprocess=, such as seewhy.Preprocess.imagenet(224) or the transform of "
                "your validation data."
            )
        data = [load_image(source).copy() for source in sources]  # type: ignore[arg-type]
        defaults = [name_of(source, number) for number, source in enumerate(sources, 1)]
    return FixedImages(data, check_names(names, defaults))


def as_batch(images: Tensor | Sequence[Tensor]) -> Tensor:
    """Return a copy (B, C, *size) on the CPU of a batch, or of a list of tensors (C, *size)."""
    shapes = [tuple(one.shape) for one in images]
    if not isinstance(images, Tensor) and len(set(shapes)) > 1:
        raise UsageError(
            f"images: tensors of different shapes, {shapes[0]} and {shapes[-1]}; pass tensors of one shape."
        )
    batch = images if isinstance(images, Tensor) else torch.stack(list(images))
    with torch.inference_mode(False):
        if batch.dim() < 2 or not batch.is_floating_point() or not len(batch):
            raise UsageError(
                f"images of shape {tuple(batch.shape)}, {batch.dtype}: pass a float tensor (B, C, height, width) that is "
                "ready for the model."
            )
        return batch.detach().to("cpu", torch.float32, copy=True)


def name_of(source: object, number: int) -> str:
    return PurePath(source).stem if isinstance(source, (str, PurePath)) else f"image_{number}"


def check_names(names: Sequence[str] | None, defaults: Sequence[str]) -> tuple[str, ...]:
    """Return one valid and unique file name per image."""
    if names is not None:
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise UsageError(f"names={describe_argument(names)}: pass a list of texts, one per image.")
        if len(names) != len(defaults):
            raise UsageError(f"names: {len(names)} names for {len(defaults)} images; pass one per image.")
    unique = number_duplicates([PurePath(safe_name(name)) for name in names or defaults])
    return tuple(path.name for path in unique)
