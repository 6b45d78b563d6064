"""Check the page headers of a Parquet file before its pages are decoded.

The checksum of a page does not cover its header, and the decoder allocates what the header declares: 546 bytes can become
gigabytes of nulls. The headers are structs in Thrift's compact encoding. A regular expression matches those that Arrow writes
(0.3 µs); a parser in Python reads all others (5 µs).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, BinaryIO

from seewhy.bulk.row_checks import InvalidRows

UNCOMPRESSED_SIZE, COMPRESSED_SIZE, DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 2, 3, 5, 7, 8  # fields of a page header
COUNT = 1  # field of the headers of data and dictionary pages: the number of values
BOOLEANS, INTEGERS, BINARY, STRUCT = (1, 2), (3, 4, 5, 6), 8, 12  # types in the compact encoding
MAX_DEPTH = 4
# Bytes of a header. The files are not mapped into memory: SIGBUS ends a process that reads a map of a file that was truncated.
USUAL_HEADER, LARGE_HEADER, MAX_HEADER = 512, 2**13, 2**20

Fields = dict[int, Any]  # by field number: an integer, or the fields of a struct
Page = tuple[
    bool, int, int, int, int
]  # is it a dictionary; sizes of the header, expanded and compressed; number of values


def one_of(types: Sequence[int]) -> bytes:
    """Return a pattern for the first byte of a field of one of these types: the step to its number, and its type."""
    return b"[" + b"".join(re.escape(bytes([step << 4 | kind])) for step in range(1, 16) for kind in types) + b"]"


INTEGER = rb"[\x80-\xff]{0,4}+[\x00-\x7f]"
SHORT_BINARY = b"(?:" + b"|".join(b"%b.{%d}" % (re.escape(bytes([size])), size) for size in range(128)) + b")"
STATISTICS = b"(?:%b%b|%b%b|%b)*+\\x00" % (
    one_of(INTEGERS), INTEGER, one_of((BINARY,)), SHORT_BINARY, one_of(BOOLEANS)
)  # fmt: skip
# The type of the page, its size, its compressed size and its checksum. Then the number of values and the encodings: two and a
# boolean of a dictionary, or four of a data page and statistics.
USUAL_PAGE = re.compile(
    rb"\x15[\x00-\x7f]\x15(%b)\x15(%b)\x15%b" % ((INTEGER,) * 3)
    + rb"(?:\x3c\x15(%b)\x15[\x00-\x7f][\x11\x12]?+\x00\x00" % INTEGER
    + rb"|\x1c\x15(%b)(?:\x15[\x00-\x7f]){3}(?:\x1c%b)?+\x00\x00)" % (INTEGER, STATISTICS),
    re.DOTALL,
)


def check_pages(file: BinaryIO, file_size: int, column: Any) -> None:
    """Raise InvalidRows if the pages of a column of a row group do not have the sizes and values that the footer declares."""
    offsets = [one for one in (column.dictionary_page_offset, column.data_page_offset) if one]
    position, expected = min(offsets, default=0), column.num_values
    end = position + column.total_compressed_size
    values = expanded = 0
    if position < 4 or not position <= end <= file_size:
        raise InvalidRows(f"{column.path_in_schema} is not inside the file")
    while values < expected and position < end:
        try:
            is_dictionary, header, size, compressed, count = read_page(file, position)
        except (IndexError, KeyError, TypeError, StopIteration):
            raise InvalidRows(f"a page header of {column.path_in_schema}") from None
        expanded += header + size
        position += header + compressed
        if size < 0 or count < 0 or compressed < 0 or (is_dictionary and count > size):
            raise InvalidRows(f"a page of {column.path_in_schema} declares {count:,} values")
        values += 0 if is_dictionary else count
    if values != expected or position > end or expanded > column.total_uncompressed_size:
        raise InvalidRows(f"the pages of {column.path_in_schema} have {values:,} values")


def read_page(file: BinaryIO, position: int) -> Page:
    """Return what the page header at a position declares."""
    file.seek(position)
    if match := USUAL_PAGE.match(file.read(USUAL_HEADER)):
        size, compressed, entries, count = match.groups()
        return count is None, match.end(), integer(size), integer(compressed), integer(count or entries)
    try:
        file.seek(position)
        fields, end = read_fields(file.read(LARGE_HEADER), 0)
    except IndexError:
        file.seek(position)
        fields, end = read_fields(file.read(MAX_HEADER), 0)
    return DICTIONARY_PAGE in fields, end, fields[UNCOMPRESSED_SIZE], fields[COMPRESSED_SIZE], page_values(fields)


def integer(data: bytes) -> int:
    """Decode a signed integer.

    >>> integer(bytes([0b10000001, 1])), integer(bytes([2]))
    (-65, 1)
    """
    value = 0
    for byte in reversed(data):
        value = value << 7 | byte & 127
    return (value >> 1) ^ -(value & 1)


def page_values(fields: Fields) -> int:
    """Return the number of values that a page header declares."""
    header: Sequence[Any] | Fields = next(
        fields[kind] for kind in (DATA_PAGE, DATA_PAGE_V2, DICTIONARY_PAGE) if kind in fields
    )
    return int(header[COUNT])


def read_fields(data: bytes, position: int, depth: int = 0) -> tuple[Fields, int]:
    """Return the fields of a struct, and the position after it. Raises InvalidRows for types that page headers do not have."""
    fields: Fields = {}
    number = 0
    if depth > MAX_DEPTH:
        raise InvalidRows("a page header is nested too deeply")
    while kind := data[position]:
        position += 1
        step, kind = kind >> 4, kind & 15
        if step:
            number += step
        else:
            number, position = read_integer(data, position)
        if kind in INTEGERS:
            fields[number], position = read_integer(data, position)
        elif kind == BINARY:
            size, position = read_varint(data, position)
            position += size
        elif kind == STRUCT:
            fields[number], position = read_fields(data, position, depth + 1)
        elif kind not in BOOLEANS:
            raise InvalidRows("a page header")
    return fields, position + 1


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return an unsigned integer, and the position after it.

    >>> read_varint(bytes([0b10000001, 1]), 0)
    (129, 2)
    """
    value = data[position]
    if value < 128:
        return value, position + 1
    value &= 127
    for shift in range(7, 70, 7):
        position += 1
        byte = data[position]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position + 1
    raise InvalidRows("a page header contains a number that is too long")


def read_integer(data: bytes, position: int) -> tuple[int, int]:
    """Return a signed integer, and the position after it."""
    value, position = read_varint(data, position)
    return (value >> 1) ^ -(value & 1), position
