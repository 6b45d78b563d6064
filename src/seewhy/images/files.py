"""Open image files: supported formats, size limits, and errors in one line."""

from __future__ import annotations

import functools
import glob
import importlib
import io
import itertools
import os
import re
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from seewhy.errors import find_close_matches, one_line
from seewhy.images.bounds import BoundedFile, check_scans, load_jpeg
from seewhy.images.bounds import UnreadableImage as UnreadableImage
from seewhy.images.libtiff import hide_libtiff_messages
from seewhy.images.other_formats import LONGEST_START, describe_format
from seewhy.storage.marks import open_at_once
from seewhy.storage.records import NoData, read_limited

# Formats that Pillow decodes in its own process from a single file. EPS and WMF, for example, start other programs.
# (MPO, several JPEGs in one file, is opened as a JPEG.)
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Jpeg2K", "Mpo", "Png", "Ppm", "Tiff", "WebP")  # of Pillow, for these formats
READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 or PNM"

URL = re.compile("[a-zA-Z][a-zA-Z0-9+.-]*://")
NO_DATA = "standard input is empty; pass an image: seewhy - < photo.jpg"
MAX_NAMES = 10_000  # of a folder, among which a similar name is searched
TIFF_TILE_WIDTH, TIFF_TILE_HEIGHT = 322, 323
BYTES_PER_PIXEL, METADATA_BYTES = 8, 2**26  # of a file: uncompressed 16-bit RGBA, and room for profiles and EXIF data


def describe_source(source: object) -> str:
    """Return the name of a source for error messages: its path, or "<type>"."""
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
    else:
        name = getattr(source, "filename", None) or getattr(source, "name", None)
    if not isinstance(name, str):
        return f"<{type(source).__name__}>"
    return name if name.isprintable() and name else repr(name)


def describe_error(error: Exception) -> str:
    """Return in one line why an image cannot be read."""
    match error:
        case UnreadableImage():
            return str(error)
        case FileNotFoundError():
            return missing_file(os.fsdecode(error.filename or ""))
        case IsADirectoryError():
            return "is a folder, not an image"
        case NoData():
            return str(error)
        case PermissionError():
            return "permission denied"
        case UnidentifiedImageError():
            return f"not an image that seewhy can read ({READABLE}), or its beginning is corrupt"
        case MemoryError():
            return "not enough memory to decode it"
        case OSError() if error.errno and error.strerror:
            return error.strerror.lower()
    return f"corrupt or truncated ({one_line(error)})"


def missing_file(path: str) -> str:
    """Return the reason why a file does not exist, with what the user may have meant."""
    if URL.match(path):
        return "seewhy does not download images: save it first, then pass the file"
    if glob.has_magic(path):
        return "no file matches this pattern"
    return f"no such file{similar_file(path)}"


def similar_file(path: str) -> str:
    """Return a question with the most similar name in the folder of a file that does not exist; "" if there is none."""
    folder, name = os.path.split(path)
    if os.path.islink(path) or not name:
        return ""
    try:
        names = list(itertools.islice(os.listdir(folder or "."), MAX_NAMES))
    except OSError:
        return ""
    matches = find_close_matches(name, [one for one in names if os.path.splitext(one)[1]], 1)
    return f" - did you mean {matches[0]!r}?" if matches else ""


@contextmanager
def open_binary(source: object, max_pixels: int) -> Iterator[BinaryIO]:
    """Open a source as a seekable file of at least one byte, and at most as many as an image of `max_pixels` needs.

    Pipes and devices may never end, and Pillow reads WebP and AVIF files completely, so a sparse file could fill the memory.
    """
    limit = BYTES_PER_PIXEL * max_pixels + METADATA_BYTES
    if isinstance(source, str | os.PathLike):
        if "\0" in os.fspath(source):
            raise UnreadableImage("is not a valid file name")
        file: BinaryIO = open_at_once(source)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe, such as <(command) in a shell, is not seekable
            with file:
                data = read_limited(file, limit)
            if len(data) > limit:
                raise too_long(limit)
            file = io.BytesIO(data)
    elif isinstance(source, bytes | bytearray | memoryview):
        file = io.BytesIO(source)
    elif hasattr(source, "read"):
        file = io.BytesIO(read_all(source, limit))
    else:
        raise UnreadableImage("not an image; pass a path, bytes, a binary file, a PIL image or a NumPy array")
    with file:
        if not file.read(1):
            raise UnreadableImage(NO_DATA if source is getattr(sys.stdin, "buffer", None) else "the file is empty")
        if isinstance(source, str | os.PathLike) and file.seek(0, os.SEEK_END) > limit:
            raise too_long(limit)
        yield file


