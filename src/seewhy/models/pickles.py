"""Reject pickles that `torch.load` would read for years: `weights_only=True` bounds what they run, not how long."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import NamedTuple

MAX_OBJECTS = 50_000_000  # lists, tuples, dicts in an object, where shared ones count each time they occur
ZIP_START = b"PK\x03\x04"
MAX_PICKLE_BYTES = 2**28
FIRST_READ = 2**20  # bytes of a file that is not a zip: its pickles come first, then gigabytes of numbers
FIRST_PICKLES = 5  # in a file of PyTorch before 1.6: magic number, protocol, system, content, names of storages
CONSTANT, PUT, GET, MARK, OTHER, MEMOIZE, STOP, UNKNOWN = range(8)
SPECIAL = {
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), GET), **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), PUT),
    "MEMOIZE": MEMOIZE, "MARK": MARK, "STOP": STOP,
}  # fmt: skip


class Operation(NamedTuple):
    """What an opcode does: its kind, the size of its argument, and its effect on the stack."""

    kind: int
    fixed: int  # bytes of the argument, or of its length if it has one
    has_length: bool
    lines: int  # of a text argument
    taken: int  # values below the mark
    has_mark: bool
    pushed: int


class HugePickle(ValueError):
    """Raised for a pickle that describes an object of exponential size."""


def check_pickles(path: Path) -> None:
    """Raise HugePickle if the pickles of a checkpoint describe an object of exponential size.

    A tuple of two times the same tuple, 60 levels deep, needs 200 bytes, and centuries to be hashed as a key of a dict.
    """
    with open(path, "rb") as file:
        is_zip = file.read(len(ZIP_START)) == ZIP_START  # as PyTorch decides; a zip file may be appended to a pickle
    if not is_zip:
        return check_first_pickles(path)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".pkl"):
                if info.file_size > MAX_PICKLE_BYTES:
                    raise HugePickle(f"its {info.filename.rpartition('/')[2]} has {info.file_size:,} bytes")
                with archive.open(info) as file:
                    check_pickle(file.read())


def check_first_pickles(path: Path) -> None:
    size = FIRST_READ
    with open(path, "rb") as file:
        while True:
            file.seek(0)
            data, position = file.read(size), 0
            try:
                for _ in range(FIRST_PICKLES):
                    position = count_containers(data, position)
                return
            except IndexError:
                if len(data) < size:
                    raise ValueError("a pickle is incomplete") from None
            if size >= MAX_PICKLE_BYTES:
                raise HugePickle(f"its pickles have more than {size:,} bytes")
            size *= 16


def check_pickle(data: bytes) -> None:
    try:
        count_containers(data, 0)
    except IndexError:
        raise ValueError("a pickle is incomplete") from None


def count_containers(data: bytes, position: int) -> int:
    """Compute the number of containers in each object on the stack of a pickle machine, and return the end of the pickle.

    Numbers and texts count nothing. Lists that grow later keep their first size. Raises IndexError if the data ends first.

    This does not use `pickletools.genops`, which takes four times as long: 60,000 tensors are 1.8 million opcodes.
    """
    operations = OPERATIONS
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    while True:
        kind, size, has_length, lines, taken, has_mark, pushed = operations[data[position]]
        start = position + 1
        position = start + size
        if has_length:
            position += int.from_bytes(data[start:position], "little")
        elif lines:
            for _ in range(lines):
                position = data.find(b"\n", position) + 1
                if not position:
                    raise IndexError
        if kind == CONSTANT:
            stack.append(0)
        elif kind == PUT:
            number = data[start] if size == 1 else read_number(data[start:position], lines)
            memo[number] = stack[-1] if stack else 0
        elif kind == GET:
            number = data[start] if size == 1 else read_number(data[start:position], lines)
            stack.append(memo.get(number, 0))
        elif kind == MARK:
            marks.append(len(stack))
        elif kind == OTHER:
            first = max(0, (marks.pop() if has_mark and marks else len(stack)) - taken)
            count = (has_mark or taken > 0) + sum(stack[first:])
            if count > MAX_OBJECTS:
                raise HugePickle("its pickle contains itself too often")
            stack[first:] = [count] * pushed
        elif kind == MEMOIZE:
            memo[len(memo)] = stack[-1] if stack else 0
        elif kind == STOP:
            return position
        else:
            raise ValueError(f"its pickle contains the unknown opcode {data[start - 1]}")


def read_number(data: bytes, lines: int) -> int:
    return int(data) if lines else int.from_bytes(data, "little")


def operation_of(opcode: pickletools.OpcodeInfo) -> Operation:
    before, pushed = opcode.stack_before, len(opcode.stack_after)
    has_mark = pickletools.markobject in before
    taken = before.index(pickletools.markobject) if has_mark else len(before)
    is_constant = not taken and not has_mark and pushed == 1
    kind = SPECIAL.get(opcode.name, CONSTANT if is_constant else OTHER)
    name, size = (opcode.arg.name, opcode.arg.n) if opcode.arg else ("", 0)
    lines = 0 if size != pickletools.UP_TO_NEWLINE else 2 if name.endswith("pair") else 1
    length = LENGTHS.get(size)
    return Operation(kind, length or max(0, size), length is not None, lines, taken, has_mark, pushed)


LENGTHS = {  # bytes of the length of an argument
    pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4, pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}  # fmt: skip
OPERATIONS = [Operation(UNKNOWN, 0, False, 0, 0, False, 0)] * 256
for one in pickletools.opcodes:
    OPERATIONS[ord(one.code)] = operation_of(one)
