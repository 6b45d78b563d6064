"""Read float32 arrays from an .npz file whose shapes are known, without trusting the file."""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seewhy.errors import RecordError, one_line
from seewhy.storage.records import open_record, quote

MAX_HEADER = 1024  # bytes; NumPy writes 128 for an array of up to eight axes
MEMBER_BYTES = 1024  # in the zip file: headers and the directory, without the name
# As NumPy writes it. Its own reader evaluates Python literals, and unpickles objects where it may.
HEADER = re.compile(rb"\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n")
READ_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, NotImplementedError, RuntimeError,
)  # fmt: skip

Float32Array = NDArray[np.float32]
Shape = tuple[int | None, ...]  # None: any length


class ArrayError(Exception):
    """An array is invalid."""


def read_arrays(path: Path, shapes: Mapping[str, Shape], max_values: int) -> dict[str, Float32Array]:
    """Read exactly the arrays `shapes` from an .npz file.

    Raises RecordError for missing, additional and duplicate arrays, for other shapes and types, and for corrupt data. The size
    is checked before anything is decompressed. Raises FileNotFoundError if there is no file.
    """
    names = {f"{name}.npy": name for name in shapes}
    known = [math.prod(length or 1 for length in shape) for shape in shapes.values()]
    values = max_values if any(None in shape for shape in shapes.values()) else sum(known)
    max_bytes = 5 * values + sum(MEMBER_BYTES + 8 * len(name) for name in names) + MEMBER_BYTES
    name = ""
    try:
        with open_record(path, max_bytes) as file, zipfile.ZipFile(file) as archive:
            check_members(archive.infolist(), names, max_bytes)
            arrays = {}
            for member, name in names.items():
                arrays[name] = read_array(archive, archive.getinfo(member), shapes[name])
            return arrays
    except ArrayError as error:
        raise RecordError(path, quote(name) if name else "", str(error)) from None
    except MemoryError:
        raise RecordError(path, quote(name) if name else "", "not enough memory for this array") from None
    except READ_ERRORS as error:
        raise RecordError(path, quote(name) if name else "", f"corrupt ({one_line(error)})") from None


def check_members(members: Sequence[zipfile.ZipInfo], names: Mapping[str, str], max_bytes: int) -> None:
    """Check the names and sizes in the directory of an .npz file."""
    listed = {member.filename for member in members}
    if len(listed) < len(members):
        raise ArrayError("an array is contained twice")
    for missing in names.keys() - listed:
        raise ArrayError(f"the array {quote(names[missing])} is missing")
    for other in listed - names.keys():
        raise ArrayError(f"it contains {quote(other)}, which the record does not list")
    if sum(member.file_size for member in members) > max_bytes:
        raise ArrayError("its arrays are larger than the record lists")


def read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, expected: Shape) -> Float32Array:
    """Read one array. Its size in the directory must be that of its header, and this that of `expected`."""
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArrayError("it is encrypted, or compressed in a way that NumPy does not use")
    with archive.open(member) as file:
        magic = file.read(10)
        length = int.from_bytes(magic[8:], "little")
        header = file.read(min(length, MAX_HEADER))
        match = HEADER.fullmatch(header)
        if magic[:8] != b"\x93NUMPY\x01\x00" or match is None:
            raise ArrayError("it is not an array that seewhy wrote")
        if match[1] != b"<f4":
            raise ArrayError(f"expected float32 values, got {quote(match[1].decode('latin-1'))}")
        shape = tuple(int(length) for length in match[3].split(b",") if length.strip())
        if len(shape) != len(expected) or any(
            b not in (a, None) or a < 1 for a, b in zip(shape, expected, strict=True)
        ):
            listed = ["any" if one is None else one for one in expected]
            raise ArrayError(f"its shape is {list(shape)}, and the record lists {listed}".replace("'", ""))
        size = 4 * math.prod(shape)
        if member.file_size != len(magic) + len(header) + size:
            raise ArrayError("its size is not that of its shape")
        # A bytearray, because torch warns about arrays that cannot be written.
        values = np.frombuffer(bytearray(file.read(size)), np.float32)
    return values.reshape(shape[::-1]).T if match[2] == b"True" else values.reshape(shape)
