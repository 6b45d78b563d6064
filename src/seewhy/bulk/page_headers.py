"""Check the page headers of a Parquet file before its pages are decoded.

The checksum of a page does not cover its header, and the decoder allocates what the header declares: 546 bytes can become
gigabytes of nulls. The headers are structs in Thrift's compact encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seewhy.bulk.row_checks import InvalidRows

UNCOMPRESSED_SIZE, COMPRESSED_SIZE, DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 2, 3, 5, 7, 8  # fields of a page header
COUNT = 1  # field of the headers of data and dictionary pages: the number of values
BOOLEANS, INTEGERS, BINARY, STRUCT = (1, 2), (3, 4, 5, 6), 8, 12  # types in the compact encoding
MAX_DEPTH = 4

Buffer = bytes | Any  # or a memory map
Fields = dict[int, Any]  # by field number: an integer, or the fields of a struct


def check_pages(file: Buffer, column: Any) -> None:
    """Raise InvalidRows if the pages of a column of a row group do not have the sizes and values that the footer declares."""
    offsets = [one for one in (column.dictionary_page_offset, column.data_page_offset) if one]
    position = min(offsets, default=0)
    end = position + column.total_compressed_size
    values = expanded = 0
    if position < 4 or not position <= end <= len(file):
        raise InvalidRows(f"{column.path_in_schema} is not inside the file")
    try:
        while values < column.num_values and position < end:
            fields, body = read_fields(file, position)
            size, count = fields[UNCOMPRESSED_SIZE], page_values(fields)
            expanded += body - position + size
            position = body + fields[COMPRESSED_SIZE]
            if min(size, count, fields[COMPRESSED_SIZE]) < 0 or (DICTIONARY_PAGE in fields and count > size):
                raise InvalidRows(f"a page of {column.path_in_schema} declares {count:,} values")
            values += 0 if DICTIONARY_PAGE in fields else count
    except (IndexError, KeyError, TypeError):
        raise InvalidRows(f"a page header of {column.path_in_schema}") from None
    if values != column.num_values or position > end or expanded > column.total_uncompressed_size:
        raise InvalidRows(f"the pages of {column.path_in_schema} have {values:,} values")


def page_values(fields: Fields) -> int:
    """Return the number of values that a page header declares."""
    header: Sequence[Any] | Fields = next(
        fields[kind] for kind in (DATA_PAGE, DATA_PAGE_V2, DICTIONARY_PAGE) if kind in fields
    )
    return int(header[COUNT])


def read_fields(data: Buffer, position: int, depth: int = 0) -> tuple[Fields, int]:
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


def read_varint(data: Buffer, position: int) -> tuple[int, int]:
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


def read_integer(data: Buffer, position: int) -> tuple[int, int]:
    """Return a signed integer, and the position after it."""
    value, position = read_varint(data, position)
    return (value >> 1) ^ -(value & 1), position
