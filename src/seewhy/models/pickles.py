"""Reject pickles that `torch.load` would read for years: `weights_only=True` bounds what they run, not how long."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import IO

MAX_OBJECTS = 50_000_000  # lists, tuples, dicts in an object, where shared ones count each time they occur
ZIP_START = b"PK\x03\x04"
MAX_PICKLE_BYTES = 2**28
FIRST_PICKLES = 5  # in a file of PyTorch before 1.6: magic number, protocol, system, content, names of storages
GETS = ("GET", "BINGET", "LONG_BINGET")
PUTS = ("PUT", "BINPUT", "LONG_BINPUT")


class HugePickle(ValueError):
    """Raised for a pickle that describes an object of exponential size."""


def check_pickles(path: Path) -> None:
    """Raise HugePickle if the pickles of a checkpoint describe an object of exponential size.

    A tuple of two times the same tuple, 60 levels deep, needs 200 bytes, and centuries to be hashed as a key of a dict.
    """
    with open(path, "rb") as file:
        is_zip = file.read(len(ZIP_START)) == ZIP_START  # as PyTorch decides; a zip file may be appended to a pickle
    if not is_zip:
        with open(path, "rb") as file:
            for _ in range(FIRST_PICKLES):
                check_pickle(file)
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".pkl"):
                if info.file_size > MAX_PICKLE_BYTES:
                    raise HugePickle(f"its {info.filename.rpartition('/')[2]} has {info.file_size:,} bytes")
                with archive.open(info) as file:
                    check_pickle(file)


def check_pickle(file: IO[bytes]) -> None:
    """Compute the number of containers in each object on the stack of a pickle machine. Numbers and texts count nothing.

    Lists that grow later keep their first size.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in PUTS:
            memo[int(argument or 0)] = stack[-1] if stack else 0
        elif name in GETS:
            stack.append(memo.get(int(argument or 0), 0))
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1] if stack else 0
        elif name == "MARK":
            marks.append(len(stack))
        else:
            taken, has_mark, pushed = EFFECTS[name]
            start = max(0, (marks.pop() if has_mark and marks else len(stack)) - taken)
            size = (has_mark or taken > 0) + sum(stack[start:])
            if size > MAX_OBJECTS:
                raise HugePickle("its pickle contains itself too often")
            stack[start:] = [size] * pushed


def effect_of(opcode: pickletools.OpcodeInfo) -> tuple[int, bool, int]:
    """Return how many values an opcode takes from the stack below its mark, whether it has one, and how many it pushes."""
    before = opcode.stack_before
    has_mark = pickletools.markobject in before
    return before.index(pickletools.markobject) if has_mark else len(before), has_mark, len(opcode.stack_after)


EFFECTS = {opcode.name: effect_of(opcode) for opcode in pickletools.opcodes}
