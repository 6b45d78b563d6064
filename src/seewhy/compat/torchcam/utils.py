"""Draw a map over an image, as in `torchcam.utils`."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from seewhy.compat.unknown_names import name_lookup
from seewhy.errors import UsageError


def overlay_mask(img: Image.Image, mask: Image.Image, colormap: Any = "jet", alpha: float = 0.7) -> Image.Image:
    """Draw a map over an image.

    Args:
        img: The image, RGB or grayscale.
        mask: The map in [0, 1], as an image of mode "F" of any size. It is squared before it is colored.
        colormap: A colormap of matplotlib, or its name. matplotlib must be installed.
        alpha: Weight of the image, in [0, 1).

    Returns:
        An RGB image of the size of `img`.

    Raises:
        UsageError: An argument is invalid, or matplotlib is not installed.
    """
    if not isinstance(img, Image.Image) or not isinstance(mask, Image.Image):
        raise UsageError("img and mask: pass PIL images; torchvision's to_pil_image(cam, mode='F') makes one of a map.")
    if not isinstance(alpha, float) or not 0 <= alpha < 1:
        raise UsageError(f"alpha={alpha!r}: must be a float, at least 0 and below 1.")
    if len(img.getbands()) not in (1, 3):
        raise UsageError(f"img has mode {img.mode}; convert it first: img.convert('RGB').")
    try:
        from matplotlib import colormaps
    except ImportError:
        raise UsageError("overlay_mask uses the colormaps of matplotlib; run: pip install matplotlib") from None
    try:
        colors = colormaps.get_cmap(colormap)
    except (ValueError, TypeError) as error:
        raise UsageError(f"colormap={colormap!r} is no colormap of matplotlib, such as 'jet'.") from error
    resized = np.asarray(mask.resize(img.size, Image.Resampling.BICUBIC))
    heatmap = Image.fromarray(colors(resized**2, bytes=True)[..., :3])
    return Image.blend(heatmap, img.convert("RGB"), alpha)


__getattr__ = name_lookup(__name__, "torchcam.utils", ("overlay_mask",))
