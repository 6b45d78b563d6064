"""Tar files of pictures (WebDataset): read from front to back, one file a part; members of one name belong together."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from tarfile import HeaderError, ReadError
from typing import Any

from seewhy.bulk.dataset import TRANSIENT_ERRNOS, Item, path_text
from seewhy.images.discovery import suffixes
from seewhy.images.loading import reason_of

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
LABELS = ("cls", "label.txt", "json")  # members that say the class: a number or a name; of JSON its "label" or "cls"
LARGEST = 1 << 29  # bytes of a member; more is no picture
TEXT = 1 << 20


@dataclass(frozen=True)
class TarPart:
    """One tar file."""

    path: str
    name: str

    def part(self, number: int) -> Iterator[Item]:
        return members(self.path, self.name)

    def alone(self, number: int) -> TarPart:
        return self


@dataclass(frozen=True)
class TarDataset:
    """Tar files, each of which is a part. Their pictures are not counted before they are read."""

    paths: Sequence[str]
    notes: tuple[str, ...] = field(default=())

    @property
    def count(self) -> None:
        return None

    @property
    def parts(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> list[str]:
        return []

    @cached_property
    def names(self) -> list[str]:
        """What the ids in each file begin with: its name, and where that occurred before, the how-manyth it is."""
        seen: Counter[str] = Counter()
        found = []
        for name in (path_text(os.path.basename(path)) for path in self.paths):
            seen[name] += 1
            found.append(f"{name}#{seen[name]}" if seen[name] > 1 else name)
        return found

    def alone(self, number: int) -> TarPart:
        return TarPart(self.paths[number], self.names[number])

    def part(self, number: int) -> Iterator[Item]:
        return self.alone(number).part(number)

    def digest(self) -> str:
        """A hash of the files' names and sizes, in their order."""
        found = hashlib.sha256()
        for path in self.paths:
            found.update(
                repr((os.path.basename(path), os.path.getsize(path) if os.path.exists(path) else None)).encode()
            )
        return found.hexdigest()


class Header(tarfile.TarInfo):
    """What stands before a member. `tarfile` takes a broken one for the end of the file, which is two blocks of zeros."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Header:
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if str(error) == "end of file header":
                raise
            raise ReadError(str(error)) from None


def members(path: str, shard: str) -> Iterator[Item]:
    """The pictures in a tar file, with their labels; one that is cut short ends in an item that says so.

    The members of a picture share what is before the first dot of their name, and follow each other. Ids begin with `shard`.
    """
    taken: set[str] = set()
    spelt: dict[str, str] = {}  # a member's ending in small letters, and its name as it stands in the file

    def finished(key: str, files: dict[str, bytes]) -> Iterator[Item]:
        picture = next((name for name in files if f".{name.split('.')[-1]}" in suffixes()), None)
        if picture is None:
            return
        own, number = f"{shard}/{path_text(key)}", 1
        name = own
        while name in taken:
            number += 1
            name = f"{own}#{number}"
        taken.add(name)
        where = f"{path_text(path)}/{path_text(spelt[picture])}"
        data = files[picture]
        error = "" if len(data) < LARGEST else f"more than {LARGEST >> 20} MB"
        yield Item(name, where, label=label_of(files), data=data, error=error or None)

    key, files = "", dict[str, bytes]()
    try:
        with tarfile.open(path, "r|*", tarinfo=Header) as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                if not member.isfile() or base.startswith("."):
                    continue
                stem, _, ending = base.partition(".")
                own = f"{folder}/{stem}" if folder else stem
                if own != key or ending.lower() in files:
                    yield from finished(key, files)
                    key, files = own, {}
                spelt[ending.lower()] = member.name
                content = tar.extractfile(member)
                files[ending.lower()] = b"" if content is None else content.read(LARGEST)
        yield from finished(key, files)
    except (tarfile.TarError, OSError, EOFError) as error:
        if isinstance(error, OSError) and (isinstance(error, FileNotFoundError) or error.errno in TRANSIENT_ERRNOS):
            raise  # of the disk, not of the file
        reason = f"{reason_of(error) if isinstance(error, OSError) else str(error) or 'it ends too early'}"
        yield Item(f"{shard}/", path, error=f"this tar file cannot be read behind its picture {len(taken)} ({reason})")


def label_of(files: dict[str, bytes]) -> str | None:
    for name in LABELS:
        text = files.get(name, b"")[:TEXT].decode("utf-8", "replace").strip()
        if name == "json" and text:
            try:
                found = json.loads(text)
            except (ValueError, RecursionError):
                continue
            known = (
                next((found[key] for key in ("label", "cls") if key in found), None)
                if isinstance(found, dict)
                else None
            )
            text = "" if known is None else str(known)
        if text:
            return text.encode("utf-8", "backslashreplace").decode()  # JSON may spell half a letter
    return None


def is_tar(path: str) -> bool:
    return path.lower().endswith(ENDINGS)


def expand_braces(text: str) -> list[str]:
    """Names with a range of numbers in braces, one by one; others as they are.

    >>> expand_braces("train-{008..010}.tar")
    ['train-008.tar', 'train-009.tar', 'train-010.tar']
    """
    match = re.search(r"\{(\d+)\.\.(\d+)\}", text)
    if match is None or os.path.lexists(text):
        return [text]
    first, last = match.groups()
    names = (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
    return [one for name in names for one in expand_braces(text[: match.start()] + name + text[match.end() :])]
