"""The files of a run, with the record that lists them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, SupportsFloat

from seewhy.storage.files import write_errors, write_files
from seewhy.storage.marks import Content, encode_marked_json, is_marked, is_own, open_regular
from seewhy.storage.paths import check_named, is_inside

RECORD, MAPS, PHOTO, INPUT = "explanation.json", "maps.npz", "photo.jpg", "input.npz"
REPORT, INDEX = "report.html", "index.html"
MAX_RECORD_BYTES = 2**25


def write_run(folder: str | Path, record: Mapping[str, Any], files: Mapping[str, Content]) -> list[Path]:
    """Write `files` (names relative to `folder`, with "/"), then the record, which lists them.

    If one cannot be written, the earlier files remain. Files that the record of an earlier run lists and this run does not
    write are deleted, if they are inside `folder` and carry the mark. Other files are not touched.
    """
    check_named(folder)
    folder = Path(folder)
    old_files = read_recorded_files(folder)

    def may_replace(path: Path) -> bool:
        """Return True for a file with the mark, and for one of the caller's that has none and was saved here before."""
        name = path.relative_to(folder).as_posix()
        return is_own(path) or (name in old_files and is_unmarked(files.get(name)) and is_plain_file(path))

    content = {**files, RECORD: encode_marked_json({**record, "files": sorted(files)})}
    written = write_files({folder / name: data for name, data in content.items()}, root=folder, is_own=may_replace)
    for name in sorted(old_files - set(content)):
        delete_file(folder, name)
    return written


def is_unmarked(content: Content | None) -> bool:
    return isinstance(content, bytes) and not is_marked(content)


def is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def read_recorded_files(folder: Path) -> set[str]:
    """Return the files that the record of an earlier run in `folder` lists; empty without a readable record."""
    try:
        with open_regular(folder / RECORD) as file:
            names = json.loads(file.read(MAX_RECORD_BYTES))["files"]
        return {name for name in names if isinstance(name, str) and is_relative(name)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def is_relative(name: str) -> bool:
    """Return True if a recorded name, read as text, cannot refer to a file outside its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and not set(name) & set("\\:\0")


def delete_file(folder: Path, name: str) -> None:
    """Delete a file that seewhy wrote, and the folders between it and `folder` that are empty afterwards."""
    path = folder / name
    if not is_own(path) or not is_inside(path.parent, folder):
        return
    with write_errors(path):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # a folder that is not empty, or a link to one
        for parent in path.parents:
            if parent == folder:
                break
            parent.rmdir()


def finite_or_none(value: SupportsFloat) -> float | None:
    """Return a number for JSON, which has no NaN and no infinity: None instead.

    >>> finite_or_none(0.5), finite_or_none(math.nan)
    (0.5, None)
    """
    number = float(value)
    return number if math.isfinite(number) else None
