"""Part files that are there as a whole or not at all, and who may write them.

A part is written under a temporary name, brought to the disk, and renamed. Its name holds the fingerprint of the job, so
that what is done is what has its name, whoever did it.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout
from pyarrow import parquet

from seewhy.bulk.plan import Plan
from seewhy.bulk.rows import SCHEMA
from seewhy.errors import UsageError

PATIENCE = 3.0  # seconds
KEY, COUNTS = b"seewhy", b"seewhy.part"  # in the footer: the job, and what the part holds
LOCKS = "locks"
SUFFIX = ".tmp"
GROUP = 32 * 2**20  # bytes of a row group in memory
Shard = tuple[int, int]  # i of n, from 0


def reached(step: str) -> None:
    """Called where an interruption would be worst; does nothing. What tries interruptions puts itself here."""


class PartWriter:
    """Writes one part: `write` tables, then leave the `with` block. On an exception nothing stays."""

    def __init__(self, out: Path, name: str, footer: Mapping[str, Any]) -> None:
        self.final = out / name
        self.temporary = out / f".{name}.{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self.schema = SCHEMA.with_metadata({KEY: json.dumps(footer, ensure_ascii=False, sort_keys=True).encode()})

        self.pictures = self.failed = 0
        self.waiting: list[pa.Table] = []
        self.writer: parquet.ParquetWriter | None = None

    def __enter__(self) -> PartWriter:
        self.file = open(self.temporary, "xb")
        try:
            reached("temporary opened")
            self.writer = parquet.ParquetWriter(self.file, self.schema, compression="zstd")
        except BaseException:
            self.drop()
            raise
        return self

    def write(self, table: pa.Table) -> None:
        """Keep rows, and write them where they make a row group: small ones cost more than what is in them."""
        self.waiting.append(table)
        if sum(some.nbytes for some in self.waiting) >= GROUP:
            self.write_group()

    def write_group(self) -> None:
        if self.waiting:
            assert self.writer is not None
            self.writer.write_table(pa.concat_tables(self.waiting).combine_chunks())
            self.waiting = []

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.drop()
            return
        try:
            self.write_group()
            assert self.writer is not None
            counts = {"pictures": self.pictures, "failed": self.failed}
            self.writer.add_key_value_metadata({COUNTS: json.dumps(counts)})
            self.writer.close()
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            reached("temporary written")
            reached("before rename")
            os.replace(self.temporary, self.final)
        except BaseException:
            self.drop()
            raise
        reached("after rename")
        keep_name(self.final.parent)

    def drop(self) -> None:
        """Leave nothing."""
        if self.writer is not None:
            with suppress(Exception):  # it wants to write its end even now, and the disk may be full
                self.writer.close()
            self.writer.is_open = False  # or it tries once more when it is forgotten
        with suppress(OSError):
            self.file.close()
        self.temporary.unlink(missing_ok=True)


def keep_name(folder: Path) -> None:
    """Bring a folder's new names to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def finished(out: Path, plan: Plan) -> dict[int, dict[str, int]]:
    """The parts that are there, each with how many `pictures` it holds and how many `failed`.

    One that cannot be read is none: it is written again.
    """
    names = {plan.part_name(part): part for part in range(plan.parts)}
    found = {names[name]: counts(out / name) for name in sorted(os.listdir(out)) if name in names}
    return {part: known for part, known in found.items() if known is not None}


def counts(path: Path) -> dict[str, int] | None:
    try:
        return dict(json.loads(parquet.read_metadata(path).metadata[COUNTS]))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        return None


def sweep(out: Path, plan: Plan, parts: Sequence[int]) -> None:
    """Remove what interrupted writers of these parts left behind."""
    mine = {plan.part_name(part) for part in parts}
    for name in os.listdir(out):
        if name.endswith(SUFFIX) and name.startswith(".part-") and name[1:].rsplit(".", 2)[0] in mine:
            (out / name).unlink(missing_ok=True)


def share_of(parts: int, shard: Shard) -> list[int]:
    """The parts that a shard does: each n-th."""
    return list(range(shard[0], parts, shard[1]))


def read_shard(text: str) -> Shard:
    """A shard as it is written, "0/4" to "3/4".

    >>> read_shard("3/4")
    (3, 4)
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise UsageError(f"--shard {text}: say i/n, with i from 0 to n-1: 0/4, 1/4, 2/4 and 3/4.")
    return int(match[1]), int(match[2])


@contextmanager
def locked(out: Path, shard: Shard) -> Iterator[None]:
    """Hold a shard of a run. The system lets go of it when the process ends, however it ends.

    Raises UsageError where another process holds it, or holds a share of another division.
    """
    folder = out / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    own = f"{shard[0]}-of-{shard[1]}.lock"
    with ExitStack() as stack:
        take(stack, folder / own, f"{out} is being written by another process (shard {shard[0]}/{shard[1]}).")
        for other in sorted(os.listdir(folder)):
            if not other.endswith(f"-of-{shard[1]}.lock"):
                division = other.removesuffix(".lock").replace("-of-", "/")
                with ExitStack() as brief:  # only to see that nobody holds it
                    take(
                        brief, folder / other, f"{out} is being written as shard {division}; divide it in the same way."
                    )
        reached("lock taken")
        yield


def take(stack: ExitStack, path: Path, refusal: str) -> None:
    # A moment's patience: others that start now look at this lock, too, and let go of it at once.
    lock = FileLock(path, timeout=PATIENCE, poll_interval=0.01 + random.random() / 50)
    try:
        stack.enter_context(lock)
    except Timeout:
        raise UsageError(f"{refusal} Wait for it, or stop it.") from None
