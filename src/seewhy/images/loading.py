"""From a file, or whatever a picture comes as, to one upright sRGB array.

Everything that a reader can get wrong without saying so is settled here: the EXIF turn, 16-bit pictures (which Pillow
saturates), transparency (over white), CMYK, palettes, colour profiles, pictures that are cut short.
"""

from __future__ import annotations

import functools
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from seewhy.errors import ImageError

ImageArray = NDArray[np.uint8]
ImageSource = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[Any]

MAX_PIXELS = 50_000_000

# Formats that Pillow decodes inside its own process from a single file; EPS and WMF, say, would run other programs.
# (MPO, several JPEGs in one file, is opened as a JPEG.)
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 or PNM"

EXIF_ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
TIFF_TILE_WIDTH, TIFF_TILE_HEIGHT = 322, 323
MOST_SCANS, MOST_PROFILES = 200, 8


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Read a picture as uint8 (height, width, 3), upright, in sRGB.

    `source` is a path, bytes, a file opened in binary mode (read from its beginning where it can seek), a PIL image, or
    an array: uint8 or uint16 (full range), or float in [0, 1]; of shape (H, W), (H, W, 3) or (H, W, 4). A uint8
    (H, W, 3) array is returned itself, not copied. Of an animation the first frame is read. What is transparent becomes
    white. An embedded colour profile is applied, and ignored when it is broken. 16-bit greys map 65535 to 255; 32-bit
    greys are read when whole numbers lie in [0, 65535], or real numbers in [0, 1], and refused otherwise, since nothing
    says which value is white.

    Raises ImageError, naming the source and the reason, when there is no such file, when it is not a picture of a kind
    that seewhy reads, is damaged or cut short, or has more than `max_pixels` pixels (checked before decoding).

    >>> load_image(np.full((4, 6), 65535, np.uint16)).shape
    (4, 6, 3)
    """
    try:
        if isinstance(source, np.ndarray):
            return from_array(source, max_pixels)
        if isinstance(source, Image.Image):
            return from_pil(source, max_pixels)
        with open_binary(source) as file, open_image(file) as picture:
            return from_pil(picture, max_pixels)
    # a damaged file can make a decoder raise nearly anything, and each is the same news: this picture cannot be read
    except Exception as error:
        raise ImageError(describe_source(source), describe_error(error)) from error


def check_image_header(data: bytes, max_pixels: int, name: str) -> None:
    """Raise ImageError where `data` does not begin as a picture, or says that it has more than `max_pixels` pixels.

    Nothing is decoded. What comes behind the beginning may still be damaged. Files that take long for their size, which only
    an attacker makes, are refused: one colour profile in place of another, or a JPEG of hundreds of scans.
    """
    try:
        if data.startswith(b"\x89PNG") and data.count(b"iCCP") > MOST_PROFILES:
            raise UnreadableImage("a PNG of many colour profiles")
        with open_binary(data) as file, open_image(file) as picture:
            check_size(*picture.size, max_pixels)
            check_tiles(picture, max_pixels)
            if picture.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MOST_SCANS:
                raise UnreadableImage("a JPEG of more than 200 scans")
    except Exception as error:  # as in load_image
        raise ImageError(name, describe_error(error)) from error


class UnreadableImage(Exception):
    """The reason, in words, why a picture is not read; becomes an ImageError once the source's name is known."""


def describe_source(source: object) -> str:
    """What to call a source in an error."""
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
    else:
        name = getattr(source, "filename", None) or getattr(source, "name", None)
    if not isinstance(name, str):
        return f"<{type(source).__name__}>"
    return name if name.isprintable() and name else repr(name)


