"""The maps of a bulk run for one method, target and layer, as arrays with one row per image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.map_codec import decode_bytes
from seewhy.bulk.statistics import NAMES
from seewhy.errors import UnknownName, UsageError
from seewhy.explanation.selection import choose
from seewhy.tensors import map_functions

if TYPE_CHECKING:
    import pyarrow as pa

STATISTICS = (*NAMES, "inside")
METADATA = (
    "id", "path", "sha256", "bytes", "width", "height", "view", "input", "label", "label_class", "label_name", "predicted",
    "predicted_name", "confidence", "target_class", "target_name", "probability",
)  # fmt: skip
CHECKS = ("check", "check_r", "check_reason")  # in the columns of a run with the check
CLASS_COLUMNS = (("target_class", "target_name"), ("predicted", "predicted_name"), ("label_class", "label_name"))
Maps = NDArray[np.float32]
MethodTarget = tuple[str, str]


@dataclass(frozen=True, eq=False)
class MapTable:
    """N images in the order of the run, with their maps of one method, target and layer.

    `columns` are the columns in `METADATA`, and `CHECKS` if the run has them, as lists; `statistics` (N,) each, NaN if unknown;
    `maps` (N, h, w) are signed, in the units of the method. `failed` are the ids of images without maps, and the errors.
    """

    method: str
    target: str
    layer: str
    columns: Mapping[str, list[Any]]
    statistics: Mapping[str, NDArray[np.float64]]
    maps: Maps
    failed: list[tuple[str, str]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.columns["id"])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input."""
        height, width = self.columns["input"][0]
        return height, width

    @property
    def classes(self) -> NDArray[np.intp]:
        """The class (N,) of each map; -1 if the target is not a class."""
        return np.array([-1 if index is None else index for index in self.columns["target_class"]], np.intp)

    @cached_property
    def labeled(self) -> NDArray[np.bool_]:
        """Whether each image (N,) has a predicted class and a label that is a class."""
        pairs = zip(self.columns["label_class"], self.columns["predicted"], strict=True)
        return np.array([label is not None and predicted is not None for label, predicted in pairs], bool)

    @cached_property
    def correct(self) -> NDArray[np.bool_] | None:
        """Whether the predicted class is the label (N,), valid where `labeled`; None if no image is."""
        if not self.labeled.any():
            return None
        pairs = zip(self.columns["label_class"], self.columns["predicted"], strict=True)
        return np.array([label is not None and label == predicted for label, predicted in pairs], bool)

    @cached_property
    def all_statistics(self) -> dict[str, NDArray[np.float64]]:
        """The statistics and the confidence: (N,) each, NaN if unknown."""
        confidence = [np.nan if value is None else value for value in self.columns["confidence"]]
        return {**self.statistics, "confidence": np.array(confidence, np.float64)}

    @cached_property
    def class_names(self) -> dict[int, str]:
        """The names of all classes that are a target, a prediction or a label."""
        names: dict[int, str] = {}
        for index_column, name_column in CLASS_COLUMNS:
            for index, name in zip(self.columns[index_column], self.columns[name_column], strict=True):
                if index is not None:
                    names.setdefault(index, str(name))
        return names

    def class_name(self, index: int) -> str:
        return self.class_names.get(index, f"class {index}")

    def row(self, index: int) -> dict[str, Any]:
        """Return the metadata of one image."""
        return {name: values[index] for name, values in self.columns.items()}


@dataclass(frozen=True, eq=False)
class Available:
    """What a run contains: (method, target) pairs in order, with their number of rows, and the number of rows per layer.

    `last_layer` is the last layer of each pair's first row.
    """

    rows: dict[MethodTarget, int]
    layers: dict[MethodTarget, dict[str, int]]
    last_layer: dict[MethodTarget, str]
    failed: list[tuple[str, str]]

    def matching_pairs(self, folder: object, method: str | None, target: str | None) -> list[MethodTarget]:
        """Return the pairs with this method and target; None matches all. Raises UsageError or UnknownName if none does."""
        if not self.last_layer:
            raise UsageError(f"{folder}: this run contains no explained image.")
        choice = (method, target)
        pairs = [pair for pair in self.last_layer if all(a in (None, b) for a, b in zip(choice, pair, strict=True))]
        if not pairs:
            columns = zip(*self.last_layer, strict=True)
            for kind, name, choices in zip(("method", "target"), choice, columns, strict=True):
                if name is not None:
                    choose(kind, name, list(dict.fromkeys(choices)), "run")
            raise UsageError(
                f"{folder} contains no map of {method} for {target}. It contains {describe_pairs(self.last_layer)}."
            )
        return pairs


def describe_pairs(pairs: Iterable[MethodTarget]) -> str:
    return ", ".join(f"{method} for {target}" for method, target in pairs)


