"""Random damage to the arrays of a saved explanation: other types, shapes and sizes, objects, and broken zip files."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray


def edit_arrays(folder: Path, generator: Random) -> str:
    """Replace, rename, repeat or remove an array of an .npz file."""
    path = generator.choice(sorted(folder.glob("*.npz")))
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    number = generator.randrange(len(members))
    name, data = members[number]
    kind = generator.choice([*ARRAY_EDITS, *ZIP_EDITS])
    if kind in ARRAY_EDITS:
        members[number] = (name, ARRAY_EDITS[kind](np.load(io.BytesIO(data)), generator))
        write_zip(path, members)
    else:
        ZIP_EDITS[kind](path, members, number, generator)
    return f"{kind} in {path.name}"


def encode(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


class Opened:
    """Unpickling it creates a file, which a test could find."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, ("unpickled", "w")


def with_shape(array: NDArray[np.float32], shape: str, descr: str = "<f4", order: str = "False") -> bytes:
    """Return the bytes of an array under a header that declares something else."""
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"
    header = header.ljust(-(-(len(header) + 11) // 64) * 64 - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) & 0xFFFF) + header.encode("latin-1") + array.tobytes()


def replace_high(array: NDArray[np.float32], value: float) -> NDArray[np.float32]:
    """Return the array with `value` in place of the values above the median."""
    return np.where(array > np.median(array), array.dtype.type(value), array)


TYPES = ("f8", "f2", "i4", "u1", "?", "c8", ">f4", "U4", "M8[s]")
NOT_FINITE = (np.nan, np.inf, -np.inf)
ARRAY_EDITS: dict[str, Callable[[Any, Random], bytes]] = {
    "dtype": lambda array, generator: encode(array.astype(generator.choice(TYPES))),
    "structured dtype": lambda array, _: encode(np.zeros(array.shape, [("a", "f4"), ("b", "O")])),
    "objects": lambda array, _: encode(np.full(array.shape, Opened(), object)),
    "pickle": lambda _, __: pickle.dumps(Opened()),
    "shape": lambda array, _: encode(array.reshape(-1)),
    "transposed": lambda array, _: encode(np.asfortranarray(array)),
    "empty": lambda array, _: encode(array[:0]),
    "scalar": lambda array, _: encode(array.reshape(-1)[0]),
    "more axes": lambda array, _: encode(array[None, None]),
    "longer": lambda array, _: encode(np.concatenate([array, array])),
    "not finite": lambda array, generator: encode(replace_high(array, generator.choice(NOT_FINITE))),
    "only nan": lambda array, _: encode(np.full_like(array, np.nan)),
    "zeros": lambda array, _: encode(np.zeros_like(array)),
    "huge values": lambda array, generator: encode((np.sign(array) * generator.choice([3e38, 1e38, 1e20])).astype("f4")),
    "tiny values": lambda array, generator: encode((np.sign(array) * generator.choice([1e-45, 1e-38, 1e-30])).astype("f4")),
    "declared gigabytes": lambda array, _: with_shape(array, "(100000, 100000)"),
    "declared more": lambda array, _: with_shape(array, str((2, *array.shape))),
    "negative shape": lambda array, _: with_shape(array, str((-1, *array.shape[1:]))),
    "shape of texts": lambda array, _: with_shape(array, "('a', 2)"),
    "nested header": lambda array, _: with_shape(array, "(" * 200 + ")" * 200),
    "long header": lambda array, _: with_shape(array, str((1,) * 15_000)),
    "digits": lambda array, _: with_shape(array, f"({'9' * 4000},)"),
    "objects declared": lambda array, _: with_shape(array, str(array.shape), "|O"),
    "expression in header": lambda array, _: with_shape(array, "(__import__('os').getpid(), 2)"),
    "version 3": lambda array, _: encode(array).replace(b"NUMPY\x01", b"NUMPY\x03", 1),
    "no header": lambda array, _: array.tobytes(),
    "bomb": lambda _, __: encode(np.zeros((8000, 8000), "f4")),
}  # fmt: skip


def write_zip(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # about duplicate names
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def rename(path: Path, members: list[tuple[str, bytes]], number: int, generator: Random) -> None:
    names = [
        "x.npy",
        "../x.npy",
        "/etc/x.npy",
        "a|b|c.npy",
        "a|b.npy",
        "input",
        "\x1b[2J.npy",
        "a" * 60_000,
        members[0][0],
    ]
    members[number] = (generator.choice(names), members[number][1])
    write_zip(path, members)


def patch_directory(path: Path, members: list[tuple[str, bytes]], number: int, generator: Random) -> None:
    """Change fields of an entry of the directory: flags, method, checksum, sizes, offset."""
    write_zip(path, members)
    data = bytearray(path.read_bytes())
    start = data.find(b"PK\x01\x02")
    for _ in range(number):
        start = data.find(b"PK\x01\x02", start + 4)
    offset, size = generator.choice([(6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4)])
    value = generator.choice([0, 1, 9, 12, 99, 2**16 - 1, 2**31, 2**32 - 1]) & (2 ** (8 * size) - 1)
    data[start + offset : start + offset + size] = value.to_bytes(size, "little")
    path.write_bytes(data)


ZIP_EDITS: dict[str, Callable[[Path, list[tuple[str, bytes]], int, Random], None]] = {
    "an array removed": lambda path, members, number, _: write_zip(path, members[:number] + members[number + 1 :]),
    "an array twice": lambda path, members, number, _: write_zip(path, [*members, members[number]]),
    "an array more": lambda path, members, number, _: write_zip(path, [*members, ("more.npy", members[number][1])]),
    "arrays exchanged": lambda path, members, number, _: write_zip(
        path, [(name, members[number - 1][1] if at == number else data) for at, (name, data) in enumerate(members)]
    ),
    "arrays in reverse": lambda path, members, _, __: write_zip(path, members[::-1]),
    "thousands of arrays": lambda path, members, _, __: write_zip(
        path, [*members, *((f"{n}.npy", b"") for n in range(5000))]
    ),
    "stored": lambda path, members, _, __: write_zip(path, members, zipfile.ZIP_STORED),
    "bzip2": lambda path, members, _, __: write_zip(path, members, zipfile.ZIP_BZIP2),
    "lzma": lambda path, members, _, __: write_zip(path, members, zipfile.ZIP_LZMA),
    "a name": rename,
    "directory": patch_directory,
    "a single array": lambda path, members, number, _: write(path, members[number][1]),
    "no arrays": lambda path, _, __, ___: write_zip(path, []),
}
