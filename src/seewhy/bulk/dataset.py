"""The pictures of a data set: what there is to explain, in a fixed order, cut into parts.

A part is the unit of work: it becomes one file, and what is redone after an interruption. Of a list it is so many pictures, of
tar files it is one of them.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

# Of a disk or a network that is gone: no picture's fault, and it may come back.
TRANSIENT_ERRNOS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH)
Box = tuple[float, float, float, float]  # left, top, right, bottom in photo pixels


@dataclass(frozen=True, slots=True)
class Item:
    """One picture: its `id`, unique in the data set, the `path` that is opened, and what is known of it.

    `label` is the class as it was written, `boxes` and `mask` (a picture file, or of it the value `mask_value`) say where in
    the photo the object is. `data` is the file itself where there is no path to it, `error` why it cannot be read. `group`:
    the label is the name of a folder.
    """

    id: str
    path: str
    label: str | None = None
    boxes: tuple[Box, ...] | None = None
    mask: str | None = None
    mask_value: int | None = None
    data: bytes | None = None
    error: str | None = None
    group: bool = False


class PartSource(Protocol):
    """What gives the pictures of a part by its number, and `alone` that part: little enough to be sent where it is done."""

    def part(self, number: int) -> Iterator[Item]: ...

    def alone(self, number: int) -> PartSource: ...


class Dataset(PartSource, Protocol):
    """A data set: `count` is known where that costs nothing, `labels` likewise; `notes` say what was inferred."""

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
    """The pictures of one part."""

    items: Sequence[Item]

    def part(self, number: int) -> Iterator[Item]:
        return iter(self.items)

    def alone(self, number: int) -> PartSource:
        return self


@dataclass(frozen=True)
class ListDataset:
    """Pictures that are known one by one, in parts of `size`."""

    items: Sequence[Item]
    size: int
    notes: tuple[str, ...] = field(default=())

    @property
    def count(self) -> int:
        return len(self.items)

    @property
    def parts(self) -> int:
        return -(-len(self.items) // self.size)

    @property
    def labels(self) -> list[str]:
        """The labels that occur, in order of the first."""
        return list(dict.fromkeys(item.label for item in self.items if item.label is not None))

    @property
    def grouped(self) -> bool:
        return any(item.group for item in self.items)

    def part(self, number: int) -> Iterator[Item]:
        return iter(self.items[number * self.size : (number + 1) * self.size])

    def alone(self, number: int) -> PartSource:
        return SinglePart(tuple(self.part(number)))

    def digest(self) -> str:
        """A hash of what is known of the pictures, in their order; not of their content, nor of where they lie."""
        found = hashlib.sha256()
        for item in self.items:
            mask = item.mask and os.path.basename(item.mask)
            found.update(repr((item.id, item.label, item.boxes, mask, item.mask_value)).encode())
        return found.hexdigest()


def with_own_ids(items: Sequence[Item]) -> list[Item]:
    """The same with `#2`, `#3`, ... behind an id that occurred before.

    >>> [item.id for item in with_own_ids([Item("a", "a"), Item("a", "a"), Item("a#2", "b")])]
    ['a', 'a#2', 'a#2#2']
    """
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    result = []
    for item in items:
        name = item.id
        while name in taken:
            seen[item.id] += 1
            name = f"{item.id}#{seen[item.id] + 1}"
        taken.add(name)
        result.append(item if name == item.id else replace(item, id=name))
    return result


def path_text(path: str) -> str:
    """A path as text: bytes of a name that is no UTF-8 as `\\xff`.

    >>> path_text("caf\\udce9.jpg")
    'caf\\\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
