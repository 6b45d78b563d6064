"""The mark in the files that seewhy writes, by which it recognizes them later.

A file without the mark is never overwritten or deleted, and images with the mark are skipped when a folder is searched. The
mark is part of the content, so it survives renaming, copying and moving, and a killed run leaves no file without it. Files of
earlier versions have none.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seewhy.errors import UsageError

Content = bytes | Callable[[IO[bytes]], Any]
StrPath = str | os.PathLike[str]
MARK = "seewhy"
MARKED = {"generator": MARK}  # the first field of a JSON document, or of its "info"
UNENCODABLE = "backslashreplace"  # bytes of a file name that are not UTF-8 become "\\udcff", which JSON decodes again
MARKED_SUFFIXES = (".jpg", ".png")  # of images with the mark
START = 256  # bytes in which the mark is, except in a zip file, which ends with it
# How each format starts with the mark. That of pages is in viewer/shell.html.
STARTS = re.compile(
    rb"\xff\xd8\xff\xe0\x00\x10JFIF\x00.{9}\xff\xfe\x00\x08seewhy"
    rb"|\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR.{17}\x00\x00\x00\x0ftEXtSoftware\x00seewhy"
    rb'|<!doctype html>\s*<html lang="en">\s*<head>\s*<meta charset="utf-8">\s*<meta name="generator" content="seewhy">'
    rb'|\{\s*("info":\s*\{\s*)?"generator":\s*"seewhy"'
    rb"|image,method,target,layer,"  # a table of metrics: CSV has no place for a comment
    rb"|\x08[\x01-\x7f]\x12\x06seewhy",  # the version and the producer of an ONNX file
    re.DOTALL,
)
ZIP_START, ZIP_END = b"PK\x03\x04", len(MARK).to_bytes(2, "little") + MARK.encode()  # length of the comment, and itself


def has_mark(path: StrPath) -> bool:
    """Return True if a file carries the mark. Links are followed; a pipe, a device or an unreadable file has none."""
    try:
        with open_regular(path) as file:
            start = file.read(START)
            if not start.startswith(ZIP_START):
                return STARTS.match(start) is not None
            file.seek(-len(ZIP_END), os.SEEK_END)
            return file.read() == ZIP_END
    except (OSError, ValueError):  # ValueError: a null character in the name
        return False


def is_marked(content: bytes) -> bool:
    """Return True if the content of a file starts or ends with the mark."""
    is_zip = content.startswith(ZIP_START)
    return content.endswith(ZIP_END) if is_zip else STARTS.match(content[:START]) is not None


def is_own(path: StrPath) -> bool:
    """Return True if `path` is a file with the mark, not a link to one."""
    return not os.path.islink(path) and has_mark(path)


def check_own(path: Path, is_own: Callable[[Path], bool] = is_own) -> None:
    """Raise UsageError if `path` exists and seewhy did not write it."""
    if os.path.lexists(path) and not is_own(path):
        raise UsageError(
            f"{path} exists, and this version of seewhy did not write it. Move it, or choose another output folder."
        )


def open_at_once(path: StrPath) -> BinaryIO:
    """Open a file for reading. Opening a pipe does not wait for a program that writes to it."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def open_regular(path: StrPath) -> BinaryIO:
    """Open a file for reading. Raises OSError for a pipe or a device, which may never end."""
    file = open_at_once(path)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{os.path.basename(path)} is not a regular file")
    return file


def encode_jpeg(image: Image.Image, quality: int = 88) -> bytes:
    """Encode an image as JPEG with the mark and without other metadata (no EXIF, no GPS position)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, comment=MARK)
    return buffer.getvalue()


def encode_png(image: Image.Image, level: int = 6) -> bytes:
    """Encode an image as PNG with the mark. `level` is that of the compression, 1 to 9."""
    text = PngInfo()
    text.add_text("Software", MARK)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=text, compress_level=level)
    return buffer.getvalue()


def encode_marked_json(document: Mapping[str, Any], indent: int | None = 1) -> bytes:
    """Encode a document as JSON with the mark as its first field, or as that of its "info" if it starts with one."""
    if next(iter(document), None) == "info":
        marked = {**document, "info": {**MARKED, **document["info"]}}
    else:
        marked = {**MARKED, **document}
    return json.dumps(marked, indent=indent, ensure_ascii=False, allow_nan=False).encode("utf-8", UNENCODABLE)


def encode_npz(arrays: Mapping[str, Any]) -> Content:
    """Return a function that writes arrays as a compressed NPZ file with the mark."""

    def save(file: IO[bytes]) -> None:
        import numpy as np

        np.savez_compressed(file, **arrays)
        file.seek(-2, os.SEEK_END)  # the length of the comment, which is empty
        file.write(ZIP_END)

    return save
