"""From a photo to a network's input, and the View that leads back to the photo.

Resizing and cropping are Pillow's, on 8-bit pixels, as in timm and torchvision: a resize of tensors gives other
numbers, and so other answers than those that the published accuracy stands for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.errors import ImageError, UnknownName, UsageError
from seewhy.images.view import View

if TYPE_CHECKING:
    from torch import Tensor

Bytes = NDArray[np.uint8]
Pair = tuple[int, int]
Fit = Literal["crop", "squash", "pad"]
Rule = Literal["exact", "cover", "contain"]
Channels = Literal["RGB", "BGR"]

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "nearest-exact": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# timm's names of its ways to reach the input size, and the rule for the two sides that each follows
TIMM_CROPS: dict[str, Rule] = {"center": "cover", "squash": "exact", "border": "contain"}

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# A thread-thin picture becomes a ribbon of gigabytes once its short side is stretched; no photo comes near this.
MAX_RESIZED = 50_000_000


@dataclass(frozen=True, eq=False)
class Cut:
    """8-bit `pixels` (H, W, 3), or (H, W) of a grey network, and where in the input their upper left lies (down, across)."""

    pixels: Bytes
    corner: Pair = (0, 0)


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes a network's input.

    `size` (height, width) is the input's. `mean` and `std`, in units where white is 1, are one number a channel: three,
    or one for a network of grey pictures. `interpolation` names a Pillow filter ("bilinear", "bicubic", ...). `channels`
    "BGR" is the order of networks trained on OpenCV's pictures; `mean` and `std` are in that order too.

    `fit="crop"` is the model's own evaluation preprocessing: a resize, and a centre crop to `size`. `resize` is the
    length of the shorter side; or a (height, width) which, by `rule`, the resized photo equals ("exact", squashed),
    just covers ("cover") or just fits into ("contain"). Where the crop is the larger, it is filled up with black, or
    for "contain" with `mean`. The other fits show the network the whole photo: "squash" resizes it to `size`, and "pad"
    puts it, in its own proportions, in the middle of `size`, with `mean` (0 for the network) around it.

    Raises UnknownName for a `fit`, `rule`, `interpolation` or `channels` that does not exist, UsageError for numbers that
    make no sense.

    >>> photo = np.zeros((300, 400, 3), np.uint8)
    >>> inputs, view = Preprocess.imagenet(224)(photo)
    >>> inputs.shape, view.seen
    (torch.Size([1, 3, 224, 224]), (68, 19, 331, 281))
    """

    size: Pair
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize: int | Pair
    rule: Rule = "exact"
    fit: Fit = "crop"
    channels: Channels = "RGB"

    def __post_init__(self) -> None:
        for kind, given, choices in (
            ("interpolation", self.interpolation, FILTERS),
            ("rule", self.rule, get_args(Rule)),
            ("fit", self.fit, get_args(Fit)),
            ("channels", self.channels, get_args(Channels)),
        ):
            if given not in choices:
                raise UnknownName(kind, str(given), choices)
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or min(self.std) <= 0:
            raise UsageError(f"mean {self.mean} and std {self.std}: one or three numbers each, std above 0")
        lengths = (*self.size, *((self.resize,) if isinstance(self.resize, int) else self.resize))
        if min(lengths) < 1:
            raise UsageError(f"size {self.size} and resize {self.resize}: at least one pixel each")

    @classmethod
    def imagenet(cls, size: int = 224) -> Self:
        """The usual way for ImageNet: shorter side to 8/7 of `size` (256 for 224), bilinear, a square centre crop.

        >>> Preprocess.imagenet(224).resize
        256
        """
        return cls((size, size), IMAGENET_MEAN, IMAGENET_STD, "bilinear", math.floor(size / 0.875))

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Self:
        """What `timm.data.create_transform(**config, is_training=False)` does, for every crop mode that timm has.

        `config` is what `timm.data.resolve_model_data_config(model)` gives. Raises UsageError when timm knows no such
        crop mode or interpolation, or when the channels do not match.

        >>> config = {"input_size": (3, 256, 256), "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center"}
        >>> Preprocess.from_timm(config).resize
        269
        """
        channels, height, width = config["input_size"]
        mean = channel_values(config.get("mean") or IMAGENET_MEAN, channels)
        std = channel_values(config.get("std") or IMAGENET_STD, channels)
        mode = config.get("crop_mode") or "center"
        if mode not in TIMM_CROPS:
            raise UnknownName("crop mode", mode, TIMM_CROPS)
        part = config.get("crop_pct") or 0.875
        sides = (math.floor(height / part), math.floor(width / part))
        interpolation = config.get("interpolation") or "bilinear"
        if mode == "center" and sides[0] == sides[1]:  # in timm too a case of its own, which rounds in another way
            return cls((height, width), mean, std, interpolation, sides[0])
        return cls((height, width), mean, std, interpolation, sides, TIMM_CROPS[mode])

    @classmethod
    def from_torchvision(cls, transforms: Any) -> Self:
        """What `weights.transforms()` of a torchvision classification model does to a PIL image.

        Raises UsageError for other presets (detection, segmentation, video).

        >>> from torchvision.models import ResNet18_Weights
        >>> Preprocess.from_torchvision(ResNet18_Weights.DEFAULT.transforms()).size
        (224, 224)
        """
        try:
            crop, resize = list(transforms.crop_size), list(transforms.resize_size)
            mean, std, interpolation = transforms.mean, transforms.std, transforms.interpolation.value
        except (AttributeError, TypeError):
            raise UsageError(f"{type(transforms).__name__} is not torchvision's preset for classification") from None
        size = (crop[0], crop[-1])
        return cls(size, tuple(mean), tuple(std), interpolation, resize[0] if len(resize) == 1 else tuple(resize))

    def with_fit(self, fit: Fit) -> Self:
        """The same with another `fit`: "crop", "squash" or "pad".

        >>> Preprocess.imagenet().with_fit("squash").fit
        'squash'
        """
        return dataclasses.replace(self, fit=fit)

    def to_dict(self) -> dict[str, Any]:
        """Every field, for JSON; `Preprocess(**...)` of it, lists made tuples, is the same again.

        >>> Preprocess.imagenet().to_dict()["size"]
        [224, 224]
        """
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    def __call__(self, image: Bytes) -> tuple[Tensor, View]:
        """The network's input, float32 (1, channels, height, width), and which rectangle of the photo fills it.

        `image` is uint8 (H, W, 3), as `load_image` gives it. Raises UsageError for another array, ImageError for a
        picture so long and thin that a crop of it cannot be made.
        """
        cut, view = self.cut(image)
        return self.batch([cut]), view

    def cut(self, image: Bytes) -> tuple[Cut, View]:
        """What of a photo the network sees, as 8-bit pixels at the input's scale, and the View. Needs no torch.

        `batch` makes the network's input of it. Takes and raises what a call does.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UsageError(f"an array of {image.dtype} {image.shape}; give uint8 (H, W, 3), as load_image does")
        photo = Image.fromarray(image)
        if len(self.mean) == 1:
            photo = photo.convert("L")
        shape = (photo.height, photo.width)
        resized = self.resized(shape)
        if math.prod(resized) > max(MAX_RESIZED, math.prod(shape)):
            raise ImageError("picture", f"{shape[1]} x {shape[0]} is too thin to be cropped; use fit pad or squash")
        top, left = (offset(length, want) for length, want in zip(resized, self.size, strict=True))
        picture = photo.resize(resized[::-1], FILTERS[self.interpolation])
        box = (left, top, left + self.size[1], top + self.size[0])
        down, across = shape[0] / resized[0], shape[1] / resized[1]
        view = View(shape, self.size, (box[0] * across, box[1] * down, box[2] * across, box[3] * down))
        if self.fit == "pad":  # what is around it is 0 for the network, which no pixel may be
            return Cut(np.array(picture), (-top, -left)), view
        return Cut(np.array(self.cropped(picture, box))), view

    def restore(self, inputs: Tensor) -> Bytes:
        """The picture as the network saw it: uint8 (height, width, 3) of an input (channels, height, width).

        >>> preprocess = Preprocess.imagenet(224)
        >>> inputs, _ = preprocess(np.full((224, 224, 3), 7, np.uint8))
        >>> int(preprocess.restore(inputs[0]).min())
        7
        """
        import torch

        values = inputs.detach().to("cpu", torch.float32) * column(self.std) + column(self.mean)
        picture = self.ordered((values * 255).round().clamp(0, 255).to(torch.uint8))
        return picture.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()

    def resized(self, shape: Pair) -> Pair:
        """(height, width) to which a photo of `shape` is resized, before the crop."""
        if self.fit == "squash":
            return self.size
        if self.fit == "pad":
            return scaled(shape, self.size, max)
        if isinstance(self.resize, int):
            # torchvision's rule, and therefore its rounding down
            short = min(shape)
            return (self.resize * shape[0] // short, self.resize * shape[1] // short)
        if self.rule == "exact":
            return self.resize
        return scaled(shape, self.resize, min if self.rule == "cover" else max)

    def cropped(self, picture: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        """The `box` of the resized photo, filled up where it reaches beyond."""
        cut = picture.crop(box)  # which fills with black
        if self.rule == "contain" and (box[0] < 0 or box[1] < 0):
            mean = self.mean if self.channels == "RGB" else self.mean[::-1]
            fill = tuple(round(255 * value) for value in mean)
            cut = Image.new(picture.mode, cut.size, fill if len(fill) == 3 else fill[0])
            cut.paste(picture, (-box[0], -box[1]))
        return cut

    def batch(self, cuts: Sequence[Cut], device: Any = None) -> Tensor:
        """The network's inputs, float32 (B, channels, height, width), of what `cut` gave: minus `mean`, over `std`."""
        import torch

        if all(cut.pixels.shape[:2] == self.size for cut in cuts):
            return self.normal(torch.from_numpy(np.stack([cut.pixels for cut in cuts])).to(device))
        inputs = torch.zeros(len(cuts), len(self.mean), *self.size, device=device)
        for place, cut in zip(inputs, cuts, strict=True):
            top, left = cut.corner
            height, width = cut.pixels.shape[:2]
            part = torch.from_numpy(cut.pixels).to(device)
            place[:, top : top + height, left : left + width] = self.normal(part[None])[0]
        return inputs

    def normal(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 (B, height, width, 3) or (B, height, width), as float32 (B, channels, height, width)."""
        import torch

        channels = pixels.reshape(*pixels.shape[:3], len(self.mean)).permute(0, 3, 1, 2)
        values = self.ordered(channels).contiguous().to(torch.float32)
        mean, std = (column(each).to(pixels.device) for each in (self.mean, self.std))
        return values.div_(255).sub_(mean).div_(std)

    def ordered(self, values: Tensor) -> Tensor:
        """From RGB to the network's order of channels (the third axis from behind), or back."""
        return values if self.channels == "RGB" else values.flip(-3)


def channel_values(values: Any, channels: int) -> tuple[float, ...]:
    """One number a channel; a single number holds for each."""
    found = tuple(float(value) for value in values)
    found = found * channels if len(found) == 1 else found
    if len(found) != channels:
        raise UsageError(f"{len(found)} numbers of mean or std for {channels} channels")
    return found


def scaled(shape: Pair, target: Pair, side: Any) -> Pair:
    """`shape` in its proportions, made to fit into `target` (`side` is max) or to cover it (`side` is min)."""
    ratio = side(shape[0] / target[0], shape[1] / target[1])
    return max(1, round(shape[0] / ratio)), max(1, round(shape[1] / ratio))


def offset(length: int, want: int) -> int:
    """Where a centred stretch of `want` begins on `length`, rounded as in torchvision; negative when it is longer."""
    return round((length - want) / 2) if length >= want else -((want - length) // 2)


def column(values: tuple[float, ...]) -> Tensor:
    """Numbers as float32 (channels, 1, 1)."""
    import torch

    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
