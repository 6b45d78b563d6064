"""Checks of rows that are read back from part files. Each check works on the values of an entire batch at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seewhy.bulk.job_record import MAX_TEXT
from seewhy.bulk.rows import IMAGE_FIELDS, MAP_FIELDS, STATISTICS, TARGET_FIELDS
from seewhy.explanation.flags import FLAGS

MAX_SIDE, MAX_CELLS = 2**20, 2**28  # of an input or a map
MAX_NAME = 1000  # characters of the name of a method
ITEM_SIZES = {"uint8": 1, "float16": 2}
TOLERANCE = 0.01  # of a fraction, for rounding
LAYER_LISTS = tuple(name for name, _ in MAP_FIELDS)  # one entry per layer
EXPLAINED = ("method", "target", *LAYER_LISTS)  # null exactly in the rows of failed images
ALSO_EXPLAINED = ("sha256", "bytes", "width", "height", "view", "input", "target_key", "target_name", "score")
TEXTS = tuple(name for name, kind in (*IMAGE_FIELDS, *TARGET_FIELDS, ("error", pa.string())) if kind == pa.string())
CLASSES = ("label_class", "predicted", "target_class")
FRACTIONS = ("confidence", "probability")

Columns = dict[str, pa.Array]


class InvalidRows(ValueError):
    """Why rows are not as seewhy writes them: the column and the reason."""


def check_rows(batch: pa.RecordBatch, store: str) -> None:
    """Raise InvalidRows if the values of a batch, which may contain only some columns, cannot be those of a run."""
    try:
        batch.validate(full=True)  # UTF-8, and the offsets of lists
    except pa.ArrowInvalid as error:
        raise InvalidRows(str(error).partition("\n")[0]) from None
    if not batch.num_rows:
        return
    columns = {name: batch.column(name) for name in batch.schema.names}
    check_nulls(columns)
    check_texts(columns)
    check_numbers(columns)
    check_boxes(columns)
    check_layer_lists(columns)
    check_maps(columns, store)


def check_nulls(columns: Columns) -> None:
    """Check that values that a row needs are present: a row is of a failed image, or has a map."""
    for name in ("id", "path"):
        if name in columns and columns[name].null_count:
            raise InvalidRows(f"{name} is missing in a row")
    related = [name for name in EXPLAINED if name in columns]
    if not related and "error" not in columns:
        return
    is_explained = columns["error"].is_null() if "error" in columns else columns[related[0]].is_valid()
    count = pc.sum(is_explained).as_py()
    for name in (*related, *(name for name in ALSO_EXPLAINED if name in columns)):
        column = columns[name]
        if len(column) - column.null_count == count == len(column):
            continue
        missing = pc.and_(is_explained, column.is_null())
        surplus = pc.and_(pc.invert(is_explained), column.is_valid())
        if pc.any(missing).as_py() or (name in EXPLAINED and pc.any(surplus).as_py()):
            raise InvalidRows(f"{name} does not fit the other columns: it is missing, or the image failed")


def check_texts(columns: Columns) -> None:
    for name in (name for name in TEXTS if name in columns):
        limit = MAX_NAME if name == "method" else 4 * MAX_TEXT
        if (longest := pc.max(pc.binary_length(columns[name])).as_py() or 0) > limit:
            raise InvalidRows(f"{name} has a text of {longest:,} bytes")


def check_numbers(columns: Columns) -> None:
    for name in (name for name in (*CLASSES, "bytes") if name in columns):
        check_range(name, columns[name], 0)
    for name in (name for name in ("width", "height") if name in columns):
        check_range(name, columns[name], 1)
    for name in (name for name in FRACTIONS if name in columns):
        check_range(name, columns[name], -TOLERANCE, 1 + TOLERANCE)
    for name in (name for name in STATISTICS if name in columns):
        check_range(name, columns[name].flatten(), -TOLERANCE, 1 + TOLERANCE)


def check_range(name: str, values: pa.Array, lowest: float, highest: float | None = None) -> None:
    """Check numbers. Null and NaN are valid: the value is unknown."""
    limits = pc.min_max(values).as_py()
    if limits["min"] is not None and (limits["min"] < lowest or (highest is not None and limits["max"] > highest)):
        raise InvalidRows(f"{name} has a value outside its range ({limits['min']:g} to {limits['max']:g})")


def check_boxes(columns: Columns) -> None:
    """Check the view (left, top, right, bottom) and the size of the input."""
    if "view" in columns:
        left, top, right, bottom = groups(columns["view"], 4, "view").T
        if not (np.isfinite(left + top + right + bottom).all() and (left < right).all() and (top < bottom).all()):
            raise InvalidRows("view is not left, top, right, bottom")
    if "input" in columns:
        check_sizes(groups(columns["input"], 2, "input"), "input")


def groups(lists: pa.Array, size: int, name: str) -> NDArray[np.generic]:
    """Return lists of `size` numbers as an array (N, size); null lists are skipped."""
    values = lists.flatten()
    lengths = pc.min_max(pc.list_value_length(lists)).as_py()
    if set(lengths.values()) - {size, None} or values.null_count:
        raise InvalidRows(f"{name} does not have {size} numbers in every row")
    return np.asarray(values.to_numpy(zero_copy_only=False).reshape(-1, size))


def check_sizes(sizes: NDArray[np.generic], name: str) -> None:
    numbers = sizes.astype(np.int64)
    if len(numbers) and (numbers.min() < 1 or numbers.max() > MAX_SIDE or numbers.prod(1).max() > MAX_CELLS):
        raise InvalidRows(f"{name} has a size outside its range ({numbers.min()} to {numbers.max()})")


def check_layer_lists(columns: Columns) -> None:
    """Check that the lists of a row have the same number of layers."""
    names = [name for name in LAYER_LISTS if name in columns]
    if not names:
        return
    lengths = pc.list_value_length(columns[names[0]])
    for name in names[1:]:
        if not pc.list_value_length(columns[name]).equals(lengths):
            raise InvalidRows(f"{name} and {names[0]} have different numbers of layers")
    if pc.min(lengths).as_py() == 0:
        raise InvalidRows(f"{names[0]} is empty in a row")
    if "layers" in columns:
        check_entries(columns["layers"].flatten(), "layers")
    if "flags" in columns:
        flags = columns["flags"].flatten()
        if flags.null_count or set(flags.flatten().unique().to_pylist()) - set(FLAGS):
            raise InvalidRows("flags contains an unknown flag")


def check_entries(texts: pa.Array, name: str) -> None:
    if texts.null_count or (pc.max(pc.binary_length(texts)).as_py() or 0) > 4 * MAX_TEXT:
        raise InvalidRows(f"{name} contains a missing or very long name")


def check_maps(columns: Columns, store: str) -> None:
    """Check the ranges of maps, their shapes, and that a map has as many bytes as its shape needs."""
    for name, sign in (("lo", -1), ("hi", 1)):
        if name in columns:
            limits = columns[name].flatten()
            values = limits.to_numpy(zero_copy_only=False)
            if limits.null_count or not (np.isfinite(values) & (sign * values >= 0)).all():
                raise InvalidRows(f"{name} is missing, not finite or of the wrong sign")
    sizes = None
    if "shapes" in columns:
        shapes = columns["shapes"].flatten()
        if shapes.null_count:
            raise InvalidRows("shapes is missing for a layer")
        sizes = groups(shapes, 2, "shapes")
        check_sizes(sizes, "shapes")
    if "maps" in columns:
        maps = columns["maps"].flatten()
        if maps.null_count:
            raise InvalidRows("maps is missing for a layer")
        if sizes is not None:
            needed = sizes.astype(np.int64).prod(1) * ITEM_SIZES[store]
            if (pc.binary_length(maps).to_numpy() != needed).any():
                raise InvalidRows("maps has another number of bytes than shapes")
