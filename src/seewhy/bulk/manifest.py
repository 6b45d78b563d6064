"""Tables of images: CSV, TSV or Parquet files with a path and annotations per row."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from seewhy.bulk.dataset import Box, Item
from seewhy.errors import UnknownName, UsageError, shorten_error

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
    rows, names = load_table(path)
    columns = {name: column for name, choices in COLUMNS.items() if (column := find_column(choices, names))}
    if "path" not in columns:
        raise UnknownName(
            "column", "path", names, hint=f"{path} has {', '.join(names)}; name one of them path or file."
        )
    folder = os.path.dirname(path)
    items = [parse_row(row, columns, folder) for row in rows]
    renamed = [f"{name} from column {column}" for name, column in columns.items() if name != column]
    return items, [f"{path}: {', '.join(renamed)}"] if renamed else []


def load_table(path: str) -> tuple[list[dict[str, Any]], list[str]]:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if path.lower().endswith(".parquet"):
            table = parquet.read_table(path)
        else:
            parse = csv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",")
            with csv.open_csv(path, parse_options=parse) as reader:
                types = {name: pa.string() for name in reader.schema.names}  # text: a label may be "007"
            convert = csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
            table = csv.read_csv(path, parse_options=parse, convert_options=convert)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise UsageError(f"{path}: this table cannot be read ({shorten_error(error)}).") from None
    return table.to_pylist(), table.column_names


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
        raise ValueError(f"mask_value {text!r}: give a non-negative integer")
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
        raise ValueError(f"boxes {values!r}: give left,top,right,bottom; separate several by ';'") from None
    for box in boxes:
        if not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1]:
            raise ValueError(f"box {box}: give left,top,right,bottom with left < right and top < bottom")
    return boxes
