"""`load_image`: from a file, bytes, PIL image or array to an upright sRGB array."""

from __future__ import annotations

import numpy as np
from PIL import Image

from seewhy.errors import ImageError
from seewhy.images.conversion import convert_array, convert_image
from seewhy.images.files import (
    check_size,
    check_tiles,
    describe_error,
    describe_source,
    open_binary,
    open_image,
)
from seewhy.images.types import ImageArray, ImageSource

MAX_PIXELS = 50_000_000


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Read an image as an upright sRGB array.

    EXIF orientation and embedded color profiles are applied (corrupt ones are ignored), transparency is composited over
    white, and only the first frame of an animation is read. 16-bit grayscale is scaled so that 65535 becomes 255. 32-bit
    grayscale is supported for integers in [0, 65535] and for floats in [0, 1]; for other values white is unknown.

    Args:
        source: A path, the bytes of a file, a file opened in binary mode (read from its beginning if seekable), a PIL
            image, or an array `(H, W)`, `(H, W, 3)` or `(H, W, 4)` of uint8, uint16 (full range) or floats in [0, 1].
        max_pixels: Limit for width x height, checked before decoding. The file may have 8 bytes for each of these pixels
            (uncompressed 16-bit RGBA) plus 64 MiB.

    Returns:
        uint8, shape `(H, W, 3)`. A `source` that is such an array is returned itself, not copied.

    Raises:
        ImageError: There is no such file, it is not an image in a supported format, it is corrupt or truncated, or it
            has more than `max_pixels` pixels or more bytes than these need.

    Example:
        >>> load_image(np.full((4, 6), 65535, np.uint16)).shape
        (4, 6, 3)
    """
    try:
        if isinstance(source, np.ndarray):
            return convert_array(source, max_pixels)
        if isinstance(source, Image.Image):
            return convert_image(source, max_pixels)
        with open_binary(source, max_pixels) as file, open_image(file) as image:
            return convert_image(image, max_pixels)
    except Exception as error:  # decoders raise almost any type for corrupt files
        raise ImageError(describe_source(source), describe_error(error)) from error


def check_image(path: str, max_pixels: int) -> None:
    """Raise ImageError if a file does not start like an image, or is too large. Its pixels are not decoded."""
    try:
        with open_binary(path, max_pixels) as file, open_image(file) as image:
            check_size(*image.size, max_pixels)
    except Exception as error:  # as in load_image
        raise ImageError(path, describe_error(error)) from error


def check_image_header(data: bytes, max_pixels: int, name: str) -> None:
    """Raise ImageError if `data` does not start like an image, declares more than `max_pixels` pixels, or decodes slowly.

    `load_image` makes the same checks, and decodes the pixels, which may be corrupt.
    """
    try:
        with open_binary(data, max_pixels) as file, open_image(file) as image:
            check_size(*image.size, max_pixels)
            check_tiles(image, max_pixels)
    except Exception as error:  # as in load_image
        raise ImageError(name, describe_error(error)) from error
