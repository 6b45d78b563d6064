"""Write files atomically, and the files of a run with their record."""

from __future__ import annotations

import io
import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, SupportsFloat

from PIL import Image

Content = bytes | Callable[[IO[bytes]], Any]
RECORD, MAPS, PHOTO, INPUT = "explanation.json", "maps.npz", "photo.jpg", "input.npz"
REPORT, INDEX = "report.html", "index.html"
UNENCODABLE = "backslashreplace"  # bytes of a file name that are not UTF-8 become "\\udcff", which JSON decodes again


def write_run(folder: str | Path, record: Mapping[str, Any], files: Mapping[str, Content]) -> list[Path]:
    """Write `files` (names relative to `folder`, with "/") atomically, then the record, which lists them.

    Files that the record of an earlier run lists and this run does not write are deleted. Other files are not touched.
    """
    folder = Path(folder)
    old_files = read_recorded_files(folder)
    written = [write_file(folder / name, content) for name, content in files.items()]
    text = json.dumps({**record, "files": sorted(files)}, indent=1, ensure_ascii=False, allow_nan=False)
    written.append(write_file(folder / RECORD, text.encode("utf-8", UNENCODABLE)))
    for name in old_files - set(files):
        delete_file(folder, name)
    return written


def write_file(path: Path, content: Content, *, durable: bool = False) -> Path:
    """Write a file under a temporary name and rename it: readers see the old file, the new file or none.

    With `durable`, the file also survives a power failure; this waits for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = path.name.encode("utf-8", "surrogateescape")[:80].decode(
        "utf-8", "ignore"
    )  # file systems limit names in bytes
    temporary = path.with_name(f".{prefix}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. Raises OSError for a pipe or a device, which may never end."""
    # With O_NONBLOCK, opening a pipe does not wait for a writer.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path.name} is not a regular file")
    return file


def read_recorded_files(folder: Path) -> set[str]:
    """Return the files that the record of an earlier run in `folder` lists; empty without a readable record."""
    try:
        with open_regular(folder / RECORD) as file:
            names = json.load(file)["files"]
        return {name for name in names if isinstance(name, str) and is_inside(name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def is_inside(name: str) -> bool:
    """Return True if a recorded name cannot refer to a file outside its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name


def delete_file(folder: Path, name: str) -> None:
    """Delete a file and the folders between it and `folder` that are empty afterwards."""
    path = folder / name
    path.unlink(missing_ok=True)
    for parent in path.parents:
        if parent == folder or any(parent.iterdir()):
            break
        parent.rmdir()


def encode_jpeg(image: Image.Image, quality: int = 88) -> bytes:
    """Encode an image as JPEG without metadata (no EXIF, no GPS position)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def finite_or_none(value: SupportsFloat) -> float | None:
    """Return a number for JSON, which has no NaN and no infinity: None instead.

    >>> finite_or_none(0.5), finite_or_none(math.nan)
    (0.5, None)
    """
    number = float(value)
    return number if math.isfinite(number) else None
