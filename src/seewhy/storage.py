"""Runs on disk: files that appear whole or not at all, and explanations written and read back."""

from __future__ import annotations

import io
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from PIL import Image

Content = bytes | Callable[[IO[bytes]], Any]
RECORD, MAPS, PHOTO, INPUT = "explanation.json", "maps.npz", "photo.jpg", "input.npz"
REPORT, INDEX = "report.html", "index.html"


def write_run(folder: str | Path, record: Mapping[str, Any], files: Mapping[str, Content]) -> list[Path]:
    """Write `files` (relative name with "/": content) into `folder`, each whole or not at all, and last the record.

    The record lists the files. Those that an earlier run recorded and this one does not write are removed; no other file
    is touched.
    """
    folder = Path(folder)
    old = recorded_files(folder)
    written = [write_file(folder / name, content) for name, content in files.items()]
    text = json.dumps({**record, "files": sorted(files)}, indent=1, ensure_ascii=False, allow_nan=False)
    written.append(write_file(folder / RECORD, text.encode()))
    for name in old - set(files):
        remove(folder, name)
    return written


def write_file(path: Path, content: Content, *, durable: bool = False) -> Path:
    """Write under a temporary name, then rename: whoever looks sees the old file, the new one or none.

    `durable`: also after a loss of power, at the price of waiting for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    short = path.name.encode()[:80].decode("utf-8", "ignore")  # systems count bytes
    temporary = path.with_name(f".{short}.{os.getpid()}-{secrets.token_hex(4)}.part")
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


def recorded_files(folder: Path) -> set[str]:
    """The files that an earlier run says it wrote into `folder`; none where there is no readable record."""
    try:
        names = json.loads((folder / RECORD).read_text("utf-8"))["files"]
        return {name for name in names if isinstance(name, str) and is_inside(name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name


def remove(folder: Path, name: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    for parent in path.parents:
        if parent == folder or any(parent.iterdir()):
            break
        parent.rmdir()


def jpeg(picture: Image.Image, quality: int = 88) -> bytes:
    """A picture as JPEG, without any metadata: no EXIF, no GPS."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def number(value: Any) -> float | None:
    """A number for JSON, which has no NaN and no infinity."""
    value = float(value)
    return value if math.isfinite(value) else None
