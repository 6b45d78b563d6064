"""Convert the image processors of transformers to a `Preprocess`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from seewhy.images.preprocess import Preprocess

FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # indexed by Pillow's filter numbers
MAX_TRIED_PIXELS = 2**24  # of the input in the comparison with the processor itself
TOLERANCE = 0.02  # in units of the normalized input: less than one of 256 steps


def preprocess_from_config(config: Mapping[str, Any]) -> Preprocess:
    """Return the `Preprocess` closest to an image processor with these settings.

    >>> config = {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True, "resample": 3}
    >>> preprocess_from_config(config).resize
    256
    """
    # Rescaling, offset and normalization are one linear function, expressed as mean and std of values in [0, 1].
    factor = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0
    factor = 1.0 if math.isclose(factor, 1.0) else factor
    offset = 1.0 if config.get("rescale_offset") else 0.0
    normalize = config.get("do_normalize", False)
    mean = to_triple(config.get("image_mean") or 0.0 if normalize else 0.0)
    std = to_triple(config.get("image_std") or 1.0 if normalize else 1.0)
    if config.get("include_top"):  # EfficientNet divides by the std a second time
        std = tuple(a * b for a, b in zip(std, to_triple(config.get("image_std") or 1.0), strict=True))
    create = partial(
        Preprocess,
        mean=tuple((value + offset) / factor for value in mean),
        std=tuple(value / factor for value in std),
        interpolation=FILTERS[int(config.get("resample", 2))],
        channels="BGR" if config.get("do_flip_channel_order") else "RGB",
    )
    kind = str(config.get("image_processor_type", ""))
    size, crop = config.get("size") or 224, config.get("crop_size")
    has_crop = bool(config.get("do_center_crop", False)) and crop
    if isinstance(size, Mapping) and "shortest_edge" in size and "longest_edge" not in size:
        shorter = int(size["shortest_edge"])
        fraction = config.get("crop_pct")
        if fraction and shorter < 384:  # ConvNeXt: crops only below 384 pixels
            return create(size=(shorter, shorter), resize=int(shorter / fraction))
        if has_crop:
            return create(size=to_pair(crop), resize=int(256 / 224 * shorter) if kind.startswith("Levit") else shorter)
        return create(size=(shorter, shorter), resize=(shorter, shorter))
    resized = to_pair(size)
    if kind.startswith("Perceiver") and has_crop:  # crops a fraction of the shorter side before it resizes
        return create(size=resized, resize=to_pair(crop), rule="cover")
    if not config.get("do_resize", True):
        resized = to_pair(crop or size)
    return create(size=to_pair(crop) if has_crop else resized, resize=resized)


def preprocess_from_processor(processor: Any) -> tuple[Preprocess | None, list[str]]:
    """Convert a processor to a `Preprocess`, and note how its own result on a test image differs.

    Returns None for a processor that does not return one image (video, patches).
    """
    preprocess = preprocess_from_config(processor.to_dict())
    name = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
    noise = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(noise).resize((320, 640), Image.Resampling.BICUBIC))  # twice as high as wide
    height, width = preprocess.size
    if height * width > MAX_TRIED_PIXELS:
        return preprocess, [f"preprocessing taken from the settings of {name}, not tried at {height}x{width}"]
    try:
        expected = processor(images=Image.fromarray(smooth), return_tensors="pt")["pixel_values"]
    except Exception:  # a processor that needs more than an image
        return preprocess, [f"preprocessing taken from the settings of {name}, which could not be tried on an image"]
    shape = tuple(expected.shape)
    if len(shape) != 4 or shape[:2] != (1, 3):
        return None, [
            f"preprocessing: none, because {name} converts an image to {shape} (a video, patches); pass tensors"
        ]
    inputs, _ = preprocess(smooth)
    if shape != inputs.shape:
        is_proportional = abs(math.log(shape[2] / shape[3] / 2)) < 0.1  # up to rounding to a multiple of 32
        behavior = "keeps the aspect ratio" if is_proportional else f"resizes a test image to {shape[2]}x{shape[3]}"
        return preprocess, [f"preprocessing: squashed to {height}x{width}; {name} itself {behavior}"]
    if (difference := float((expected - inputs).abs().max())) > TOLERANCE:
        return preprocess, [
            f"preprocessing: differs slightly from {name}; on a test image by up to {difference:.2g} per value"
        ]
    return preprocess, []


def to_triple(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),) * 3


def to_pair(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        if "height" in size:
            return int(size["height"]), int(size["width"])
        edge = size.get("shortest_edge") or size.get("longest_edge") or 224
        return int(edge), int(edge)
    if isinstance(size, list | tuple):
        return int(size[0]), int(size[-1])
    return int(size), int(size)
