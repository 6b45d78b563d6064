"""Images, as in `pytorch_grad_cam.utils.image`: preprocess, scale maps, draw them. OpenCV is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seewhy.compat.unknown_names import name_lookup
from seewhy.errors import UsageError
from seewhy.rendering import colors

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# The color maps of OpenCV, by number, that seewhy has too.
COLOR_TABLES = {2: "jet", 13: "magma", 14: "inferno", 16: "viridis", 17: "cividis", 20: "turbo"}


def preprocess_image(
    img: NDArray[Any], mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)
) -> Tensor:
    """Return an image as a normalized batch of one.

    Args:
        img: Array `(height, width, 3)`, float in [0, 1] or uint8.
        mean: Subtracted from each color.
        std: Divides each color.

    Returns:
        A float32 tensor `(1, 3, height, width)`; float64 for a float64 image.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(img)).permute(2, 0, 1)
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.clone()
    shape = (-1, 1, 1)
    return ((pixels - pixels.new_tensor(mean).reshape(shape)) / pixels.new_tensor(std).reshape(shape))[None]


def deprocess_image(img: NDArray[Any]) -> Bytes:
    """Return a gradient as an image: mean 0.5, standard deviation 0.1, cut to [0, 1].

    Args:
        img: Array of any shape.
    """
    scaled = (img - np.mean(img)) / (np.std(img) + 1e-5) * 0.1 + 0.5
    pixels: Bytes = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return pixels


def scale_cam_image(cam: NDArray[Any], target_size: tuple[int, ...] | None = None) -> Floats:
    """Scale each map to [0, 1] by its minimum and maximum, then resize it.

    Args:
        cam: Maps `(B, *size)`.
        target_size: The new size, the last axis first, as in OpenCV. Default: no resizing.

    Returns:
        Float32 maps. Two axes are resized linearly, three by splines, as in pytorch-grad-cam.
    """
    maps = []
    for one in cam:
        scaled = one - np.min(one)
        scaled = np.asarray(scaled / (1e-7 + np.max(scaled)), np.float32)
        maps.append(scaled if target_size is None else resize(scaled, target_size[::-1]))
    return np.asarray(maps, np.float32)


def resize(values: Floats, size: tuple[int, ...]) -> Floats:
    if values.ndim == 2:
        resized = F.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear", align_corners=False)
        result: Floats = resized[0, 0].numpy()
        return result
    from scipy.ndimage import zoom

    zoomed: Floats = zoom(values, [new / old for new, old in zip(size, values.shape, strict=True)])
    return zoomed


def show_cam_on_image(
    img: NDArray[Any], mask: NDArray[Any], use_rgb: bool = False, colormap: int = 2, image_weight: float = 0.5
) -> Bytes:
    """Draw a map over an image and divide by the maximum.

    Args:
        img: The image `(height, width, 3)`, float in [0, 1].
        mask: The map `(height, width)` in [0, 1].
        use_rgb: True if the colors of `img` are red, green, blue; False for blue, green, red.
        colormap: The number of a color map in OpenCV: 2 (jet, default), 13 (magma), 14 (inferno), 16 (viridis), 17 (cividis)
            or 20 (turbo).
        image_weight: Weight of the image, in [0, 1].

    Returns:
        An image `(height, width, 3)`, uint8.

    Raises:
        UsageError: The image is not in [0, 1], the shapes differ, or another argument is invalid.
    """
    if colormap not in COLOR_TABLES:
        listed = ", ".join(f"{number} ({name})" for number, name in COLOR_TABLES.items())
        raise UsageError(f"colormap={colormap!r} is not available; use one of {listed}.")
    if np.max(img) > 1:
        raise UsageError(
            f"img has values up to {np.max(img):.4g}; pass floats in [0, 1], such as np.float32(image) / 255."
        )
    if not 0 <= image_weight <= 1:
        raise UsageError(f"image_weight={image_weight}: must be in [0, 1].")
    if np.shape(img)[:2] != np.shape(mask):
        raise UsageError(
            f"img has shape {np.shape(img)} and mask {np.shape(mask)}; resize one of them to the other's size."
        )
    heatmap = colors.table(COLOR_TABLES[colormap])[(255 * mask).astype(np.uint8)].astype(np.float32) / 255
    heatmap = heatmap if use_rgb else heatmap[..., ::-1]
    mixed = (1 - image_weight) * heatmap + image_weight * img
    drawn: Bytes = (255 * (mixed / np.max(mixed))).astype(np.uint8)
    return drawn


__getattr__ = name_lookup(
    __name__,
    "pytorch_grad_cam.utils.image",
    ("preprocess_image", "deprocess_image", "scale_cam_image", "show_cam_on_image"),
    {"show_factorization_on_image": "draw the maps of seewhy's method deepfeaturefactorization with e.overlay()."},
)
