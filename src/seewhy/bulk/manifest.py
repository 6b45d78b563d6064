"""Tables of images: CSV, TSV or Parquet files with a path and annotations per row."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seewhy.bulk.dataset import Box, Item
from seewhy.errors import UnknownName, UsageError, find_close_matches, shorten_error

if TYPE_CHECKING:
    import pyarrow as pa

MAX_BYTES, MAX_CELLS = 2**32, 2**29  # of a table, and of the cells that a Parquet footer declares
MAX_COLUMNS = 10_000
MAX_CELL = 2**14  # characters of an id, a path or a label
NAMES_SHOWN, MAX_SHOWN = 20, 200  # names, and characters of a name or a value, in a message
TABLES = (".csv", ".tsv", ".parquet")
# Accepted column names, in order of preference.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "class_index", "class", "class_name", "category", "target"),
    "boxes": ("boxes", "box", "bbox"),
    "mask": ("mask", "mask_path"),
    "mask_value": ("mask_value",),
}


def read_table(path: str) -> tuple[list[Item], list[str]]:
    """Return the items of a table, and notes on columns with other names than those of the fields (see `COLUMNS`).

    Paths are relative to the table. `boxes` are left,top,right,bottom in pixels of the photo, separated by ";", or JSON
    [[l, t, r, b], ...]. `mask` is an image that is nonzero on the object, or has the value `mask_value` there.

    Raises UsageError if the table cannot be read, UnknownName if it has no column of paths.
    """
    rows, columns, unused = load_table(path)
    folder = os.path.dirname(path)
    for name in (name for name in ("id", "path", "label", "mask") if name in columns):
        if any(len(str(row[columns[name]])) > MAX_CELL for row in rows):
            raise UsageError(f"{path}: column {columns[name]} has a cell with more than {MAX_CELL:,} characters.")
    items = [parse_row(row, columns, folder) for row in rows]
    renamed = [f"{name} from column {column}" for name, column in columns.items() if name != column]
    notes = [f"{path}: {', '.join(renamed)}"] if renamed else []
    return items, notes + unused_notes(path, columns, unused)


def unused_notes(path: str, columns: Mapping[str, str], unused: Sequence[str]) -> list[str]:
    """Return notes about columns that are not used although a field has none: the name may be misspelled.

    >>> unused_notes("a.csv", {"path": "file"}, ["klass"])
    ['a.csv: no column of labels; unused: klass. For labels, rename one to label']
    >>> unused_notes("a.csv", {"path": "file", "label": "label"}, ["boxs", "split"])
    ['a.csv: the column boxs is not used - did you mean boxes?']
    """
    shown = ", ".join(name[:MAX_SHOWN] for name in unused[:NAMES_SHOWN])
    if unused and "label" not in columns:
        return [f"{path}: no column of labels; unused: {shown}. For labels, rename one to label"]
    missing = [choice for field, choices in COLUMNS.items() if field not in columns for choice in choices]
    guesses = {name: matches[0] for name in unused[:NAMES_SHOWN] if (matches := find_close_matches(name, missing, 1))}
    return [f"{path}: the column {name} is not used - did you mean {guess}?" for name, guess in guesses.items()]


def load_table(path: str) -> tuple[list[dict[str, Any]], dict[str, str], list[str]]:
    """Return the rows of a table with the columns of `COLUMNS` that it has, the names of these columns, and other names."""
    import pyarrow as pa

    try:
        check_file(path)
        table, columns, names = read_parquet(path) if path.lower().endswith(".parquet") else read_csv_file(path)
        return table.to_pylist(), columns, [name for name in names if name and name not in columns.values()]
    except (OSError, pa.ArrowException, UnicodeError, MemoryError, ValueError) as error:
        raise UsageError(f"{path}: this table cannot be read ({shorten_error(error)}).") from None


def check_file(path: str) -> None:
    """Raise OSError for a pipe or a device, which may never end, and for a file that is too large."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    if status.st_size > MAX_BYTES:
        raise OSError(f"more than {MAX_BYTES:,} bytes")


