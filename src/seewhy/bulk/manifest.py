"""Tables of pictures: CSV, TSV or Parquet with a path, and what is known of each."""

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
# What a column may be called, the usual names first.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "class_index", "class", "class_name", "category", "target"),
    "boxes": ("boxes", "box", "bbox"),
    "mask": ("mask", "mask_path"),
    "mask_value": ("mask_value",),
}


def read_table(path: str) -> tuple[list[Item], list[str]]:
    """The pictures of a table, and notes on which columns were read as what (`COLUMNS`).

    Paths are relative to the table. `boxes` are left,top,right,bottom in photo pixels, several with ";" between them, or JSON
    [[l, t, r, b], ...]; `mask` is a picture that is not 0 where the object is, or has there the `mask_value`.

    Raises UsageError for a table that cannot be read or has no path, UnknownName for a column that is not there.
    """
    rows, names = load(path)
    used = {what: found for what, found in ((what, pick(options, names)) for what, options in COLUMNS.items()) if found}
    if "path" not in used:
        raise UnknownName(
            "column", "path", names, hint=f"{path} has {', '.join(names)}; one must be called path or file."
        )
    home = os.path.dirname(path)
    items = [item(row, used, home) for row in rows]
    other = [f"{what} from column {name}" for what, name in used.items() if what != name]
    return items, [f"{path}: {', '.join(other)}"] if other else []


def load(path: str) -> tuple[list[dict[str, Any]], list[str]]:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if path.lower().endswith(".parquet"):
            table = parquet.read_table(path)
        else:
            form = csv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",")
            with csv.open_csv(path, parse_options=form) as start:
                # as text: a label "007" or a path "1" is no number
                kinds = {name: pa.string() for name in start.schema.names}
            table = csv.read_csv(
                path,
                parse_options=form,
                convert_options=csv.ConvertOptions(column_types=kinds, strings_can_be_null=True, null_values=[""]),
            )
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: this table cannot be read ({shorten_error(error)}).") from None
    return table.to_pylist(), table.column_names


def pick(options: Sequence[str], names: Sequence[str]) -> str | None:
    folded = {name.strip().lower(): name for name in names}
    return next((folded[option] for option in options if option in folded), None)


def item(row: Mapping[str, Any], used: Mapping[str, str], home: str) -> Item:
    found = {what: row[name] for what, name in used.items()}
    if not found["path"]:
        return Item(text(found.get("id")) or "no path", "", error="the table names no file here")
    path, error, boxes = str(found["path"]), None, None
    try:
        boxes = read_boxes(found.get("boxes"))
        value = read_value(found.get("mask_value"))
    except ValueError as reason:
        error, value = str(reason), None
    mask = found.get("mask")
    return Item(
        text(found.get("id")) or path,
        os.path.join(home, path),
        label=text(found.get("label")),
        boxes=boxes,
        mask=os.path.join(home, str(mask)) if mask else None,
        mask_value=value,
        error=error,
    )


def text(value: Any) -> str | None:
    """A cell as text; whole numbers, which a column with gaps holds as 3.0, without their point, NaN as none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def read_value(given: Any) -> int | None:
    """The value that the object has in a mask; ValueError, in words, where that is none."""
    written = text(given)
    if not written:
        return None
    if not re.fullmatch(r"\s*\d{1,18}\s*", written):
        raise ValueError(f"mask_value {written!r}: give a whole number")
    return int(written)


def read_boxes(given: Any) -> tuple[Box, ...] | None:
    """Boxes from text or lists; ValueError, in words, where that is none.

    >>> read_boxes("1,2,30,40; 5 6 7 8")
    ((1.0, 2.0, 30.0, 40.0), (5.0, 6.0, 7.0, 8.0))
    >>> read_boxes("[[1, 2, 30, 40]]")
    ((1.0, 2.0, 30.0, 40.0),)
    """
    if given is None or (isinstance(given, str) and not given.strip()):
        return None
    try:
        if isinstance(given, str) and given.lstrip().startswith("["):
            given = json.loads(given)
        if isinstance(given, str):
            given = [re.split(r"[\s,]+", part.strip()) for part in given.split(";") if part.strip()]
        rows = [given] if len(given) == 4 and not isinstance(given[0], Sequence) else given
        boxes = tuple((float(left), float(top), float(right), float(bottom)) for left, top, right, bottom in rows)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise ValueError(f"boxes {given!r}: give left,top,right,bottom; several with ';' between") from None
    for box in boxes:
        if not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1]:
            raise ValueError(f"box {box}: left,top,right,bottom, with right beyond left and bottom beyond top")
    return boxes
