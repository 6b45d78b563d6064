"""Parts that the summary page and the comparison page share: table columns, mean maps, and rounding."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seewhy.summary.map_table import MapTable
from seewhy.summary.normalization import normalize_to_sum
from seewhy.summary.thumbnails import MEAN_SIDE, draw_heatmap, map_data_url

Entry = dict[str, Any]  # a JSON object
ColumnKind = Literal["text", "count", "ratio", "percent"]
EXTREMES = 12  # images at each end of a distribution


def column(
    title: str, kind: ColumnKind = "text", *, is_sortable: bool = True, description: str = "", verdict: str = ""
) -> Entry:
    """Return a table column. A "ratio" has two digits. `verdict`: the column has the color of this verdict."""
    formats = {"number": kind != "text", "percent": kind == "percent", "ratio": kind == "ratio"}
    return {"title": title, "sortable": is_sortable, "description": description, "verdict": verdict, **formats}


def round_value(value: float) -> float | None:
    """Round to four digits; NaN and infinity, which JSON does not have, become None."""
    return round(value, 4) if math.isfinite(value) else None


def mean_map_url(table: MapTable, rows: NDArray[np.intp], side: int = MEAN_SIDE) -> str:
    """Draw the mean normalized map of some images."""
    return map_data_url(draw_heatmap(normalize_to_sum(table.maps[rows]).mean(0), table.size, side))
