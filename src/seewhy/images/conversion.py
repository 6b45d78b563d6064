"""Convert decoded images to uint8 sRGB arrays.

Handles what readers often get wrong silently: EXIF orientation, 16-bit images (which Pillow saturates), transparency
(composited over white), CMYK, palettes and color profiles.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from seewhy.errors import UsageError
from seewhy.images.files import UnreadableImage, check_size, check_tiles, pillow_without_limits
from seewhy.images.types import ImageArray

EXIF_ORIENTATION = 0x0112
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0


def convert_array(array: NDArray[Any], max_pixels: int) -> ImageArray:
    """Convert an array to uint8 (H, W, 3). A uint8 array of that shape is returned itself."""
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise UnreadableImage(
            f"an array of shape {array.shape}; an image is (H, W), (H, W, 3) or (H, W, 4), height first"
        )
    check_size(array.shape[1], array.shape[0], max_pixels)
    if np.issubdtype(array.dtype, np.uint16):  # of either byte order
        array = scale_integers(array)
    elif np.issubdtype(array.dtype, np.floating):
        array = scale_floats(array)
    elif array.dtype != np.uint8:
        raise UnreadableImage(f"an array of {array.dtype}; an image is uint8, uint16, or float in [0, 1]")
    if array.ndim == 3 and array.shape[2] == 3:
        return array
    return to_array(to_rgb(Image.fromarray(array)))


def convert_image(image: Image.Image, max_pixels: int) -> ImageArray:
    """Convert a PIL image, decoded or only opened, to upright uint8 (H, W, 3). `image` is not modified."""
    check_size(*image.size, max_pixels)
    check_tiles(image, max_pixels)
    image.load()
    # Only after load: it rotates a TIFF and removes its tag, and it finds EXIF data behind the pixels of a PNG.
    transposition = find_transposition(image)
    rgb = to_rgb(image)
    return to_array(rgb if transposition is None else rgb.transpose(transposition))


def find_transposition(image: Image.Image) -> Image.Transpose | None:
    """Return the EXIF transposition that makes the image upright; None if it is, or if its EXIF data is corrupt."""
    try:
        with pillow_without_limits():
            return TRANSPOSITIONS.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to mode RGB in sRGB, composited over white."""
    if image.mode.startswith("I") or image.mode == "F":
        profile = image.info.get("icc_profile")
        image = Image.fromarray(convert_deep_gray(image))
        image.info["icc_profile"] = profile
    if not image.has_transparency_data:
        return to_srgb(image)
    # Pillow's conversion to RGBA supports all forms of transparency.
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    colors = to_srgb(rgba.convert("RGB"))
    if alpha.getextrema() == (255, 255):
        return colors
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(colors, mask=alpha)
    return canvas


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an opaque image to mode RGB and apply its color profile, if it has a valid one."""
    profile = image.info.get("icc_profile")
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    if profile:
        try:
            return apply_profile(image, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a corrupt profile, or one for another mode: use the values without it
    return image if image.mode == "RGB" else image.convert("RGB")


def apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image to sRGB, unless a test with 216 colors shows that its profile is equivalent to sRGB."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
    if image.mode == "RGB":
        levels = np.arange(0, 256, 51, dtype=np.uint8)
        colors = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 1, 3)
        converted = np.asarray(transform.apply(Image.fromarray(colors)))
        if np.abs(converted.astype(int) - colors).max() <= 1:
            return image
    return transform.apply(image)


def convert_deep_gray(image: Image.Image) -> ImageArray:
    """Convert a grayscale image of more than 8 bits to uint8 (H, W); Pillow's own conversion clips values above 255."""
    values = np.asarray(image)
    if image.mode == "F":
        return scale_floats(values)
    if image.mode == "I":
        low, high = values.min(), values.max()
        if low < 0 or high > 65535:
            raise UnreadableImage(f"32-bit integers from {low} to {high}; scale them to 16 bits (0 to 65535) first")
        values = values.astype(np.uint16)
    tags = getattr(image, "tag_v2", {})  # Pillow does not apply these two TIFF tags
    bits = tags.get(TIFF_BITS, (16,))[0]
    gray = scale_integers(values, 2**bits - 1 if 8 < bits < 16 else 65535)
    return 255 - gray if image.mode != "I" and tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO else gray


def scale_integers(values: NDArray[np.uint16], white: int = 65535) -> ImageArray:
    """Scale uint16 of any shape to uint8; `white` becomes 255."""
    table = np.minimum(np.round(np.arange(65536) * (255 / white)), 255).astype(np.uint8)
    return table[values]


def scale_floats(values: NDArray[Any]) -> ImageArray:
    """Scale floats of any shape in [0, 1] to uint8."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise UnreadableImage(f"floating-point values from {low:g} to {high:g}; they must be in [0, 1]")
    return np.round(values.astype(np.float32, copy=False) * np.float32(255)).astype(np.uint8)


def to_array(image: Image.Image) -> ImageArray:
    """Copy an RGB image into a new uint8 (H, W, 3) array."""
    width, height = image.size
    array = np.empty((height, width, 3), np.uint8)
    # In strips that fit the CPU cache: a third of the time of one np.asarray for 12 megapixels.
    step = max(1, 2**18 // width)
    for top in range(0, height, step):
        array[top : top + step] = np.asarray(image.crop((0, top, width, min(top + step, height))))
    return array


def check_pixels(image: object) -> None:
    """Check that an image is an array as `load_image` returns it. Raises UsageError if it is something else.

    >>> check_pixels(np.zeros((2, 2, 3), np.uint8))
    """
    if not isinstance(image, np.ndarray):
        raise UsageError(f"image is of type {type(image).__name__}; pass the array that seewhy.load_image returns.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UsageError(
            f"image is an array of {image.dtype} {image.shape}; it must be uint8 (H, W, 3), as from load_image"
        )
