"""Open part files. They may be damaged or hostile: the footer is checked before rows are decoded, and then all rows are."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import pyarrow as pa
from msgspec import Meta, Struct
from pyarrow import dataset, fs

from seewhy.bulk.page_headers import check_pages
from seewhy.bulk.row_checks import InvalidRows, check_rows
from seewhy.bulk.rows import CHECKED_SCHEMA, SCHEMA
from seewhy.errors import RecordError, UsageError, shorten_error

if TYPE_CHECKING:
    from pyarrow import compute
    from pyarrow.parquet import FileMetaData

JOB_KEY, COUNTS_KEY = b"seewhy", b"seewhy.part"  # in the Parquet footer: the job, and the counts of the part
MOVE = "Move it to another folder, then run the same seewhy bulk command again."
RETRY = "Run the same command again when this is solved."
REPAIR = "Run the same seewhy bulk command again: it computes this part again."
# A few bytes can declare gigabytes of rows, so the sizes that a footer declares are limited.
MAX_COLUMN, MAX_EXPANSION = 2**28, 200  # bytes of one column of a row group, or of its compressed bytes
MAX_VALUES = 2**24  # of one column of a row group
MAX_ROWS = 2**24  # of a file
CONTENT_ERRNOS = (None, errno.EINVAL)  # of pyarrow, for a file that it cannot decode
MAGIC = b"PAR1"
BLOCK, BUFFER = 2**20, 2**16
MAX_GROUP, MAX_BATCHES = 2**22, 16  # bytes and number of batches that are checked together
# Buffered streams instead of entire column chunks in memory: this saves 5 to 15 % of the time, as much as the checksums take.
SCAN_OPTIONS = dataset.ParquetFragmentScanOptions(
    page_checksum_verification=True, use_buffered_stream=True, buffer_size=BUFFER, pre_buffer=False
)

MAX_OPENED = 1000  # parts whose footers are kept: a summary opens each part four times
opened: dict[tuple[str, str, int, int, int], dataset.ParquetFileFragment] = {}  # by path, job, inode, size and time
Count = Annotated[int, Meta(ge=0, le=2**53)]


class PartError(RecordError):
    """A part file that cannot be used.

    `is_damaged` is False if its content is not the cause: a disk or network that is gone, no permission, too little memory.
    `is_foreign` is True if seewhy did not write it.
    """

    def __init__(self, path: Path, reason: str, *, is_foreign: bool = False, is_damaged: bool = True) -> None:
        super().__init__(path, "", reason)
        advice = MOVE if is_foreign else REPAIR if is_damaged else RETRY
        self.args = (f"{path}: {reason}. {advice}",)
        self.is_foreign, self.is_damaged = is_foreign, is_damaged and not is_foreign


class PartCounts(Struct):
    """The numbers of images, failed images and rows of a part, and the hash of its first `size` bytes, which hold the rows.

    The last three are None in files of earlier versions.
    """

    images: Count
    failed: Count
    rows: Count | None = None
    size: Count | None = None
    sha256: str | None = None


class PartFooter(Struct):
    """The fields of a footer that identify a part."""

    fingerprint: str
    part: int
    layers: list[str]
    methods: list[str]


@contextmanager
def part_errors(path: Path) -> Iterator[None]:
    """Convert the errors of reading a part file to PartError, which names the file."""
    try:
        yield
    except InvalidRows as error:
        raise PartError(path, f"this part is damaged ({error})") from None
    except MemoryError:
        raise PartError(path, "there is not enough memory to read this part", is_damaged=False) from None
    except OSError as error:  # also of pyarrow, for files that it cannot decode; these have no number
        is_damaged = error.errno in CONTENT_ERRNOS
        reason = error.strerror.lower() if error.errno and error.strerror else arrow_reason(error)
        raise PartError(path, f"this part cannot be read ({reason})", is_damaged=is_damaged) from None
    except (pa.ArrowException, UnicodeError) as error:
        raise PartError(path, f"this part is damaged ({arrow_reason(error)})") from None


def arrow_reason(error: Exception) -> str:
    """Return the message of pyarrow without the path, which PartError names."""
    message = re.sub(r"^Could not open Parquet input source '.*?': ", "", str(error), flags=re.DOTALL)
    return shorten_error(ValueError(message))


def check_query(columns: Sequence[str] | None, where: compute.Expression | None, schema: pa.Schema) -> None:
    """Raise UsageError if a run does not have these columns, or if `where` does not fit them."""
    try:
        dataset.dataset(schema.empty_table()).to_table(columns=columns, filter=where)
    except (pa.ArrowException, TypeError) as error:
        raise UsageError(f"columns or where: {shorten_error(error)}. Columns: {', '.join(schema.names)}.") from None


def read_parts(
    paths: Sequence[Path],
    fingerprint: str,
    store: str,
    columns: Sequence[str] | None = None,
    where: compute.Expression | None = None,
    schema: pa.Schema = SCHEMA,
) -> Iterator[pa.RecordBatch]:
    """Yield the checked rows of parts of the job with this fingerprint, in order. Raises PartError.

    `schema` contains the columns that the parts of this job have.

    pyarrow reads ahead in threads while rows are checked. For 12,000 rows in 12 parts, with one layer of 7x7 or 20 layers of
    14x14, all checks together (footers, page checksums, rows) add 11 or 22 ms to 23 or 60 ms.
    """
    fragments = [open_part(path, fingerprint) for path in paths]
    if not fragments:
        return
    try:
        scanner = dataset.FileSystemDataset(fragments, schema, fragments[0].format).scanner(columns, filter=where)
        for group in small_groups(scanner.scan_batches()):
            check_group(group, store)
            yield from (tagged.record_batch for tagged in group)
    except (pa.ArrowException, OSError, MemoryError):
        for fragment in fragments:  # one by one, to find the file
            with part_errors(Path(fragment.path)):
                for batch in fragment.to_batches(schema=schema, columns=columns, filter=where):
                    check_rows(batch, store)
        raise


def small_groups(batches: Iterable[dataset.TaggedRecordBatch]) -> Iterator[list[dataset.TaggedRecordBatch]]:
    """Yield groups of small batches, and each large batch alone."""
    group: list[dataset.TaggedRecordBatch] = []
    size = 0
    for tagged in batches:
        added = tagged.record_batch.get_total_buffer_size()
        if group and (size + added > MAX_GROUP or len(group) == MAX_BATCHES):
            yield group
            group, size = [], 0
        group.append(tagged)
        size += added
    if group:
        yield group


def check_group(group: Sequence[dataset.TaggedRecordBatch], store: str) -> None:
    """Check the rows of a group. Raises PartError for the file of the first invalid ones.

    They are checked together: the checks of a batch of 1,000 rows take 0.35 ms, and those of 10,000 rows 1 ms.
    """
    if len(group) > 1:
        with suppress(InvalidRows, pa.ArrowException):
            return check_rows(pa.concat_batches([tagged.record_batch for tagged in group]), store)
    for tagged in group:
        with part_errors(Path(tagged.fragment.path)):
            check_rows(tagged.record_batch, store)


def open_part(path: Path, fingerprint: str) -> dataset.ParquetFileFragment:
    """Open a part file of the job with this fingerprint, and check its footer. Raises PartError."""
    with part_errors(path):
        status = regular_status(path)
        identity = (str(path), fingerprint, status.st_ino, status.st_size, status.st_mtime_ns)
        if (known := opened.get(identity)) is not None:
            return known
        if is_not_parquet(path, status.st_size):
            raise PartError(path, "this file has the name of a part, but seewhy did not write it", is_foreign=True)
        parquet = dataset.ParquetFileFormat(default_fragment_scan_options=SCAN_OPTIONS)
        fragment = parquet.make_fragment(str(path), fs.LocalFileSystem())
        check_footer(path, fragment.metadata, fingerprint)
        check_schema(fragment.physical_schema)
        check_sizes(path, fragment.metadata)
        if len(opened) >= MAX_OPENED:
            opened.pop(next(iter(opened)))
        opened[identity] = fragment
    return fragment


def regular_status(path: Path) -> os.stat_result:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path.name} is not a regular file")
    return status


def check_digest(path: Path, counts: PartCounts) -> bool:
    """Raise PartError if the rows of a part are not the bytes that were written. Return False if that is unknown."""
    if counts.size is None or counts.sha256 is None:
        return False
    digest, remaining = hashlib.sha256(), counts.size
    with part_errors(path), open(path, "rb") as file:
        while remaining and (block := file.read(min(remaining, BLOCK))):
            digest.update(block)
            remaining -= len(block)
    if remaining or digest.hexdigest() != counts.sha256:
        raise PartError(path, "this part was changed, or is damaged")
    return True


def is_not_parquet(path: Path, size: int) -> bool:
    """Return True if a file is of another kind. A part that was truncated has the mark of Parquet at one end, or is empty."""
    with open(path, "rb") as file:
        start = file.read(len(MAGIC))
        file.seek(max(0, size - len(MAGIC)))
        return size > 0 and MAGIC not in (start, file.read(len(MAGIC)))


def check_sizes(path: Path, metadata: FileMetaData) -> None:
    """Raise InvalidRows if a footer or a page header declares more rows, values or bytes than a part can have."""
    rows = 0
    with open(path, "rb") as file:
        file_size = os.fstat(file.fileno()).st_size
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            rows += group.num_rows
            for number in range(group.num_columns):
                column = group.column(number)
                limit = max(MAX_COLUMN, MAX_EXPANSION * min(file_size, column.total_compressed_size))
                if not 0 <= column.total_uncompressed_size <= limit or not 0 <= column.num_values <= MAX_VALUES:
                    raise InvalidRows(f"{column.path_in_schema} declares {column.total_uncompressed_size:,} bytes")
                check_pages(file, file_size, column)
    if rows != metadata.num_rows or rows > MAX_ROWS:
        raise InvalidRows(f"{metadata.num_rows:,} rows")


def check_footer(path: Path, metadata: FileMetaData, fingerprint: str) -> tuple[PartFooter, PartCounts | None]:
    """Return the footer of a part, and its counts if it has them (a file that another program rewrote has none).

    Raises PartError if it is of another job, of another part or of another program.
    """
    values: Mapping[bytes, bytes] = metadata.metadata or {}
    if JOB_KEY not in values:
        raise PartError(path, "this file has the name of a part, but seewhy did not write it", is_foreign=True)
    try:
        footer = msgspec.convert(json.loads(values[JOB_KEY]), PartFooter)
        counts = msgspec.convert(json.loads(values.get(COUNTS_KEY, b"null")), PartCounts | None)
    except (ValueError, RecursionError):  # ValueError: also of msgspec and of UTF-8
        raise PartError(path, "the footer of this part is damaged") from None
    if footer.fingerprint != fingerprint:
        raise PartError(path, "this part belongs to another job")
    if (match := re.match(r"part-(\d+)-of-", path.name)) and int(match[1]) != footer.part:
        raise PartError(path, f"this file is part {footer.part} under the name of another part")
    if counts is not None and counts.rows not in (None, metadata.num_rows):
        raise PartError(path, f"this part has {metadata.num_rows:,} of {counts.rows:,} rows")
    return footer, counts


def check_schema(schema: pa.Schema) -> None:
    """Raise InvalidRows if the columns are not those that this version writes."""
    if not schema.equals(SCHEMA) and not schema.equals(CHECKED_SCHEMA):
        names = {field.name: field.type for field in schema}
        different = [field.name for field in SCHEMA if names.get(field.name) != field.type]
        others = [name for name in names if name not in SCHEMA.names]
        raise InvalidRows(f"its columns differ: {', '.join([*different, *others][:5])}")
