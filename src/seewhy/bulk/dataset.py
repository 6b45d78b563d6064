"""The images of a dataset in a fixed order, divided into parts.

A part is the unit of work: it becomes one file, and an interrupted part is computed again. A part is `part_size` images of a
list, or one tar file.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

# A disk or network is unavailable. The image is not the cause, and a later start may succeed.
TRANSIENT_ERRNOS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH)
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the photo


@dataclass(frozen=True, slots=True)
class Item:
    """One image: its `id`, unique in the dataset, the `path` to open, and its annotations.

    `label` is the class as written in the dataset; `has_folder_label` is True if it is a folder name. `boxes` and `mask`
    locate the object in the photo: the object is where the mask image is nonzero, or has the value `mask_value`. `data` is
    the content of the file if it is inside a tar file, `error` the reason why it cannot be read.
    """

    id: str
    path: str
    label: str | None = None
    boxes: tuple[Box, ...] | None = None
    mask: str | None = None
    mask_value: int | None = None
    data: bytes | None = None
    error: str | None = None
    has_folder_label: bool = False


class PartSource(Protocol):
    """Yields the items of a part. `single_part` is small enough to send to another process."""

    def part(self, number: int) -> Iterator[Item]: ...

    def single_part(self, number: int) -> PartSource: ...


class Dataset(PartSource, Protocol):
    """A dataset. `count` and `labels` are known only where they cost nothing; `notes` list inferred settings."""

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def count(self) -> int | None: ...

    @property
    def parts(self) -> int: ...

    @property
    def labels(self) -> Sequence[str]: ...

    def digest(self) -> str: ...


@dataclass(frozen=True)
class SinglePart:
    """The items of one part."""

    items: Sequence[Item]

    def part(self, number: int) -> Iterator[Item]:
        return iter(self.items)

    def single_part(self, number: int) -> PartSource:
        return self


@dataclass(frozen=True)
class ListDataset:
    """A list of items, in parts of `part_size`."""

    items: Sequence[Item]
    part_size: int
    notes: tuple[str, ...] = field(default=())

    @property
    def count(self) -> int:
        return len(self.items)

    @property
    def parts(self) -> int:
        return -(-len(self.items) // self.part_size)

    @property
    def labels(self) -> list[str]:
        """The labels that occur, in order of first occurrence."""
        return list(dict.fromkeys(item.label for item in self.items if item.label is not None))

    @property
    def has_folder_labels(self) -> bool:
        return any(item.has_folder_label for item in self.items)

    def part(self, number: int) -> Iterator[Item]:
        return iter(self.items[number * self.part_size : (number + 1) * self.part_size])

    def single_part(self, number: int) -> PartSource:
        return SinglePart(tuple(self.part(number)))

    def digest(self) -> str:
        """Return a hash of ids and annotations in order. File contents and folders are not part of it."""
        digest = hashlib.sha256()
        for item in self.items:
            mask = item.mask and os.path.basename(item.mask)
            digest.update(repr((item.id, item.label, item.boxes, mask, item.mask_value)).encode())
        return digest.hexdigest()


def with_unique_ids(items: Sequence[Item]) -> list[Item]:
    """Return the items with `#2`, `#3`, ... appended to repeated ids.

    >>> [item.id for item in with_unique_ids([Item("a", "a"), Item("a", "a"), Item("a#2", "b")])]
    ['a', 'a#2', 'a#2#2']
    """
    repeats: Counter[str] = Counter()
    used: set[str] = set()
    result = []
    for item in items:
        name = item.id
        while name in used:
            repeats[item.id] += 1
            name = f"{item.id}#{repeats[item.id] + 1}"
        used.add(name)
        result.append(item if name == item.id else replace(item, id=name))
    return result
