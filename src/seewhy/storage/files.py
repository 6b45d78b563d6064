"""Write files atomically, and only over files that seewhy wrote."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from seewhy.errors import UsageError, os_error_reason
from seewhy.storage.marks import Content, check_own, is_own
from seewhy.storage.paths import check_inside, check_null

unfinished: set[Path] = set()  # temporary files of this process; the handler of a signal removes them
PREFIX = 80  # bytes of a file's name in that of its temporary file: file systems limit names to 255 bytes


def write_file(
    path: Path,
    content: Content,
    *,
    root: Path | None = None,
    is_own: Callable[[Path], bool] = is_own,
    durable: bool = False,
) -> Path:
    """Write a file under a temporary name and rename it: readers see the old file, the new file or none.

    With `root`, the folder of `path` must be inside it also after links are followed. With `durable`, the file also survives a
    power failure; this waits for the disk.

    Raises UsageError if the file cannot be written, or if it exists and is not `is_own`.
    """
    return write_files({path: content}, root=root, is_own=is_own, durable=durable)[0]


def write_files(
    files: Mapping[Path, Content],
    *,
    root: Path | None = None,
    is_own: Callable[[Path], bool] = is_own,
    durable: bool = False,
) -> list[Path]:
    """Write several files as in `write_file`, in this order. They replace earlier ones only when all of them are complete."""
    for path in files:
        check_null(path)
        if root is not None:
            check_inside(path.parent, root)
        check_own(path, is_own)
    temporaries: dict[Path, Path] = {}
    created: list[Path] = []
    try:
        for path, content in files.items():
            with write_errors(path):
                created += make_folders(path.parent)
                temporaries[path] = temporary_name(path)
                unfinished.add(temporaries[path])
                write_temporary(temporaries[path], content, durable)
        for path in files:
            check_own(path, is_own)  # once more, because writing takes time
            with write_errors(path):
                os.replace(temporaries[path], path)
            unfinished.discard(temporaries.pop(path))
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
            unfinished.discard(temporary)
        remove_empty(created)
    return list(files)


def make_folders(folder: Path) -> list[Path]:
    """Create a folder and those above it, and return those that did not exist, parents first.

    `mkdir(parents=True)` is recursive, and a path may have 2,000 folders.
    """
    missing = []
    for path in (folder, *folder.parents):
        if os.path.isdir(path):
            break
        missing.append(path)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return missing[::-1]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove the folders that are empty, because nothing could be written into them. A parent comes before its children."""
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def temporary_name(path: Path) -> Path:
    prefix = path.name.encode("utf-8", "surrogateescape")[:PREFIX].decode("utf-8", "ignore")
    return path.with_name(f".{prefix}.{os.getpid()}-{secrets.token_hex(4)}.part")


def write_temporary(path: Path, content: Content, durable: bool) -> None:
    with open(path, "xb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Convert a file system error, such as a full disk or a missing permission, to a UsageError about `path`."""
    try:
        yield
    except OSError as error:
        above = next((one for one in path.parents if os.path.lexists(one)), path)
        reason = os_error_reason(error) if os.path.isdir(above) else f"{above} is not a folder"
        raise UsageError(f"{path}: cannot be written ({reason}). Choose another folder.") from error