def list_available(run: BulkRun) -> Available:
    available = Available({}, {}, {}, [])
    for batch in run.batches(columns=["id", "error", "method", "target", "layers"]):
        for row in batch.to_pylist():
            if row["error"] is not None:
                available.failed.append((row["id"], row["error"]))
                continue
            pair = (row["method"], row["target"])
            available.rows[pair] = available.rows.get(pair, 0) + 1
            counts = available.layers.setdefault(pair, {})
            for layer in row["layers"] or ():
                counts[layer] = counts.get(layer, 0) + 1
            if counts:
                available.last_layer.setdefault(pair, list(counts)[-1])
    return available


def load_map_table(
    run: BulkRun, method: str | None = None, target: str | None = None, layer: str | None = None
) -> MapTable:
    """Load the maps of one method, target and layer. Default: the first method and target, and the last layer.

    Images without a map at that layer are skipped and counted in a note. Raises UsageError if no image was explained,
    UnknownName for a method, target or layer that the run does not contain.
    """
    from pyarrow.dataset import field

    available = list_available(run)
    method, target = pair = available.matching_pairs(run.folder, method, target)[0]
    layer = layer or available.last_layer[pair]
    layers = list(available.layers[pair])
    if layer not in layers:
        raise UnknownName("layer", layer, layers, hint=f"This run has {', '.join(layers)}.")
    columns: dict[str, list[Any]] = {name: [] for name in (*METADATA, *(CHECKS if run.has_checks else ()))}
    statistics: dict[str, list[NDArray[np.float64]]] = {name: [] for name in STATISTICS}
    maps: list[Maps] = []
    where = (field("method") == method) & (field("target") == target) & field("error").is_null()
    for batch in run.batches(columns=[*columns, *STATISTICS, "layers", "shapes", "lo", "hi", "maps"], where=where):
        append_batch(batch, layer, columns, statistics, maps, run.store)
    stacked, notes = resize_to_common_grid(maps)
    methods, targets = (list(dict.fromkeys(names)) for names in zip(*available.last_layer, strict=True))
    notes = [*choice_notes(method=(methods, method), target=(targets, target), layer=(layers, layer)), *notes]
    missing = available.rows[pair] - len(maps)
    if missing:
        notes.append(f"{missing:,} images have no map at {layer}")
    values = {name: np.concatenate(parts).astype(np.float64) for name, parts in statistics.items()}
    return MapTable(method, target, layer, columns, values, stacked, available.failed, tuple(notes))


def choice_notes(**choices: tuple[Sequence[str], str]) -> list[str]:
    """Return a note for each of method, target and layer of which the run contains several."""
    return [
        f"this run contains {len(names)} {kind}s; this summary shows {name} (--{kind})"
        for kind, (names, name) in choices.items()
        if len(names) > 1
    ]


def append_batch(
    batch: pa.RecordBatch,
    layer: str,
    columns: dict[str, list[Any]],
    statistics: dict[str, list[NDArray[np.float64]]],
    maps: list[Maps],
    store: str,
) -> None:
    """Append the rows of a batch that contain the layer. Per-layer lists are reduced to the entry of that layer."""
    import pyarrow.compute as pc

    for place, rows in group_by_layers(batch, layer):
        for name, cells in columns.items():
            cells += (pc.list_element(rows[name], place) if name in CHECKS else rows[name]).to_pylist()
        values = {name: pc.list_element(rows[name], place) for name in (*STATISTICS, "shapes", "lo", "hi", "maps")}
        for name in STATISTICS:
            statistics[name].append(values[name].to_numpy(zero_copy_only=False))
        encoded = zip(*(values[name].to_pylist() for name in ("maps", "shapes", "lo", "hi")), strict=True)
        maps += [decode_bytes(content, (height, width), lo, hi, store) for content, (height, width), lo, hi in encoded]


def group_by_layers(batch: pa.RecordBatch, layer: str) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield slices of consecutive rows with the same layers, and the place of `layer` in them; skip rows without it."""
    names = batch["layers"].to_pylist()
    start = 0
    for end in range(1, len(names) + 1):
        if end == len(names) or names[end] != names[start]:
            if layer in (names[start] or ()):
                yield names[start].index(layer), batch.slice(start, end - start)
            start = end


def resize_to_common_grid(maps: Sequence[Maps]) -> tuple[Maps, list[str]]:
    """Stack maps to (N, h, w). Maps with different grids (from different input sizes) are resized to the most common one."""
    shapes: dict[tuple[int, ...], int] = {}
    for one in maps:
        shapes[one.shape] = shapes.get(one.shape, 0) + 1
    if len(shapes) == 1:
        return np.stack(maps), []
    common = max(shapes, key=lambda shape: shapes[shape])
    resized = [
        one if one.shape == common else map_functions.resize(torch.from_numpy(one)[None], common)[0].numpy()
        for one in maps
    ]
    return np.stack(resized), [f"maps of {len(shapes)} different grids were resized to {common[0]}x{common[1]}"]
