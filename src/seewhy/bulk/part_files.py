"""Atomic part files, and the locks of the processes that write them.

A part is written under a temporary name, synced to disk, and renamed. Its name contains the fingerprint of the job, so a part
is finished if and only if a file with its name exists.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout
from pyarrow import parquet

from seewhy.bulk.job_record import JOB, has_checks
from seewhy.bulk.part_reader import COUNTS_KEY, JOB_KEY, PartCounts, PartError, check_footer, open_part
from seewhy.bulk.plan import Plan
from seewhy.bulk.rows import row_schema
from seewhy.bulk.settings import Shard
from seewhy.errors import UsageError, os_error_reason
from seewhy.storage import UNENCODABLE, check_own
from seewhy.storage.paths import check_inside

LOCK_TIMEOUT = 3.0  # seconds
LOCKS, LOCK_NAME = "locks", re.compile(r"(\d{1,9})-of-(\d{1,9})\.lock")
MAX_LOCK_BYTES = 1000
SUFFIX = ".tmp"
ROW_GROUP = 32 * 2**20  # bytes in memory


def reached(step: str) -> None:
    """Do nothing. Tests replace this function to interrupt a job at a critical step."""


class HashingFile(io.BufferedWriter):
    """A new file that computes the hash of its content while it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "x"))
        self.sha256, self.size = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.size += memoryview(data).nbytes
        return super().write(data)

    def digest(self) -> dict[str, int | str]:
        return {"size": self.size, "sha256": self.sha256.hexdigest()}


class PartWriter:
    """Writes one part: `write` tables, then leave the `with` block. After an exception no file remains."""

    def __init__(self, out: Path, name: str, footer: Mapping[str, Any]) -> None:
        self.final = out / name
        self.temporary = out / f".{name}.{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        text = json.dumps(footer, ensure_ascii=False, sort_keys=True).encode("utf-8", UNENCODABLE)
        self.schema = row_schema(has_checks(footer["settings"])).with_metadata({JOB_KEY: text})
        self.images = self.failed = self.rows = 0
        self.pending: list[pa.Table] = []
        self.writer: parquet.ParquetWriter | None = None

    def __enter__(self) -> PartWriter:
        self.file = HashingFile(self.temporary)
        try:
            reached("temporary opened")
            self.writer = parquet.ParquetWriter(self.file, self.schema, compression="zstd", write_page_checksum=True)
        except BaseException:
            self.drop()
            raise
        return self

    def write(self, table: pa.Table) -> None:
        """Buffer rows until they fill a row group: the overhead of small row groups exceeds their content."""
        self.pending.append(table)
        self.rows += table.num_rows
        if sum(one.nbytes for one in self.pending) >= ROW_GROUP:
            self.write_group()

    def write_group(self) -> None:
        if self.pending:
            assert self.writer is not None
            self.writer.write_table(pa.concat_tables(self.pending).combine_chunks())
            self.pending = []

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.drop()
            return
        try:
            self.write_group()
            assert self.writer is not None
            counts = {"images": self.images, "failed": self.failed, "rows": self.rows, **self.file.digest()}
            self.writer.add_key_value_metadata({COUNTS_KEY: json.dumps(counts)})
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
        sync_folder(self.final.parent)

    def drop(self) -> None:
        """Remove the temporary file."""
        if self.writer is not None:
            with suppress(Exception):  # close() writes the footer, and the disk may be full
                self.writer.close()
            self.writer.is_open = False  # otherwise the destructor calls close() again
        with suppress(OSError):
            self.file.close()
        self.temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to disk, on systems that support it."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def finished_parts(out: Path, plan: Plan) -> dict[int, PartCounts]:
    """Return the finished parts with their counts. A file with an unreadable footer counts as unfinished."""
    names = {plan.part_name(part): part for part in range(plan.parts)}
    counts = {names[name]: read_counts(out / name, plan) for name in sorted(os.listdir(out)) if name in names}
    return {part: count for part, count in counts.items() if count is not None}


def read_counts(path: Path, plan: Plan) -> PartCounts | None:
    try:
        return check_footer(path, open_part(path, plan.fingerprint).metadata, plan.fingerprint)[1]
    except PartError:
        return None


def remove_temporary_files(out: Path, plan: Plan, parts: Sequence[int]) -> None:
    """Remove the files of interrupted writers of these parts."""
    names = {plan.part_name(part) for part in parts}
    for name in os.listdir(out):
        if name.endswith(SUFFIX) and name.startswith(".part-") and name[1:].rsplit(".", 2)[0] in names:
            with suppress(OSError):
                (out / name).unlink()


def run_files(out: Path) -> list[Path]:
    """Return the files of runs in a folder, finished or not."""
    return [path for pattern in (JOB, "part-*", "log-*", f"{LOCKS}/*") for path in out.glob(pattern)]


def parts_of_shard(parts: int, shard: Shard) -> list[int]:
    """Return the parts of a shard: every n-th."""
    return list(range(shard[0], parts, shard[1]))


@contextmanager
def locked(out: Path, shard: Shard) -> Iterator[None]:
    """Hold the lock of a shard. The operating system releases it when the process ends, even after SIGKILL.

    Raises UsageError if another process holds it, or holds a shard of another division.
    """
    folder = out / LOCKS
    check_inside(folder, out)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is not a folder, and a run writes its locks there. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        acquire(
            stack,
            folder / lock_name(shard),
            f"{out} is being written by another process (shard {shard[0]}/{shard[1]}).",
        )
        for other in sorted(os.listdir(folder)):
            if (division_match := LOCK_NAME.fullmatch(other)) and int(division_match[2]) != shard[1]:
                division = f"{division_match[1]}/{division_match[2]}"
                with ExitStack() as released_at_once:  # only checks that no process holds it
                    message = f"{out} is being written as shard {division}; use the same number of shards."
                    acquire(released_at_once, folder / other, message)
        reached("lock taken")
        yield


def remove_lock(out: Path, shard: Shard) -> None:
    """Remove the lock of a shard that computed nothing, and the folder of the locks if it is empty."""
    folder = out / LOCKS
    with suppress(OSError):
        (folder / lock_name(shard)).unlink()
        folder.rmdir()


def lock_name(shard: Shard) -> str:
    return f"{shard[0]}-of-{shard[1]}.lock"


def is_lock(path: Path) -> bool:
    """Return True if a file can be a lock: regular, no link, and empty or with the number of a process.

    filelock writes that number on file systems without locks.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_LOCK_BYTES:
            return False
        return status.st_size == 0 or path.read_bytes().split(b"\n")[0].strip().isdigit()
    except FileNotFoundError:  # deleted in the meantime
        return True


def acquire(stack: ExitStack, path: Path, message: str) -> None:
    check_own(path, is_lock)  # some versions of filelock truncate the file
    # Retry for a moment: another shard that starts now may hold this lock while it checks it.
    lock = FileLock(path, timeout=LOCK_TIMEOUT, poll_interval=0.01 + random.random() / 50)
    try:
        stack.enter_context(lock)
    except Timeout:
        raise UsageError(f"{message} Wait for it, or stop it.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be locked ({os_error_reason(error)}).") from None