def read_csv_file(path: str) -> tuple[pa.Table, dict[str, str], Sequence[str]]:
    import pyarrow as pa
    from pyarrow import csv

    parse = csv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",", newlines_in_values=True)
    with csv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
        columns = select_columns(path, names)
    types = {name: pa.string() for name in columns.values()}  # text: a label may be "007"
    convert = csv.ConvertOptions(
        column_types=types, strings_can_be_null=True, null_values=[""], include_columns=list(types)
    )
    return csv.read_csv(path, parse_options=parse, convert_options=convert), columns, names


def read_parquet(path: str) -> tuple[pa.Table, dict[str, str], Sequence[str]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        columns = select_columns(path, names)
        if file.metadata.num_rows * len(columns) > MAX_CELLS:
            raise ValueError(f"it declares {file.metadata.num_rows:,} rows")
        return file.read(list(columns.values())), columns, names


def select_columns(path: str, names: Sequence[str]) -> dict[str, str]:
    """Return the column of each field of `COLUMNS`. Raises UnknownName if there is no column of paths."""
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"it has {len(names):,} columns")
    columns = {name: column for name, choices in COLUMNS.items() if (column := find_column(choices, names))}
    if repeated := [column for column in columns.values() if names.count(column) > 1]:
        raise ValueError(f"it has several columns {repeated[0]}")
    if "path" not in columns:
        shown = ", ".join(name[:MAX_SHOWN] for name in names[:NAMES_SHOWN])
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        raise UnknownName("column", "path", names, hint=f"{path} has {shown}{more}; name one of them path or file.")
    return columns


def find_column(choices: Sequence[str], names: Sequence[str]) -> str | None:
    normalized = {name.strip().lower(): name for name in names}
    return next((normalized[choice] for choice in choices if choice in normalized), None)


def parse_row(row: Mapping[str, Any], columns: Mapping[str, str], folder: str) -> Item:
    """Return the item of a row. Invalid annotations become its error."""
    fields = {name: row[column] for name, column in columns.items()}
    if not fields["path"]:
        return Item(as_text(fields.get("id")) or "no path", "", error="this row of the table has no path")
    path, error, boxes = str(fields["path"]), None, None
    try:
        boxes = parse_boxes(fields.get("boxes"))
        mask_value = parse_mask_value(fields.get("mask_value"))
    except ValueError as reason:
        error, mask_value = str(reason), None
    mask = fields.get("mask")
    return Item(
        as_text(fields.get("id")) or path,
        os.path.join(folder, path),
        label=as_text(fields.get("label")),
        boxes=boxes,
        mask=os.path.join(folder, str(mask)) if mask else None,
        mask_value=mask_value,
        error=error,
    )


def as_text(value: Any) -> str | None:
    """Return a cell as text. A column with gaps holds 3 as 3.0, which becomes "3"; NaN becomes None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def parse_mask_value(cell: Any) -> int | None:
    """Return the value of the object in a mask, or None for an empty cell. Raises ValueError if it is not an integer."""
    text = as_text(cell)
    if not text:
        return None
    if not re.fullmatch(r"\s*\d{1,18}\s*", text):
        raise ValueError(f"mask_value {text[:MAX_SHOWN]!r}: give a non-negative integer")
    return int(text)


def parse_boxes(cell: Any) -> tuple[Box, ...] | None:
    """Return boxes from text or lists, or None for an empty cell. Raises ValueError if they are invalid.

    >>> parse_boxes("1,2,30,40; 5 6 7 8")
    ((1.0, 2.0, 30.0, 40.0), (5.0, 6.0, 7.0, 8.0))
    >>> parse_boxes("[[1, 2, 30, 40]]")
    ((1.0, 2.0, 30.0, 40.0),)
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    values = cell
    try:
        if isinstance(cell, str) and cell.lstrip().startswith("["):
            values = json.loads(cell)
        elif isinstance(cell, str):
            values = [re.split(r"[\s,]+", part.strip()) for part in cell.split(";") if part.strip()]
        rows = [values] if len(values) == 4 and not isinstance(values[0], Sequence) else values
        boxes = tuple((float(left), float(top), float(right), float(bottom)) for left, top, right, bottom in rows)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise ValueError(
            f"boxes {str(cell)[:MAX_SHOWN]!r}: give left,top,right,bottom; separate several by ';'"
        ) from None
    for box in boxes:
        if not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1]:
            raise ValueError(f"box {box}: give left,top,right,bottom with left < right and top < bottom")
    return boxes
