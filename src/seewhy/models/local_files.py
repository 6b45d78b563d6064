"""Files of the user that a model is loaded from. They may be missing, pipes, devices, links to themselves, or huge."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from seewhy.errors import one_line
from seewhy.images.files import similar_file
from seewhy.storage.marks import open_at_once
from seewhy.storage.records import read_limited

MAX_TEXT_BYTES = 2**26  # of labels and configs
MAX_DEPTH = 50  # of the lists and objects in a config
TEXT_SUFFIXES = (".json", ".txt", ".jinja")


class UnreadableFile(Exception):
    """Why a file cannot be read."""


def local_path(text: str | os.PathLike[str]) -> Path:
    """Return a path with "~" replaced by the home folder, where there is one."""
    return Path(os.path.expanduser(text))


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a UTF-8 file, also from a pipe such as <(command) in a shell. Raises UnreadableFile."""
    try:
        with open_at_once(path) as file:
            data = read_limited(file, max_bytes)
    except FileNotFoundError:
        raise UnreadableFile(f"no such file{similar_file(os.fspath(path))}") from None
    except IsADirectoryError:
        raise UnreadableFile("is a folder, not a file") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UnreadableFile((getattr(error, "strerror", None) or one_line(error)).lower()) from None
    if len(data) > max_bytes:
        raise UnreadableFile(f"more than {max_bytes >> 20} MB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableFile("not UTF-8") from None


def read_json(path: Path) -> Any:
    """Read a JSON file of a model. Raises UnreadableFile."""
    check_regular(path)
    try:
        value = json.loads(read_text(path))
    except RecursionError:
        raise UnreadableFile("nested too deeply") from None
    except ValueError as error:
        raise UnreadableFile(one_line(error)) from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for one in level for item in inner_values(one)]
    if level:  # the libraries read configs recursively
        raise UnreadableFile("nested too deeply")
    return value


def inner_values(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def check_regular(path: Path) -> None:
    """Raise UnreadableFile for a pipe, a device or a socket, which may never end, and for a folder."""
    if not os.path.isfile(path):
        raise UnreadableFile("is not a regular file" if os.path.exists(path) else "no such file")


def check_folder(folder: Path) -> None:
    """Raise UnreadableFile if a folder has a file that a library would read forever: a pipe, a device, or endless text."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.endswith((*TEXT_SUFFIXES, ".safetensors", ".bin", ".model")):
                continue
            if not os.path.isfile(entry.path):
                raise UnreadableFile(f"{entry.path} is not a regular file")
            if entry.name.endswith(TEXT_SUFFIXES) and os.path.getsize(entry.path) > MAX_TEXT_BYTES:
                raise UnreadableFile(f"{entry.path} is larger than {MAX_TEXT_BYTES >> 20} MB")
