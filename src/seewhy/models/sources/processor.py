"""The image processors of transformers, read into a `Preprocess`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from seewhy.images.preprocess import Preprocess

FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # in the order of Pillow's numbers
CLOSE = 0.02  # in the units of a normalized input: less than one of 256 steps


def from_config(config: Mapping[str, Any]) -> Preprocess:
    """What an image processor with these settings does, as near as a `Preprocess` comes to it.

    >>> from_config({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True, "resample": 3}).resize
    256
    """
    # rescale, an offset and normalize are one straight line, written here as mean and std of values from 0 to 1
    factor = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0
    factor = 1.0 if math.isclose(factor, 1.0) else factor
    offset = 1.0 if config.get("rescale_offset") else 0.0
    normalize = config.get("do_normalize", False)
    mean = three(config.get("image_mean") or 0.0 if normalize else 0.0)
    std = three(config.get("image_std") or 1.0 if normalize else 1.0)
    if config.get("include_top"):  # EfficientNet divides by it once more
        std = tuple(a * b for a, b in zip(std, three(config.get("image_std") or 1.0), strict=True))
    make = partial(
        Preprocess,
        mean=tuple((value + offset) / factor for value in mean),
        std=tuple(value / factor for value in std),
        interpolation=FILTERS[int(config.get("resample", 2))],
        channels="BGR" if config.get("do_flip_channel_order") else "RGB",
    )
    kind = str(config.get("image_processor_type", ""))
    size, crop = config.get("size") or 224, config.get("crop_size")
    crops = bool(config.get("do_center_crop", False)) and crop
    if isinstance(size, Mapping) and "shortest_edge" in size and "longest_edge" not in size:
        short = int(size["shortest_edge"])
        part = config.get("crop_pct")
        if part and short < 384:  # ConvNeXt's own rule
            return make(size=(short, short), resize=int(short / part))
        if crops:
            return make(size=pair(crop), resize=int(256 / 224 * short) if kind.startswith("Levit") else short)
        return make(size=(short, short), resize=(short, short))
    whole = pair(size)
    if kind.startswith("Perceiver") and crops:  # which crops first, a part of the shorter side
        return make(size=whole, resize=pair(crop), rule="cover")
    if not config.get("do_resize", True):
        whole = pair(crop or size)
    return make(size=pair(crop) if crops else whole, resize=whole)


def from_processor(processor: Any) -> tuple[Preprocess | None, list[str]]:
    """The preprocessing of a processor, and in words where its own result differs from that.

    None for one that makes something else of a picture than a picture.
    """
    preprocess = from_config(processor.to_dict())
    name = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
    tall = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(tall).resize((320, 640), Image.Resampling.BICUBIC))
    height, width = preprocess.size
    try:
        given = processor(images=Image.fromarray(smooth), return_tensors="pt")["pixel_values"]
    except Exception:  # one that wants more than a picture
        return preprocess, [f"preprocessing taken from {name}'s settings, which could not be tried on a picture"]
    shape = tuple(given.shape)
    if len(shape) != 4 or shape[:2] != (1, 3):
        return None, [f"preprocessing: none, as {name} makes {shape} of a picture (a video, patches); give tensors"]
    own, _ = preprocess(smooth)
    if shape != own.shape:
        down, across = shape[2:]
        alike = abs(math.log(down / across / 2)) < 0.1  # but for rounding, to a multiple of 32
        how = "keeps the photo's proportions" if alike else f"makes {down}x{across} of a test picture"
        return preprocess, [f"preprocessing: squashed to {height}x{width}; {name} itself {how}"]
    if (off := float((given - own).abs().max())) > CLOSE:
        return preprocess, [
            f"preprocessing: not quite that of {name}; on a test picture the values differ by {off:.2g}"
        ]
    return preprocess, []


def three(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),) * 3


def pair(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        if "height" in size:
            return int(size["height"]), int(size["width"])
        edge = size.get("shortest_edge") or size.get("longest_edge") or 224
        return int(edge), int(edge)
    if isinstance(size, list | tuple):
        return int(size[0]), int(size[-1])
    return int(size), int(size)
