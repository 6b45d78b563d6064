"""Tar files of images (WebDataset): read sequentially, one file per part. Members with the same stem belong together."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from tarfile import HeaderError, ReadError
from typing import Any

from seewhy.bulk.dataset import TRANSIENT_ERRNOS, Item
from seewhy.errors import UsageError
from seewhy.images.discovery import image_suffixes
from seewhy.images.files import describe_error
from seewhy.storage.paths import path_text

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
LABELS = ("cls", "label.txt", "json")  # members with the class: an index or a name; in JSON under "label" or "cls"
MAX_MEMBER = 1 << 29  # bytes
MAX_LABEL = 1 << 20  # bytes
MAX_FILES = 1_000_000  # of ranges in braces
RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")


@dataclass(frozen=True)
class TarPart:
    """One tar file."""

    path: str
    name: str

    def part(self, number: int) -> Iterator[Item]:
        return members(self.path, self.name)

    def single_part(self, number: int) -> TarPart:
        return self


@dataclass(frozen=True)
class TarDataset:
    """Tar files, each of which is a part. The number of images is unknown until they are read."""

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
        """The prefix of the ids in each file: its name, with `#2`, `#3`, ... for repeated names."""
        repeats: Counter[str] = Counter()
        names = []
        for name in (path_text(os.path.basename(path)) for path in self.paths):
            repeats[name] += 1
            names.append(f"{name}#{repeats[name]}" if repeats[name] > 1 else name)
        return names

    def single_part(self, number: int) -> TarPart:
        return TarPart(self.paths[number], self.names[number])

    def part(self, number: int) -> Iterator[Item]:
        return self.single_part(number).part(number)

    def digest(self) -> str:
        """Return a hash of the names and sizes of the files, in order."""
        digest = hashlib.sha256()
        for path in self.paths:
            size = os.path.getsize(path) if os.path.exists(path) else None
            digest.update(repr((os.path.basename(path), size)).encode())
        return digest.hexdigest()


class StrictHeader(tarfile.TarInfo):
    """The header of a member. `tarfile` treats a corrupt header as the end of the file; this class raises `ReadError`."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> StrictHeader:
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if str(error) == "end of file header":
                raise
            raise ReadError(str(error)) from None


@dataclass
class MemberGroup:
    """The members of one image: files with the same folder and stem, which follow each other in the tar file."""

    key: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)  # by lower-case extension
    names: dict[str, str] = field(default_factory=dict)  # member names by lower-case extension

    def item(self, tar: str, name: str) -> Item | None:
        """Return the image of the group, or None if it has none."""
        extension = next((one for one in self.contents if f".{one.split('.')[-1]}" in image_suffixes()), None)
        if extension is None:
            return None
        data = self.contents[extension]
        path = f"{path_text(tar)}/{path_text(self.names[extension])}"
        error = None if len(data) < MAX_MEMBER else f"more than {MAX_MEMBER >> 20} MB"
        return Item(name, path, label=label_of(self.contents), data=data, error=error)


def members(path: str, shard: str) -> Iterator[Item]:
    """Yield the images of a tar file with their labels. If the file is truncated or corrupt, the last item has an error.

    Ids begin with `shard`.
    """
    used: set[str] = set()

    def unique_id(key: str) -> str:
        base, number = f"{shard}/{path_text(key)}", 1
        name = base
        while name in used:
            number += 1
            name = f"{base}#{number}"
        return name

    try:
        for group in member_groups(path):
            name = unique_id(group.key)
            if (item := group.item(path, name)) is not None:
                used.add(name)
                yield item
    except (tarfile.TarError, OSError, EOFError) as error:
        if isinstance(error, OSError) and (isinstance(error, FileNotFoundError) or error.errno in TRANSIENT_ERRNOS):
            raise  # the disk failed, not the file
        reason = describe_error(error) if isinstance(error, OSError) else str(error) or "unexpected end of file"
        yield Item(f"{shard}/", path, error=f"this tar file cannot be read after image {len(used)} ({reason})")


def member_groups(path: str) -> Iterator[MemberGroup]:
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe may never end, and a part may be read twice
        raise ReadError("it is not a regular file")
    group = MemberGroup()
    with tarfile.open(path, "r|*", tarinfo=StrictHeader) as tar:
        for member in tar:
            folder, _, base = member.name.rpartition("/")
            if not member.isfile() or base.startswith("."):
                continue
            stem, _, extension = base.partition(".")
            key, extension = f"{folder}/{stem}" if folder else stem, extension.lower()
            if key != group.key or extension in group.contents:
                yield group
                group = MemberGroup(key)
            content = tar.extractfile(member)
            group.names[extension] = member.name
            group.contents[extension] = b"" if content is None else content.read(MAX_MEMBER)
    yield group


def label_of(contents: dict[str, bytes]) -> str | None:
    for name in LABELS:
        text = contents.get(name, b"")[:MAX_LABEL].decode("utf-8", "replace").strip()
        if name == "json" and text:
            text = label_in_json(text)
        if text:
            return text.encode("utf-8", "backslashreplace").decode()  # JSON may contain a lone surrogate
    return None


def label_in_json(text: str) -> str:
    """Return the label of a JSON member, or "" if it has none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    values = [document[key] for key in ("label", "cls") if key in document] if isinstance(document, dict) else []
    return "" if not values or values[0] is None else str(values[0])


def is_tar(path: str) -> bool:
    return path.lower().endswith(ENDINGS)


def expand_braces(text: str) -> list[str]:
    """Expand ranges of numbers in braces. A name without them, or of an existing file, is returned unchanged.

    >>> expand_braces("train-{008..010}.tar")
    ['train-008.tar', 'train-009.tar', 'train-010.tar']
    """
    match = RANGE.search(text)
    if match is None or os.path.lexists(text):
        return [text]
    if math.prod(int(last) - int(first) + 1 for first, last in RANGE.findall(text)) > MAX_FILES:
        raise UsageError(f"{text}: the numbers in braces name more than {MAX_FILES:,} files.")
    first, last = match.groups()
    names = (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
    return [one for name in names for one in expand_braces(text[: match.start()] + name + text[match.end() :])]
