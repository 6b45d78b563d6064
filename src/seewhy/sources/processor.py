"""The image processors of transformers, read into a `Preprocess`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from seewhy.preprocess import Preprocess

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
    normalize = config.get("do_normalize", True)
    mean = three(config.get("image_mean") or 0.0 if normalize else 0.0)
    std = three(config.get("image_std") or 1.0 if normalize else 1.0)
    mean, std = tuple((value + offset) / factor for value in mean), tuple(value / factor for value in std)
    interpolation = FILTERS[int(config.get("resample", 2))]
    size, crop = config.get("size") or 224, config.get("crop_size")
    crops = bool(config.get("do_center_crop", False)) and crop
    if isinstance(size, Mapping) and "shortest_edge" in size and "longest_edge" not in size:
        short = int(size["shortest_edge"])
        part = config.get("crop_pct")
        if part and short < 384:  # ConvNeXt's own rule
            return Preprocess((short, short), mean, std, interpolation, int(short / part))
        if crops:
            return Preprocess(pair(crop), mean, std, interpolation, short)
        return Preprocess((short, short), mean, std, interpolation, (short, short))
    whole = pair(size)
    if not config.get("do_resize", True):
        whole = pair(crop or size)
    return Preprocess(pair(crop) if crops else whole, mean, std, interpolation, whole)


def from_processor(processor: Any) -> tuple[Preprocess, list[str]]:
    """The preprocessing of a processor, and in words where its own result differs from that."""
    preprocess = from_config(processor.to_dict())
    name = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
    tall = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(tall).resize((320, 640), Image.Resampling.BICUBIC))
    height, width = preprocess.size
    try:
        given = processor(images=Image.fromarray(smooth), return_tensors="pt")["pixel_values"]
    except Exception:  # one that wants more than a picture
        return preprocess, [f"preprocessing taken from {name}'s settings, which could not be tried on a picture"]
    own, _ = preprocess(smooth)
    if tuple(given.shape) != tuple(own.shape):
        return preprocess, [f"preprocessing: squashed to {height}x{width}; {name} itself keeps the photo's proportions"]
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
