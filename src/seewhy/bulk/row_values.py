"""Values of rows as maps and views, and the metadata of part files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.map_codec import decode_bytes
from seewhy.images.view import View

Row = dict[str, Any]  # a row of the table, by column name
JobSettings = dict[str, Any]  # as in job.json

MAP_COLUMNS = ("shapes", "lo", "hi", "maps")  # needed to decode a map
LAYER_COLUMNS = (
    *MAP_COLUMNS, "positive", "peak_x", "peak_y", "center_x", "center_y", "spread", "border", "corner", "inside", "flags"
)  # fmt: skip
CHECK_COLUMNS = ("check", "check_r", "check_p", "check_reason")  # in runs with the check


def decode_map(row: Mapping[str, Any], layer: str, store: str) -> NDArray[np.float32]:
    """Return the signed map (h, w) of a row of the table at a layer."""
    index = row["layers"].index(layer)
    return decode_layer_map({name: row[name][index] for name in MAP_COLUMNS}, store)


def decode_layer_map(row: Mapping[str, Any], store: str) -> NDArray[np.float32]:
    """Return the signed map (h, w) of a row of `BulkRun.rows`."""
    height, width = row["shapes"]
    return decode_bytes(row["maps"], (height, width), row["lo"], row["hi"], store)


def view_from_row(row: Mapping[str, Any]) -> View:
    """Return the model's view of the photo: the rectangle that the input shows."""
    left, top, right, bottom = row["view"]
    height, width = row["input"]
    return View((row["height"], row["width"]), (height, width), (left, top, right, bottom))


def read_footer(path: Path) -> JobSettings:
    """Return the metadata of a part file: the job, and the package versions that wrote it."""
    from pyarrow import parquet

    from seewhy.bulk.part_reader import JOB_KEY, part_errors

    with part_errors(path):
        return dict(json.loads(parquet.read_schema(path).metadata[JOB_KEY]))