def describe_error(error: Exception) -> str:
    """One line that says what is wrong."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    match error:
        case UnreadableImage():
            return text
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "is a folder, not a picture"
        case PermissionError():
            return "permission denied"
        case UnidentifiedImageError():
            return f"not a picture that seewhy reads ({READABLE}), or damaged at its beginning"
        case MemoryError():
            return "not enough memory to decode it"
        case OSError() if error.errno and error.strerror:
            return error.strerror.lower()
    return f"damaged or truncated ({text})"


@contextmanager
def open_binary(source: object) -> Iterator[BinaryIO]:
    """The source as a seekable file that holds at least one byte."""
    if isinstance(source, str | os.PathLike):
        if "\0" in os.fspath(source):
            raise UnreadableImage("not a file name")
        file: BinaryIO = open(source, "rb")  # noqa: SIM115 - closed below
    elif isinstance(source, bytes | bytearray | memoryview):
        file = io.BytesIO(source)
    elif hasattr(source, "read"):
        file = io.BytesIO(read_all(source))
    else:
        raise UnreadableImage("not a picture; give a path, bytes, a binary file, a PIL image or a NumPy array")
    with file:
        if not file.read(1):
            raise UnreadableImage("the file is empty")
        yield file


def read_all(file: Any) -> bytes:
    """Everything in a file object, from its beginning where it can seek."""
    if hasattr(file, "seekable") and file.seekable():
        file.seek(0)
    data = file.read()
    if not isinstance(data, bytes):
        raise UnreadableImage("the file was opened in text mode; open it in binary mode ('rb')")
    return data


QUIET = threading.Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no pixel limit of Pillow's: seewhy has its own. Both are global, so one thread at a time."""
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def open_image(file: BinaryIO) -> Image.Image:
    """The picture in a file, its header read and its pixels not yet."""
    with quiet():
        return Image.open(file, formats=known_formats())


@functools.cache
def known_formats() -> tuple[str, ...]:
    """The formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture without pixels or with too many."""
    pixels = width * height
    if pixels == 0:
        raise UnreadableImage(f"{width} x {height}: a picture without pixels")
    if pixels > max_pixels:
        raise UnreadableImage(
            f"{width} x {height} is {pixels:,} pixels, over the limit of {max_pixels:,}; "
            f"to read it all the same: --max-pixels {pixels} (in Python max_pixels={pixels})"
        )


def check_tiles(picture: Image.Image, max_pixels: int) -> None:
    """Refuse a TIFF of which one tile, which is decoded whole, has too many pixels."""
    tags = getattr(picture, "tag_v2", {})
    width, height = tags.get(TIFF_TILE_WIDTH, 0), tags.get(TIFF_TILE_HEIGHT, 0)
    if isinstance(width, int) and isinstance(height, int) and width * height > max_pixels:
        raise UnreadableImage(f"its tiles of {width} x {height} are over the limit of {max_pixels:,} pixels")


def from_array(array: NDArray[Any], max_pixels: int) -> ImageArray:
    """A picture given as an array, as uint8 (H, W, 3)."""
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise UnreadableImage(
            f"an array of shape {array.shape}; a picture is (H, W), (H, W, 3) or (H, W, 4), height first"
        )
    check_size(array.shape[1], array.shape[0], max_pixels)
    if np.issubdtype(array.dtype, np.uint16):  # of either byte order
        array = scale_whole(array)
    elif np.issubdtype(array.dtype, np.floating):
        array = scale_real(array)
    elif array.dtype != np.uint8:
        raise UnreadableImage(f"an array of {array.dtype}; a picture is uint8, uint16, or float in [0, 1]")
    if array.ndim == 3 and array.shape[2] == 3:
        return array
    return to_array(to_rgb(Image.fromarray(array)))


def from_pil(picture: Image.Image, max_pixels: int) -> ImageArray:
    """A picture that Pillow holds or has opened, as uint8 (H, W, 3); `picture` itself is not changed."""
    check_size(*picture.size, max_pixels)
    check_tiles(picture, max_pixels)
    picture.load()
    # after load, which turns a TIFF and removes its mark, and finds the EXIF data that a PNG has behind its pixels
    turn = exif_turn(picture)
    rgb = to_rgb(picture)
    return to_array(rgb if turn is None else rgb.transpose(turn))


