"""Checks of rows that are read back from part files.

Each check works on all values of a batch at once, with NumPy on Arrow's buffers: a call of `pyarrow.compute` takes 9 µs, and 84
of them for a batch of 256 rows took a quarter of the time that reading it takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seewhy.bulk.job_record import MAX_TEXT
from seewhy.bulk.rows import CHECK_FIELDS, IMAGE_FIELDS, MAP_FIELDS, STATISTICS, TARGET_FIELDS
from seewhy.explanation.checks import VERDICTS
from seewhy.explanation.flags import FLAGS

# Pixels and cells of a side; cells of a map, or pixels of an input. Resizing a map takes a matrix of both sides: 2 GB here.
MAX_INPUT, MAX_GRID, MAX_CELLS = 2**15, 2**13, 2**28
MIN_VIEW, MAX_VIEW = 1e-3, 1e9  # pixels of the photo
MAX_NAME, MAX_BYTES = 1000, 4 * MAX_TEXT  # bytes of the name of a method, and of other texts
ITEM_SIZES = {"uint8": 1, "float16": 2}
TOLERANCE = 0.01  # of a fraction, for rounding
LAYER_LISTS = tuple(name for name, _ in (*MAP_FIELDS, *CHECK_FIELDS))  # one entry per layer
EXPLAINED = ("method", "target", *LAYER_LISTS)  # null exactly in the rows of failed images
ALSO_EXPLAINED = ("sha256", "bytes", "width", "height", "view", "input", "target_key", "target_name", "score")
TEXTS = tuple(name for name, kind in (*IMAGE_FIELDS, *TARGET_FIELDS, ("error", pa.string())) if kind == pa.string())
CLASSES = ("label_class", "predicted", "target_class")
FRACTIONS = ("confidence", "probability")

Columns = dict[str, pa.Array]
Numbers = NDArray[Any]


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
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    check_nulls(columns)
    check_texts(columns)
    check_numbers(columns)
    check_boxes(columns)
    check_layer_lists(columns)
    check_maps(columns, store)
    check_verdicts(columns)


def lengths(values: pa.Array) -> Numbers:
    """Return the lengths of lists, texts or bytes (N,); 0 for null."""
    if not len(values):
        return np.zeros(0, np.int32)
    offsets = np.frombuffer(values.buffers()[1], np.int32, len(values) + 1, 4 * values.offset)
    return offsets[1:] - offsets[:-1]


def numbers(values: pa.Array) -> Numbers:
    """Return numbers (N,); NaN for null."""
    return np.asarray(values.to_numpy(zero_copy_only=False))


def is_valid(values: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(values.is_valid().to_numpy(zero_copy_only=False))


def check_nulls(columns: Columns) -> None:
    """Check that values that a row needs are present: a row is of a failed image, or has a map."""
    for name in ("id", "path"):
        if name in columns and columns[name].null_count:
            raise InvalidRows(f"{name} is missing in a row")
    names = [name for name in (*EXPLAINED, *ALSO_EXPLAINED) if name in columns]
    decisive = "error" if "error" in columns else next(iter(names), None)
    if decisive is None or (decisive not in EXPLAINED and decisive != "error"):
        return
    is_explained = is_valid(columns[decisive]) ^ (decisive == "error")
    is_complete = bool(is_explained.all())
    for name in names:
        if is_complete and not columns[name].null_count:
            continue
        present = is_valid(columns[name])
        if (is_explained & ~present).any() or (name in EXPLAINED and (present & ~is_explained).any()):
            raise InvalidRows(f"{name} does not fit the other columns: it is missing, or the image failed")


def check_texts(columns: Columns) -> None:
    for name in (name for name in TEXTS if name in columns):
        check_text(columns[name], MAX_NAME if name == "method" else MAX_BYTES, name)


def check_text(texts: pa.Array, limit: int, name: str) -> None:
    content = texts.buffers()[2]  # the bytes of all texts
    if content is not None and content.size > limit and (longest := lengths(texts).max(initial=0)) > limit:
        raise InvalidRows(f"{name} has a text of {longest:,} bytes")


def check_numbers(columns: Columns) -> None:
    for name in (name for name in (*CLASSES, "bytes") if name in columns):
        check_range(name, numbers(columns[name]), 0)
    for name in (name for name in ("width", "height") if name in columns):
        check_range(name, numbers(columns[name]), 1)
    fractions = {name: columns[name] for name in FRACTIONS if name in columns}
    for name, values in (fractions | {name: columns[name].flatten() for name in STATISTICS if name in columns}).items():
        if values.null_count < len(values):
            check_range(name, numbers(values), -TOLERANCE, 1 + TOLERANCE)


def check_range(name: str, values: Numbers, lowest: float, highest: float = np.inf) -> None:
    """Check numbers. Null and NaN are valid: the value is unknown."""
    if not len(values) or (values.min() >= lowest and values.max() <= highest):
        return
    if (values < lowest).any() or (values > highest).any():  # otherwise some are NaN
        raise InvalidRows(f"{name} has a value below {lowest:g} or above {highest:g}")


def check_boxes(columns: Columns) -> None:
    """Check the view (left, top, right, bottom) and the size of the input."""
    if "view" in columns:
        boxes = groups(columns["view"], 4, "view").astype(np.float64)
        sizes = boxes[:, 2:] - boxes[:, :2]
        # A comparison with NaN is False.
        if len(boxes) and not (boxes.min() >= -MAX_VIEW and boxes.max() <= MAX_VIEW and sizes.min() >= MIN_VIEW):
            raise InvalidRows("view is not left, top, right, bottom")
    if "input" in columns:
        count_cells(groups(columns["input"], 2, "input"), "input", MAX_INPUT)


def groups(lists: pa.Array, size: int, name: str) -> Numbers:
    """Return lists of `size` numbers as an array (N, size); null lists are skipped."""
    values, counts = lists.flatten(), lengths(lists)
    is_expected = counts == size if not lists.null_count else (counts == size) | ~is_valid(lists)
    if values.null_count or not is_expected.all():
        raise InvalidRows(f"{name} does not have {size} numbers in every row")
    return numbers(values).reshape(-1, size)


def count_cells(sizes: Numbers, name: str, limit: int) -> Numbers:
    """Check sizes (N, 2) and return their products (N,)."""
    cells = sizes[:, 0].astype(np.int64) * sizes[:, 1]
    if len(sizes) and (sizes.min() < 1 or sizes.max() > limit or cells.max() > MAX_CELLS):
        raise InvalidRows(f"{name} has a size outside its range ({sizes.min()} to {sizes.max()})")
    return cells


def check_layer_lists(columns: Columns) -> None:
    """Check that the lists of a row have the same number of layers."""
    names = [name for name in LAYER_LISTS if name in columns]
    if not names:
        return
    counts = lengths(columns[names[0]])
    for name in names[1:]:
        if not np.array_equal(lengths(columns[name]), counts):
            raise InvalidRows(f"{name} and {names[0]} have different numbers of layers")
    first = columns[names[0]]
    if (counts if not first.null_count else counts[is_valid(first)]).min(initial=1) == 0:
        raise InvalidRows(f"{names[0]} is empty in a row")
    if "layers" in columns:
        layers = columns["layers"].flatten()
        if layers.null_count:
            raise InvalidRows("layers contains a missing name")
        check_text(layers, MAX_BYTES, "layers")
    if "flags" in columns:
        flags = columns["flags"].flatten()
        names_of_flags = flags.flatten()
        if flags.null_count or (len(names_of_flags) and set(names_of_flags.unique().to_pylist()) - set(FLAGS)):
            raise InvalidRows("flags contains an unknown flag")


def check_maps(columns: Columns, store: str) -> None:
    """Check the ranges of maps, their shapes, and that a map has as many bytes as its shape needs."""
    for name, sign in (("lo", -1), ("hi", 1)):
        if name in columns:
            limits = columns[name].flatten()
            values = sign * numbers(limits)
            if limits.null_count or (len(values) and not (values.min() >= 0 and values.max() < np.inf)):
                raise InvalidRows(f"{name} is missing, not finite or of the wrong sign")
    cells = None
    if "shapes" in columns:
        shapes = columns["shapes"].flatten()
        if shapes.null_count:
            raise InvalidRows("shapes is missing for a layer")
        cells = count_cells(groups(shapes, 2, "shapes"), "shapes", MAX_GRID)
    if "maps" in columns:
        maps = columns["maps"].flatten()
        if maps.null_count:
            raise InvalidRows("maps is missing for a layer")
        if cells is not None and (lengths(maps) != cells * ITEM_SIZES[store]).any():
            raise InvalidRows("maps has another number of bytes than shapes")


def check_verdicts(columns: Columns) -> None:
    """Check the columns of the check. They are independent of each other: a reader may have some of them."""
    if "check" in columns:
        verdicts = columns["check"].flatten()
        if verdicts.null_count or (len(verdicts) and set(verdicts.unique().to_pylist()) - set(VERDICTS)):
            raise InvalidRows("check contains an unknown verdict")
    for name, lowest in (("check_r", -1.0), ("check_p", 0.0)):
        if name in columns:
            check_range(name, numbers(columns[name].flatten()), lowest - TOLERANCE, 1 + TOLERANCE)
    if "check_reason" in columns:
        check_text(columns["check_reason"].flatten(), MAX_BYTES, "check_reason")
