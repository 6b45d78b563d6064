"""`Preprocess`: from an image to the model's input, and the `View` that maps results back to the photo.

Resizing and cropping use Pillow on 8-bit pixels, like timm and torchvision. Resizing tensors results in
different values, and in other predictions than those that the published accuracy was measured on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, get_args

import numpy as np
from PIL import Image

from seewhy.errors import ImageError, UnknownName, UsageError
from seewhy.images.conversion import check_pixels
from seewhy.images.presets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TIMM_CROP_MODES,
    ClassificationPreset,
    TimmConfig,
    per_channel,
)
from seewhy.images.resizing import (
    FILTERS,
    ResizedCrop,
    Rule,
    Size,
    center_offset,
    is_size,
    resize_shorter_side,
    scale_to_contain,
    scale_to_cover,
)
from seewhy.images.types import ImageArray
from seewhy.images.view import View

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Fit = Literal["crop", "squash", "pad"]
Channels = Literal["RGB", "BGR"]

# An extremely thin image needs gigabytes once its shorter side is enlarged. No photo comes near this limit.
MAX_RESIZED_PIXELS = 50_000_000
MAX_SIDE = 2**17  # pixels
MAX_INPUT_PIXELS = 100_000_000  # 1.2 GB in float32


@dataclass(frozen=True)
class Preprocess:
    """The conversion of an image to the model's input: resize, crop or pad, and normalize.

    Calling it with an image returns the input, float32 `(1, C, height, width)`, and a `View`.

    Attributes:
        size: Height and width of the input, in pixels.
        mean: Mean per channel, where white is 1: three numbers, or one for a grayscale model.
        std: Standard deviation per channel in the same units, above 0. The input is `(pixels / 255 - mean) / std`.
        interpolation: A Pillow filter: "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos".
        resize: Only for fit "crop": the length of the shorter side after resizing; or a height and width that `rule`
            interprets. In pixels, at least 1.
        rule: For a `resize` with two numbers. "exact": resize to it, ignoring the aspect ratio. "cover" or "contain":
            keep the aspect ratio, and cover it or fit into it.
        fit: "crop": the model's own evaluation preprocessing, which resizes and then crops the center to `size`. Where the
            crop extends beyond the image, it is padded with black (for rule "contain", with `mean`). "squash": resize
            the full image to `size`, ignoring the aspect ratio. "pad": fit the full image into `size`, centered, with
            `mean` (0 in the input) around it.
        channels: Channel order of the input, of `mean` and of `std`. "BGR" is for models trained on OpenCV images.

    Raises:
        UnknownName: `fit`, `rule`, `interpolation` or `channels` has an invalid value.
        UsageError: A number is out of range, or `mean` and `std` have different lengths.

    Example:
        >>> image = np.zeros((300, 400, 3), np.uint8)
        >>> inputs, view = Preprocess.imagenet(224)(image)
        >>> inputs.shape, view.visible_box
        (torch.Size([1, 3, 224, 224]), (68, 19, 331, 281))
    """

    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize: int | Size
    rule: Rule = "exact"
    fit: Fit = "crop"
    channels: Channels = "RGB"

    def __post_init__(self) -> None:
        for kind, value, choices in (
            ("interpolation", self.interpolation, FILTERS),
            ("rule", self.rule, get_args(Rule)),
            ("fit", self.fit, get_args(Fit)),
            ("channels", self.channels, get_args(Channels)),
        ):
            if value not in choices:
                raise UnknownName(kind, str(value), choices)
        if not is_size(self.size) or not (isinstance(self.resize, int) or is_size(self.resize)):
            raise UsageError(
                f"size {self.size!r} and resize {self.resize!r}: pass (height, width) in pixels; resize may be one number"
            )
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or min(self.std) <= 0:
            raise UsageError(f"mean {self.mean} and std {self.std}: give one or three numbers each, with std above 0")
        lengths = (*self.size, *((self.resize,) if isinstance(self.resize, int) else self.resize))
        if min(lengths) < 1:
            raise UsageError(f"size {self.size} and resize {self.resize}: each side must be at least 1 pixel")
        if max(lengths) > MAX_SIDE or self.size[0] * self.size[1] > MAX_INPUT_PIXELS:
            raise UsageError(f"size {self.size} and resize {self.resize}: the limit is {MAX_INPUT_PIXELS:,} pixels")

    @classmethod
    def imagenet(cls, size: int = 224) -> Self:
        """Return the usual ImageNet preprocessing: resize the shorter side (bilinear), then crop a square.

        Args:
            size: Side of the input in pixels. The shorter side is resized to 8/7 of it: 256 for 224.

        Raises:
            UsageError: `size` is not an integer, or below 1.

        Example:
            >>> Preprocess.imagenet(224).resize
            256
        """
        if not isinstance(size, int):
            raise UsageError(f"size {size!r}: pass the side of the input in pixels, such as 224")
        return cls((size, size), IMAGENET_MEAN, IMAGENET_STD, "bilinear", math.floor(size / 0.875))

    @classmethod
    def from_timm(cls, config: TimmConfig) -> Self:
        """Return the equivalent of `timm.data.create_transform(**config, is_training=False)`.

        Args:
            config: As returned by `timm.data.resolve_model_data_config(model)`. All crop modes of timm are supported.

        Raises:
            UnknownName: The crop mode or interpolation does not exist in timm.
            UsageError: `mean` or `std` does not match the number of channels.

        Example:
            >>> config = {"input_size": (3, 256, 256), "interpolation": "bicubic", "crop_pct": 0.95}
            >>> Preprocess.from_timm(config).resize
            269
        """
        channels, height, width = config["input_size"]
        mean = per_channel(config.get("mean") or IMAGENET_MEAN, channels)
        std = per_channel(config.get("std") or IMAGENET_STD, channels)
        mode = config.get("crop_mode") or "center"
        if mode not in TIMM_CROP_MODES:
            raise UnknownName("crop mode", mode, TIMM_CROP_MODES)
        fraction = config.get("crop_pct") or 0.875
        resize = (math.floor(height / fraction), math.floor(width / fraction))
        interpolation = config.get("interpolation") or "bilinear"
        if mode == "center" and resize[0] == resize[1]:  # a special case in timm too, with different rounding
            return cls((height, width), mean, std, interpolation, resize[0])
        return cls((height, width), mean, std, interpolation, resize, TIMM_CROP_MODES[mode])

    @classmethod
    def from_torchvision(cls, transforms: ClassificationPreset) -> Self:
        """Return the equivalent of `weights.transforms()` of a torchvision classifier, for PIL images.

        Args:
            transforms: The preset of the weights, an `ImageClassification` object.

        Raises:
            UsageError: The transforms are those of another task (detection, segmentation, video).

        Example:
            >>> from torchvision.models import ResNet18_Weights
            >>> Preprocess.from_torchvision(ResNet18_Weights.DEFAULT.transforms()).size
            (224, 224)
        """
        try:
            crop, resize = list(transforms.crop_size), list(transforms.resize_size)
            mean, std, interpolation = transforms.mean, transforms.std, transforms.interpolation.value
        except (AttributeError, TypeError):
            raise UsageError(
                f"{type(transforms).__name__} is not a classification preset of torchvision; create a Preprocess"
            ) from None
        size = (crop[0], crop[-1])
        return cls(
            size, tuple(mean), tuple(std), interpolation, resize[0] if len(resize) == 1 else (resize[0], resize[1])
        )

    def with_fit(self, fit: Fit) -> Self:
        """Return a copy with another `fit`: "crop", "squash" or "pad".

        Args:
            fit: How an image is fitted to the input size, as for the attribute `fit`.

        Raises:
            UnknownName: `fit` has another value.

        Example:
            >>> Preprocess.imagenet().with_fit("squash").fit
            'squash'
        """
        return dataclasses.replace(self, fit=fit)

    def to_dict(self) -> dict[str, object]:
        """Return all fields for JSON. `Preprocess(**fields)`, with lists converted to tuples, restores the object.

        Example:
            >>> Preprocess.imagenet().to_dict()["size"]
            [224, 224]
        """
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    def __call__(self, image: ImageArray) -> tuple[Tensor, View]:
        """Return the model's input, float32 `(1, C, height, width)`, and the rectangle of the image that it shows.

        Args:
            image: uint8, shape `(H, W, 3)`, as `load_image` returns it.

        Raises:
            UsageError: The array has another shape or type.
            ImageError: The image is too thin to be resized and cropped.
        """
        crop, view = self.resize_and_crop(image)
        return self.to_batch([crop]), view

    def resize_and_crop(self, image: ImageArray) -> tuple[ResizedCrop, View]:
        """Return the resized and cropped 8-bit pixels and their `View`; `to_batch` normalizes them. Does not need torch.

        Args:
            image: uint8, shape `(H, W, 3)`, as `load_image` returns it.

        Raises:
            UsageError: The array has another shape or type.
            ImageError: The image is too thin to be resized and cropped.
        """
        check_pixels(image)
        photo = Image.fromarray(image)
        if len(self.mean) == 1:
            photo = photo.convert("L")
        shape = (photo.height, photo.width)
        resized_size = self._get_resized_size(shape)
        if math.prod(resized_size) > max(MAX_RESIZED_PIXELS, math.prod(shape)):
            raise ImageError("image", f"{shape[1]} x {shape[0]} is too thin to crop; use fit 'pad' or 'squash'")
        top, left = (center_offset(length, crop) for length, crop in zip(resized_size, self.size, strict=True))
        resized = photo.resize(resized_size[::-1], FILTERS[self.interpolation])
        box = (left, top, left + self.size[1], top + self.size[0])
        down, across = shape[0] / resized_size[0], shape[1] / resized_size[1]
        view = View(shape, self.size, (box[0] * across, box[1] * down, box[2] * across, box[3] * down))
        if self.fit == "pad":  # the padding is 0 after normalization, which 8-bit pixels may be unable to represent
            return ResizedCrop(np.array(resized), (-top, -left)), view
        return ResizedCrop(np.array(self._crop(resized, box))), view

    def denormalize(self, inputs: Tensor) -> ImageArray:
        """Return the image that an input shows, the inverse of normalization.

        Args:
            inputs: One input `(C, height, width)`.

        Returns:
            uint8 `(height, width, 3)`, RGB.

        Example:
            >>> preprocess = Preprocess.imagenet(224)
            >>> inputs, _ = preprocess(np.full((224, 224, 3), 7, np.uint8))
            >>> int(preprocess.denormalize(inputs[0]).min())
            7
        """
        import torch

        values = inputs.detach().to("cpu", torch.float32) * to_column(self.std) + to_column(self.mean)
        pixels = self._reorder_channels((values * 255).round().clamp(0, 255).to(torch.uint8))
        return pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()

    def _get_resized_size(self, shape: Size) -> Size:
        """Return the height and width to which an image of `shape` is resized before the crop."""
        if self.fit == "squash":
            return self.size
        if self.fit == "pad":
            return scale_to_contain(shape, self.size)
        if isinstance(self.resize, int):
            return resize_shorter_side(shape, self.resize)
        if self.rule == "exact":
            return self.resize
        return (scale_to_cover if self.rule == "cover" else scale_to_contain)(shape, self.resize)

    def _crop(self, resized: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        """Crop `box`, padded with black where it extends beyond the image, or with `mean` for rule "contain"."""
        cropped = resized.crop(box)
        if self.rule == "contain" and (box[0] < 0 or box[1] < 0):
            mean = self.mean if self.channels == "RGB" else self.mean[::-1]
            fill = tuple(round(255 * value) for value in mean)
            cropped = Image.new(resized.mode, cropped.size, fill if len(fill) == 3 else fill[0])
            cropped.paste(resized, (-box[0], -box[1]))
        return cropped

    def to_batch(self, crops: Sequence[ResizedCrop], device: torch.device | str | None = None) -> Tensor:
        """Normalize results of `resize_and_crop` into one batch.

        Args:
            crops: One result per image, without the views.
            device: Where the batch is computed and stored. Default: the CPU.

        Returns:
            float32 `(B, C, height, width)`.
        """
        import torch

        if all(crop.pixels.shape[:2] == self.size for crop in crops):
            return self._normalize(torch.from_numpy(np.stack([crop.pixels for crop in crops])).to(device))
        batch = torch.zeros(len(crops), len(self.mean), *self.size, device=device)
        for inputs, crop in zip(batch, crops, strict=True):
            top, left = crop.corner
            height, width = crop.pixels.shape[:2]
            pixels = torch.from_numpy(crop.pixels).to(device)
            inputs[:, top : top + height, left : left + width] = self._normalize(pixels[None])[0]
        return batch

    def _normalize(self, pixels: Tensor) -> Tensor:
        """Convert pixels, uint8 (B, height, width[, 3]), to normalized float32 (B, C, height, width)."""
        import torch

        channels = pixels.reshape(*pixels.shape[:3], len(self.mean)).permute(0, 3, 1, 2)
        values = self._reorder_channels(channels).contiguous().to(torch.float32)
        mean, std = (to_column(numbers).to(pixels.device) for numbers in (self.mean, self.std))
        return values.div_(255).sub_(mean).div_(std)

    def _reorder_channels(self, values: Tensor) -> Tensor:
        """Convert (..., C, height, width) between RGB and the model's channel order, in either direction."""
        return values if self.channels == "RGB" else values.flip(-3)


def to_column(values: tuple[float, ...]) -> Tensor:
    """Return numbers as float32 (C, 1, 1)."""
    import torch

    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
