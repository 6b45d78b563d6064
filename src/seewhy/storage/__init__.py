"""The files that seewhy writes: complete or absent, with a mark, and never over a file that it did not write."""

from seewhy.storage.files import unfinished, write_errors, write_file
from seewhy.storage.marks import (
    MARKED_SUFFIXES,
    UNENCODABLE,
    Content,
    check_own,
    encode_jpeg,
    encode_json,
    encode_npz,
    encode_png,
    has_mark,
    is_own,
    open_regular,
)
from seewhy.storage.runs import (
    INDEX,
    INPUT,
    MAPS,
    PHOTO,
    RECORD,
    REPORT,
    finite_or_none,
    read_recorded_files,
    write_run,
)

__all__ = [
    "INDEX",
    "INPUT",
    "MAPS",
    "MARKED_SUFFIXES",
    "PHOTO",
    "RECORD",
    "REPORT",
    "UNENCODABLE",
    "Content",
    "check_own",
    "encode_jpeg",
    "encode_json",
    "encode_npz",
    "encode_png",
    "finite_or_none",
    "has_mark",
    "is_own",
    "open_regular",
    "read_recorded_files",
    "unfinished",
    "write_errors",
    "write_file",
    "write_run",
]
