"""Aggregates over the images of a run: classes, confusions and distributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.row_values import decode_map
from seewhy.methods.catalog import LINEAR
from seewhy.summary.map_table import STATISTICS, Maps, MapTable, resize_to_common_grid
from seewhy.summary.normalization import normalize_to_sum

BINS = 32
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ClassRow:
    """The images whose maps are of one class, with their mean normalized map (h, w) and mean statistics.

    `accuracy` is the fraction of the labeled images that are predicted correctly; None without labels.
    """

    index: int
    name: str
    members: Indices
    accuracy: float | None
    probability: float
    mean: Maps
    mean_statistics: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Confusion:
    """Images with one label that are predicted as another class.

    `contrast` (h, w) is the mean of the predicted class's map minus the label's map, each divided by the largest absolute value
    of the two. It is positive where the evidence for the error lies; None if the run does not contain both maps.
    """

    label: int
    label_name: str
    predicted: int
    predicted_name: str
    members: Indices
    contrast: Maps | None


@dataclass(frozen=True, eq=False)
class Distribution:
    """The histogram of one statistic: `counts` (BINS,) of images between consecutive `edges` (BINS + 1,)."""

    name: str
    edges: NDArray[np.float64]
    counts: Indices
    median: float


def aggregate_classes(table: MapTable) -> list[ClassRow]:
    """Return one row per class, the largest class first."""
    evidence, classes = normalize_to_sum(table.maps), table.classes
    rows = []
    for index in map(int, np.unique(classes)):
        members = np.flatnonzero(classes == index)
        labeled = members[table.labeled[members]]
        known = [p for row in members if (p := table.columns["probability"][row]) is not None]
        rows.append(
            ClassRow(
                index=index,
                name=table.class_name(index) if index >= 0 else table.target,
                members=members,
                accuracy=float(table.correct[labeled].mean()) if table.correct is not None and len(labeled) else None,
                probability=float(np.mean(known)) if known else float("nan"),
                mean=evidence[members].mean(0),
                mean_statistics={name: nan_mean(table.statistics[name][members]) for name in STATISTICS},
            )
        )
    return sorted(rows, key=lambda row: (-len(row.members), row.index))


def nan_mean(values: NDArray[np.float64]) -> float:
    """Return the mean without NaN values, or NaN if there are no others (np.nanmean would warn)."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def nan_median(values: NDArray[np.float64]) -> float | None:
    """Return the median without NaN values, or None if there are no others."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


def sort_rows(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the rows with known values, by ascending value; ties in the order of the run."""
    rows = np.argsort(values, kind="stable")
    return np.asarray(rows[~np.isnan(values[rows])])


def find_confusions(run: BulkRun, table: MapTable) -> list[Confusion]:
    """Return the pairs of different label and predicted class, the most frequent first."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for row, pair in enumerate(zip(table.columns["label_class"], table.columns["predicted"], strict=True)):
        if None not in pair and pair[0] != pair[1]:
            pairs.setdefault(pair, []).append(row)
    contrasts = compute_contrasts(run, table) if pairs else {}
    confusions = []
    for (label, predicted), members in pairs.items():
        known = [contrasts[table.columns["id"][row]] for row in members if table.columns["id"][row] in contrasts]
        contrast = resize_to_common_grid(known)[0].mean(0) if known else None
        names = table.class_name(label), table.class_name(predicted)
        confusions.append(Confusion(label, names[0], predicted, names[1], np.array(members, np.intp), contrast))
    return sorted(confusions, key=lambda pair: (-len(pair.members), pair.label, pair.predicted))


def compute_contrasts(run: BulkRun, table: MapTable) -> dict[str, Maps]:
    """Return, by id, the map of the predicted class minus the map of the label for each misclassified image with both maps.

    Empty unless the method is linear in the score: only then is the difference of two maps the map of the score difference.
    """
    if table.method.partition("(")[0] not in LINEAR:
        return {}
    from pyarrow.dataset import field

    target, label, predicted = field("target_class"), field("label_class"), field("predicted")
    wrong = (field("method") == table.method) & (label != predicted) & ((target == label) | (target == predicted))
    columns = ["id", "label_class", "predicted", "target_class", "layers", "shapes", "lo", "hi", "maps"]
    maps_by_id: dict[str, dict[str, Maps]] = {}
    for batch in run.batches(columns=columns, where=wrong & field("error").is_null()):
        for row in batch.to_pylist():
            if table.layer in row["layers"]:
                role = "predicted" if row["target_class"] == row["predicted"] else "label"
                maps_by_id.setdefault(row["id"], {})[role] = decode_map(row, table.layer, run.store)
    contrasts = {}
    for name, maps in maps_by_id.items():
        if len(maps) == 2:
            scale = max(float(np.abs(one).max()) for one in maps.values())
            contrasts[name] = (maps["predicted"] - maps["label"]) / scale if scale > 0 else maps["label"] * 0
    return contrasts


def compute_distributions(table: MapTable, rows: Indices | None = None) -> list[Distribution]:
    """Return the distribution of each known statistic over all images or some `rows`. All statistics are in [0, 1]."""
    distributions = []
    for name, values in table.all_statistics.items():
        selected = values if rows is None else values[rows]
        known = selected[np.isfinite(selected)]
        if len(known):
            counts, edges = np.histogram(known.clip(0, 1), BINS, (0, 1))
            distributions.append(Distribution(name, edges, counts.astype(np.intp), float(np.median(known))))
    return distributions
