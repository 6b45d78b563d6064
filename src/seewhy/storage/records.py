"""Read files that may be damaged or hostile: those of a saved folder, and files of the user that may be pipes or devices."""

from __future__ import annotations

import json
import math
import os
import re
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from seewhy.errors import RecordError, one_line, os_error_reason
from seewhy.storage.marks import open_regular

T = TypeVar("T")
PATIENCE = 30.0  # seconds that a pipe may take to send the next bytes
LONGEST_QUOTE = 80  # characters of a file that a message repeats


class NoData(OSError):
    """A pipe or a device sends nothing."""


def read_limited(file: BinaryIO, limit: int) -> bytes:
    """Read a file that `open_at_once` opened: all of it, or `limit` + 1 bytes if there are more.

    Raises NoData if a pipe or a device sends nothing for PATIENCE seconds.
    """
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode) or not hasattr(os, "O_NONBLOCK"):
        return file.read(limit + 1)
    data = bytearray()
    while len(data) <= limit:
        if not select.select([file], [], [], PATIENCE)[0]:
            raise NoData(f"no data for {PATIENCE:g} seconds from this pipe or device")
        try:
            block = os.read(file.fileno(), min(2**20, limit + 1 - len(data)))
        except BlockingIOError:  # another reader was faster
            continue
        if not block:
            break
        data += block
    return bytes(data)


@contextmanager
def open_record(path: Path, max_bytes: int) -> Iterator[BinaryIO]:
    """Open a file of a saved folder for reading.

    Raises RecordError if it is not a regular file of at most `max_bytes`, if it is a link that leads out of its folder, or if
    it cannot be read. Raises FileNotFoundError if there is none.
    """
    try:
        check_link(path)
        file = open_regular(path)
    except FileNotFoundError:
        raise
    except RuntimeError:  # of pathlib, before Python 3.13
        raise RecordError(path, "", "it is a loop of symbolic links") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise RecordError(path, "", os_error_reason(error)) from None
    with file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise RecordError(path, "", f"more than {max_bytes:,} bytes, the limit for this file")
        try:
            yield file
        except OSError as error:  # a disk or a network that fails
            raise RecordError(path, "", os_error_reason(error)) from None


def check_link(path: Path) -> None:
    """Raise OSError if a file is a symbolic link out of its folder: a record must not show a file from elsewhere."""
    if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent)):
        raise OSError("it is a symbolic link out of its folder")


def read_json_record(path: Path, kind: type[T], max_bytes: int) -> T:
    """Read a JSON file as an instance of `kind`, a msgspec struct or a dataclass whose fields have types and limits.

    The file must be UTF-8 of at most `max_bytes`, without duplicate keys, NaN or infinity. Fields that `kind` does not have
    are dropped. `kind` should not contain `Any`, which accepts values that are nested too deeply for the code that reads them.

    Raises RecordError, which names the file and the field, and FileNotFoundError if there is no file.
    """
    import msgspec  # not at the top: 25 ms, and few commands read a record

    with open_record(path, max_bytes) as file:
        data = file.read(max_bytes + 1)  # a file may grow while it is read
    value = parse_json(path, data[:max_bytes])
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RecordError(path, *locate(error, value, kind)) from None
    except UnicodeEncodeError:  # msgspec, for text with a surrogate where another type is expected
        try:
            msgspec.convert(without_surrogates(value), kind)
        except msgspec.ValidationError as error:
            raise RecordError(path, *locate(error, value, kind)) from None
        raise RecordError(path, "", "a key is not valid text") from None


def parse_json(path: Path, data: bytes) -> Any:
    """Parse JSON strictly. Not with msgspec, which rejects the "\\udcff" of a file name that is not UTF-8."""
    try:
        return json.loads(
            data.decode("utf-8"),
            parse_constant=refuse_constant,
            parse_float=finite_float,
            object_pairs_hook=unique_keys,
        )
    except UnicodeDecodeError:
        raise RecordError(path, "", "not UTF-8 text") from None
    except RecursionError:
        raise RecordError(path, "", "nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, and integers of thousands of digits
        raise RecordError(path, "", f"not valid JSON ({one_line(error)})") from None


def refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {quote(text)} is too large")
    return number


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {quote(next(key for key in data if keys.count(key) > 1))} appears twice")
    return data


def quote(text: object) -> str:
    """Return text from a file for a message: quoted, shortened, and without control characters.

    >>> quote("a\\x1b[2J"), len(quote("long " * 99))
    ("'a\\\\x1b[2J'", 83)
    """
    text = str(text)
    return ascii(text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 2] + "...")


def without_surrogates(value: Any) -> Any:
    """Return a copy of a JSON value whose texts are valid Unicode."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return [without_surrogates(item) for item in value] if isinstance(value, list) else value


def locate(error: Exception, value: Any, kind: type[Any]) -> tuple[str, str]:
    """Return the field and the reason of a validation error of msgspec, which does not name keys of a dict.

    >>> locate(ValueError("Expected `int`, got `str` - at `$.sizes[1]`"), {}, dict)
    ('sizes[1]', 'expected int, got str')
    """
    reason, separator, place = str(error).rpartition(" - at ")
    if not separator:  # the record itself
        reason, place = place, ""
    field = " of ".join(re.findall(r"`([^`]*)`", place)).replace("$.", "").replace("$", "")
    before, unnamed, after = field.partition("[...]")
    if unnamed and (key := key_of_error(value, before.rpartition(" of ")[2], kind, str(error))) is not None:
        field = f"{before}[{quote(key)}]{after}"
    reason = reason[:1].lower() + reason[1:].replace("`", "")
    return field, reason.encode("ascii", "backslashreplace").decode()


def key_of_error(value: Any, field: str, kind: type[Any], message: str) -> str | None:
    """Return the key of the dict at `field` of a record whose value causes an error; None if it is below other dicts."""
    import msgspec

    names = field.split(".")
    items = value
    for name in names:
        items = items.get(name) if isinstance(items, dict) else None
    if not isinstance(items, dict):
        return None
    suspects = list(items)
    while len(suspects) > 1:  # halve them: the record is converted again for each step
        half = suspects[: len(suspects) // 2]
        try:
            msgspec.convert(replace_at(value, names, {key: items[key] for key in half}), kind)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            suspects = half if str(error) == message else suspects[len(half) :]
        else:
            suspects = suspects[len(half) :]
    return suspects[0] if suspects else None


def replace_at(value: dict[str, Any], names: list[str], item: object) -> dict[str, Any]:
    """Return a copy of nested dicts with another value at `names`.

    >>> replace_at({"a": {"b": 1}, "c": 2}, ["a", "b"], 3)
    {'a': {'b': 3}, 'c': 2}
    """
    first, *rest = names
    return {**value, first: replace_at(value[first], rest, item) if rest else item}