def read_all(file: Any, limit: int) -> bytes:
    """Read a file object completely, from its beginning if it is seekable. Raises UnreadableImage above `limit` bytes."""
    if hasattr(file, "seekable") and file.seekable():
        file.seek(0)
    data = bytearray()
    while block := file.read(2**20):
        if not isinstance(block, bytes):
            raise UnreadableImage("the file was opened in text mode; open it in binary mode ('rb')")
        if len(data) + len(block) > limit:
            raise too_long(limit)
        data += block
    return bytes(data)


def too_long(limit: int) -> UnreadableImage:
    return UnreadableImage(
        f"more than {limit >> 20} MB; a larger --max-pixels (in Python: max_pixels) also allows larger files"
    )


PILLOW_SETTINGS = threading.Lock()


@contextmanager
def pillow_without_limits() -> Iterator[None]:
    """Disable Pillow's warnings and its pixel limit: seewhy has its own. Both are global, so one thread at a time."""
    with PILLOW_SETTINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def open_image(file: BinaryIO, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Read the header of an image file in one of `formats` (default: all supported); its pixels are decoded later.

    Raises UnreadableImage for a file that takes too long to decode, here or when it is decoded.
    """
    file = load_jpeg(file)
    bounded = BoundedFile(file)
    with pillow_without_limits():
        try:
            image = Image.open(bounded, formats=formats or available_formats())
        except UnidentifiedImageError:
            file.seek(0)
            if formats is None and (found := describe_format(file.read(LONGEST_START))):
                raise UnreadableImage(f"is {found[0]}, not an image; {found[1]}") from None
            raise
    if image.format == "TIFF":
        hide_libtiff_messages()
    bounded.allow_decoding(image.width * image.height)
    if image.format in ("JPEG", "MPO") and isinstance(file, io.BytesIO) and image.width * image.height:
        check_scans(file.getvalue(), image.width * image.height)
    return image


@functools.cache
def available_formats() -> tuple[str, ...]:
    """Return the supported formats that this build of Pillow has. `Image.init` would import 30 other plugins, in 15 ms."""
    for plugin in PLUGINS:
        with suppress(ImportError):
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
    return tuple(name for name in FORMATS if name in Image.OPEN)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise UnreadableImage for an image with no pixels or too many."""
    pixels = width * height
    if pixels == 0:
        raise UnreadableImage(f"{width} x {height}: the image has no pixels")
    if pixels > max_pixels:
        raise UnreadableImage(
            f"{width} x {height} is {pixels:,} pixels, over the limit of {max_pixels:,}; "
            f"to read it anyway: --max-pixels {pixels} (in Python: max_pixels={pixels})"
        )


def check_tiles(image: Image.Image, max_pixels: int) -> None:
    """Raise UnreadableImage for a TIFF whose tiles have too many pixels: each one, which is decoded at once, or in total.

    Tiles may be much larger than the image: all tiles of an image with 1 x 65000 pixels can have 68 gigapixels.
    """
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(TIFF_TILE_WIDTH, 0), tags.get(TIFF_TILE_HEIGHT, 0)
    if not (isinstance(width, int) and isinstance(height, int) and width * height > 0):
        return
    total = -(-image.width // width) * -(-image.height // height) * width * height
    if width * height > max_pixels or total > 2 * max_pixels:
        raise UnreadableImage(f"its tiles of {width} x {height} are over the limit of {max_pixels:,} pixels")
