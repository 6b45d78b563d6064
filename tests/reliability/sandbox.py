"""What a case changed in its folder: files that it created, and files of others that it changed or deleted."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

LARGE = 2**24  # bytes
TEMPORARY = re.compile(r"\.(part|tmp)$")


def snapshot(folder: Path) -> dict[str, str]:
    """Return everything below `folder` by relative path: the hash of a file, the target of a link, or the kind."""
    entries: dict[str, str] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            entries[os.path.relpath(path, folder)] = describe(path)
    return entries


def describe(path: str) -> str:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return f"link {os.readlink(path)!r}"
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        return f"special {stat.S_IFMT(mode)}"
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if size <= LARGE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        start = file.read(LARGE)  # a sparse file of many gigabytes
        return f"{size} bytes, {hashlib.sha256(start).hexdigest()}"


def file_problems(
    before: Mapping[str, str], after: Mapping[str, str], is_output: Callable[[str], bool], *, failed: bool
) -> list[str]:
    """Return the stray files and the files of others that were changed or deleted.

    `is_output` is True for the paths that the case may write. A case that `failed` may not create files.
    """
    problems = []
    for path, entry in before.items():
        if after.get(path) != entry and not is_output(path):
            problems.append(f"{'changed' if path in after else 'deleted'} {path!r}")
    for path, entry in after.items():
        if path not in before and (TEMPORARY.search(path) or not is_output(path) or (failed and entry != "folder")):
            problems.append(f"stray file {path!r}")
    return problems


def remove(folder: Path) -> None:
    """Delete a folder with everything in it, also entries that cannot be listed."""
    shutil.rmtree(os.fsencode(folder), ignore_errors=True)