def exif_turn(picture: Image.Image) -> Image.Transpose | None:
    """The turn that puts the picture upright; None when it is, or when its EXIF data is broken."""
    try:
        with quiet():
            return TURNS.get(picture.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:
        return None


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture in mode RGB and in sRGB, over white."""
    if picture.mode.startswith("I") or picture.mode == "F":
        profile = picture.info.get("icc_profile")
        picture = Image.fromarray(deep_grey(picture))
        picture.info["icc_profile"] = profile
    if not picture.has_transparency_data:
        return to_srgb(picture)
    # by way of RGBA whatever it was, as Pillow then takes all the ways to be transparent into account
    layer = picture.convert("RGBA")
    alpha = layer.getchannel("A")
    colours = to_srgb(layer.convert("RGB"))
    if alpha.getextrema() == (255, 255):
        return colours
    white = Image.new("RGB", picture.size, "white")
    white.paste(colours, mask=alpha)
    return white


def to_srgb(picture: Image.Image) -> Image.Image:
    """An opaque picture in mode RGB, its colour profile (if any, and valid) applied."""
    profile = picture.info.get("icc_profile")
    if picture.mode not in ("L", "RGB", "CMYK"):
        picture = picture.convert("RGB")
    if profile:
        try:
            return apply_profile(picture, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a broken profile, or one for another kind of picture: the numbers are the best there is
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def apply_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    """The picture converted to sRGB, unless a few colours show that the profile is sRGB by whatever name."""
    given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    convert = ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), picture.mode, "RGB")
    if picture.mode == "RGB":
        levels = np.arange(0, 256, 51, dtype=np.uint8)
        probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 1, 3)
        after = np.asarray(convert.apply(Image.fromarray(probe)))
        if np.abs(after.astype(int) - probe).max() <= 1:
            return picture
    return convert.apply(picture)


def deep_grey(picture: Image.Image) -> ImageArray:
    """A grey picture of more than 8 bits, as uint8 (H, W); Pillow's own conversion would cut off all above 255."""
    values = np.asarray(picture)
    if picture.mode == "F":
        return scale_real(values)
    if picture.mode == "I":
        low, high = values.min(), values.max()
        if low < 0 or high > 65535:
            raise UnreadableImage(
                f"32-bit whole numbers from {low} to {high}; scale them to 16 bits (0 to 65535) first"
            )
        values = values.astype(np.uint16)
    tags = getattr(picture, "tag_v2", {})  # a TIFF's; Pillow leaves these two things to us
    bits = tags.get(TIFF_BITS, (16,))[0]
    grey = scale_whole(values, 2**bits - 1 if 8 < bits < 16 else 65535)
    return 255 - grey if picture.mode != "I" and tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO else grey


def scale_whole(values: NDArray[np.uint16], white: int = 65535) -> ImageArray:
    """uint16 of any shape to uint8, `white` to 255."""
    table = np.minimum(np.round(np.arange(65536) * (255 / white)), 255).astype(np.uint8)
    return table[values]


def scale_real(values: NDArray[Any]) -> ImageArray:
    """Floats of any shape in [0, 1] to uint8."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise UnreadableImage(f"real numbers from {low:g} to {high:g}; a picture of real numbers lies in [0, 1]")
    return np.round(values.astype(np.float32, copy=False) * np.float32(255)).astype(np.uint8)


def to_array(picture: Image.Image) -> ImageArray:
    """An RGB picture as a new uint8 (H, W, 3) array."""
    width, height = picture.size
    array = np.empty((height, width, 3), np.uint8)
    # in strips that fit the processor's cache: for 12 million pixels a third of the time of one np.asarray
    step = max(1, 2**18 // width)
    for top in range(0, height, step):
        array[top : top + step] = np.asarray(picture.crop((0, top, width, min(top + step, height))))
    return array
