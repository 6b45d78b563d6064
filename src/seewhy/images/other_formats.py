"""Recognize files of other formats by their first bytes, so that an error can name the format and what to do."""

from __future__ import annotations

import os
import re

from seewhy.storage.marks import open_regular

LONGEST_START = 1024  # bytes; a comment may precede the root element of an SVG file
AS_MODEL = "pass it as the model, with its architecture"
ARRAYS = "load it with numpy.load, and pass the array in Python"
SAFETENSORS = re.compile(rb".{3}\0{5}\{", re.DOTALL)  # the length of its header, and JSON
CONVERT = "convert it to PNG or JPEG first"
FRAMES = "save its frames as PNG or JPEG files first"
FORMATS: tuple[tuple[str, str, re.Pattern[bytes]], ...] = (  # name, what to do to get an image, first bytes
    ("a PDF document", "convert its pages to PNG or JPEG first", re.compile(rb"\s*%PDF-")),
    ("a web page (HTML)", "save the image itself, not the page that shows it", re.compile(rb"\s*<(!doctype\s+)?html", re.I)),
    ("an SVG drawing", CONVERT, re.compile(rb"(?=\s*<[?!s])(?=.*<svg\b)", re.I | re.S)),
    ("a HEIC photo", CONVERT, re.compile(rb".{4}ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", re.S)),
    ("a video", FRAMES, re.compile(rb".{4}ftyp(?!avif|avis)|\x1a\x45\xdf\xa3|RIFF.{4}AVI |\0\0\x01[\xb3\xba]|FLV\x01", re.S)),
    ("a Photoshop document", CONVERT, re.compile(rb"8BPS")),
    ("an EPS or PostScript file", CONVERT, re.compile(rb"%!PS|\xc5\xd0\xd3\xc6")),
    ("a DICOM file", CONVERT, re.compile(rb".{128}DICM", re.S)),
    ("a PyTorch file", AS_MODEL, re.compile(rb"PK\x03\x04.{26}[^/]{0,80}/(data\.pkl|\.format_version|archive_format)", re.S)),
    ("a safetensors file", AS_MODEL, SAFETENSORS),
    ("a NumPy file", ARRAYS, re.compile(rb"PK\x03\x04.{26}.{0,80}?\.npy", re.S)),
    ("a NumPy file", ARRAYS, re.compile(rb"\x93NUMPY")),
    ("an HDF5 file", "read its arrays with h5py, and pass them in Python", re.compile(rb"\x89HDF\r\n")),
    ("a Git LFS pointer", "download its content: git lfs pull", re.compile(rb"version https://git-lfs")),
    ("a zip archive", "unpack it first", re.compile(rb"PK\x03\x04")),
)  # fmt: skip
IMAGE_STARTS = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF.{4}WEBP|II\*\x00|MM\x00\*|.{4}ftypavi[fs]", re.S)


def describe_format(start: bytes) -> tuple[str, str] | None:
    """Return the format of a file that is no image, and what to do to get one; None if it is not recognized.

    >>> describe_format(b"%PDF-1.7")
    ('a PDF document', 'convert its pages to PNG or JPEG first')
    """
    return next(((name, advice) for name, advice, pattern in FORMATS if pattern.match(start)), None)


def is_image_start(start: bytes) -> bool:
    """Return True if a file starts like an image."""
    return IMAGE_STARTS.match(start) is not None


def read_start(path: str | os.PathLike[str]) -> bytes:
    """Return the first bytes of a regular file; none if it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(LONGEST_START)
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return b""
