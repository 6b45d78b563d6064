"""Comparison of two runs over the same images: two models, two layers, before and after training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from seewhy.bulk.bulk_run import BulkRun
from seewhy.errors import UsageError
from seewhy.summary.aggregates import sort_rows
from seewhy.summary.map_table import Maps, MapTable, MethodTarget, describe_pairs, list_available, load_map_table
from seewhy.summary.normalization import normalize_to_sum
from seewhy.targets.names import class_name
from seewhy.tensors import map_functions

Indices = NDArray[np.intp]
VIEW_TOLERANCE = 0.01  # pixels of the photo


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs, and the images that both contain, in the order of the first run.

    `rows` are the rows of those images in each table. `correlation` is that of the positive parts of the two maps (NaN for a
    blank map), `overlap` the fraction of the evidence at the same place (1 - half the sum of absolute differences). `notes`
    list what limits the comparison.
    """

    runs: tuple[BulkRun, BulkRun]
    tables: tuple[MapTable, MapTable]
    rows: tuple[Indices, Indices]
    correlation: NDArray[np.float64]
    overlap: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def titles(self) -> tuple[str, str]:
        return str(self.runs[0].folder), str(self.runs[1].folder)

    @property
    def sides(self) -> tuple[tuple[MapTable, Indices], tuple[MapTable, Indices]]:
        """The table of each run with the rows of the common images."""
        return (self.tables[0], self.rows[0]), (self.tables[1], self.rows[1])

    @cached_property
    def changed(self) -> tuple[Indices, int]:
        """The common images with different predictions, and the number of images with a prediction in both runs.

        Predictions are compared by class name if the two models number the classes differently.
        """
        kind = "predicted_name" if has_other_names(*self.tables) else "predicted"
        one, other = (table.columns for table in self.tables)
        count, changed = 0, []
        for place, (a, b) in enumerate(zip(*(rows.tolist() for rows in self.rows), strict=True)):
            if one["predicted"][a] is not None and other["predicted"][b] is not None:
                count += 1
                if one[kind][a] != other[kind][b]:
                    changed.append(place)
        return np.array(changed, np.intp), count

    @property
    def agreement(self) -> float | None:
        """The fraction of images with the same prediction; None if no image has one in both runs."""
        changed, count = self.changed
        return 1 - len(changed) / count if count else None

    @property
    def ranked(self) -> Indices:
        """The common images with a known correlation, lowest first."""
        return sort_rows(self.correlation)

    def image_id(self, place: int) -> str:
        return str(self.tables[0].columns["id"][self.rows[0][place]])


def compare(
    first: BulkRun, second: BulkRun, method: str | None = None, target: str | None = None, layer: str | None = None
) -> Comparison:
    """Match the images of two runs by id, and compare their maps of a method and target that both runs contain.

    Raises UsageError if the runs have no image, or no method and target, in common.
    """
    runs = (first, second)
    method, target = find_common_pair(runs, method, target)
    tables = (load_map_table(first, method, target, layer), load_map_table(second, method, target, layer))
    ids = [table.columns["id"] for table in tables]
    places = {name: row for row, name in enumerate(ids[1])}
    rows = np.array([row for row, name in enumerate(ids[0]) if name in places], np.intp)
    if not len(rows):
        raise UsageError(
            f"{first.folder} and {second.folder} contain no image with the same id. Compare runs over the same images."
        )
    other_rows = np.array([places[ids[0][row]] for row in rows], np.intp)
    evidence = to_common_grid(normalize_to_sum(tables[0].maps[rows]), normalize_to_sum(tables[1].maps[other_rows]))
    flat = [maps.reshape(len(maps), -1).astype(np.float64) for maps in evidence]
    centered = [maps - maps.mean(1, keepdims=True) for maps in flat]
    lengths = [np.sqrt((maps**2).sum(1)) for maps in centered]
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (centered[0] * centered[1]).sum(1) / (lengths[0] * lengths[1])
    overlap = 1 - np.abs(flat[0] - flat[1]).sum(1) / 2
    overlap[~(flat[0].any(1) & flat[1].any(1))] = np.nan
    notes = comparison_notes(runs, tables, (rows, other_rows))
    return Comparison(runs, tables, (rows, other_rows), correlation, overlap, notes)


def find_common_pair(runs: tuple[BulkRun, BulkRun], method: str | None, target: str | None) -> MethodTarget:
    """Return the first method and target of the first run that the second run also contains."""
    one, other = (list_available(run).matching_pairs(run.folder, method, target) for run in runs)
    for pair in one:
        if pair in other:
            return pair
    raise UsageError(
        f"{runs[0].folder} and {runs[1].folder} have no method and target in common: "
        f"the first contains {describe_pairs(one)}; the second {describe_pairs(other)}."
    )


def to_common_grid(one: Maps, other: Maps) -> tuple[Maps, Maps]:
    """Resize the normalized maps of two runs to the finer of both grids."""
    shape = [max(sides) for sides in zip(one.shape[1:], other.shape[1:], strict=True)]
    resized = [
        map_functions.resize(torch.from_numpy(np.ascontiguousarray(maps)), shape).numpy() for maps in (one, other)
    ]
    return normalize_to_sum(resized[0]), normalize_to_sum(resized[1])


def has_other_names(one: MapTable, other: MapTable) -> bool:
    """Return True if a class index has different names in the two tables. Placeholder names ("class 3") do not count."""
    names, others = one.class_names, other.class_names
    pairs = ((index, name, others[index]) for index, name in names.items() if index in others)
    return any(a != b and class_name(index, None) not in (a, b) for index, a, b in pairs)


def comparison_notes(
    runs: tuple[BulkRun, BulkRun], tables: tuple[MapTable, MapTable], rows: tuple[Indices, Indices]
) -> tuple[str, ...]:
    """Return the notes of both runs, and how many images differ in file, crop or input size."""
    notes = [f"{run.folder}: {note}" for run, table in zip(runs, tables, strict=True) for note in table.notes]
    notes += [
        f"{len(table) - len(rows[0]):,} images are only in {run.folder}"
        for run, table in zip(runs, tables, strict=True)
        if len(table) > len(rows[0])
    ]
    one, other = (table.columns for table in tables)
    pairs = list(zip(rows[0].tolist(), rows[1].tolist(), strict=True))
    crops = sum(not np.allclose(one["view"][a], other["view"][b], rtol=0, atol=VIEW_TOLERANCE) for a, b in pairs)
    sizes = sum(one["input"][a] != other["input"][b] for a, b in pairs)
    files = sum(None is not one["sha256"][a] != other["sha256"][b] is not None for a, b in pairs)
    if crops:
        notes.append(f"{crops:,} images have a different crop; the correlation compares positions in the model's input")
    if sizes:
        notes.append(f"{sizes:,} images have a different input size")
    if files:
        notes.append(f"{files:,} images have the same id but different content")
    return tuple(notes)
