"""One answer for every picture of a run, as arrays: what is counted, compared and clustered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seewhy import tensors
from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.map_codec import decode_bytes
from seewhy.bulk.statistics import NAMES
from seewhy.errors import UnknownName, UsageError
from seewhy.explanation.selection import choose

NUMBERS = (*NAMES, "inside")
PLAIN = (
    "id", "path", "sha256", "width", "height", "view", "input", "label", "label_class", "label_name", "predicted",
    "predicted_name", "confidence", "target_class", "target_name", "probability",
)  # fmt: skip
NAMED = (("target_class", "target_name"), ("predicted", "predicted_name"), ("label_class", "label_name"))
Maps = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of one method for one target, read at one layer: N pictures, in the order of the run.

    `columns` are those of `PLAIN`, as lists; `numbers` (N,) each, NaN where unknown; `maps` (N, h, w) are signed, in the
    method's units. `failed` are the pictures that have none, with the reason.
    """

    method: str
    target: str
    layer: str
    columns: Mapping[str, list[Any]]
    numbers: Mapping[str, NDArray[np.float64]]
    maps: Maps
    failed: list[tuple[str, str]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.columns["id"])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        height, width = self.columns["input"][0]
        return height, width

    @property
    def classes(self) -> NDArray[np.intp]:
        """The class (N,) that each map is of; -1 where the question was of no class."""
        return np.array([-1 if one is None else one for one in self.columns["target_class"]], np.intp)

    @cached_property
    def judged(self) -> NDArray[np.bool_]:
        """Which pictures (N,) have a predicted class and a label that is a class."""
        pairs = zip(self.columns["label_class"], self.columns["predicted"], strict=True)
        return np.array([label is not None and said is not None for label, said in pairs], bool)

    @cached_property
    def right(self) -> NDArray[np.bool_] | None:
        """Whether the predicted class is that of the label (N,), which says something of those `judged`; None where none is."""
        if not self.judged.any():
            return None
        pairs = zip(self.columns["label_class"], self.columns["predicted"], strict=True)
        return np.array([label is not None and label == said for label, said in pairs], bool)

    @cached_property
    def statistics(self) -> dict[str, NDArray[np.float64]]:
        """The numbers, and beside them the `confidence`: (N,) each, NaN where unknown."""
        sure = [np.nan if one is None else one for one in self.columns["confidence"]]
        return {**self.numbers, "confidence": np.array(sure, np.float64)}

    @cached_property
    def names(self) -> dict[int, str]:
        """The names of the classes that were asked for, predicted or labelled."""
        found: dict[int, str] = {}
        for number, name in NAMED:
            for index, text in zip(self.columns[number], self.columns[name], strict=True):
                if index is not None:
                    found.setdefault(index, str(text))
        return found

    def name_of(self, index: int) -> str:
        """The name of a class that was predicted or asked for."""
        return self.names.get(index, f"class {index}")


@dataclass(frozen=True, eq=False)
class Available:
    """What a run holds: pairs of a method and a target, in order, each with its number of rows, and of those at each layer.

    `last` is the last layer of each pair's first row.
    """

    rows: dict[tuple[str, str], int]
    layers: dict[tuple[str, str], dict[str, int]]
    last: dict[tuple[str, str], str]
    failed: list[tuple[str, str]]

    def pairs(self, folder: object, method: str | None, target: str | None) -> list[tuple[str, str]]:
        """The pairs that fit what is named. Raises UsageError where there are none, UnknownName for a name that is unknown."""
        if not self.last:
            raise UsageError(f"{folder}: no picture of this run was explained.")
        given = (method, target)
        found = [pair for pair in self.last if all(a in (None, b) for a, b in zip(given, pair, strict=True))]
        if not found:
            for kind, one, choices in zip(("method", "target"), given, zip(*self.last, strict=True), strict=True):
                if one is not None:
                    choose(kind, one, list(dict.fromkeys(choices)), "run")
            raise UsageError(f"{folder} holds no map of {method} for {target}, only {in_words(self.last)}.")
        return found


def in_words(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{method} for {target}" for method, target in pairs)


def offered(run: BulkRun) -> Available:
    found = Available({}, {}, {}, [])
    for batch in run.batches(columns=["id", "error", "method", "target", "layers"]):
        for row in batch.to_pylist():
            if row["error"] is not None:
                found.failed.append((row["id"], row["error"]))
                continue
            pair = (row["method"], row["target"])
            found.rows[pair] = found.rows.get(pair, 0) + 1
            counts = found.layers.setdefault(pair, {})
            for layer in row["layers"] or ():
                counts[layer] = counts.get(layer, 0) + 1
            if counts:
                found.last.setdefault(pair, list(counts)[-1])
    return found


def gather(run: BulkRun, method: str | None = None, target: str | None = None, layer: str | None = None) -> Answers:
    """The answers of a run; of several methods, questions or layers what is named, else the first, and of layers the last.

    Pictures without a map at that layer are left out, and a note says so. Raises UsageError where nothing was explained,
    UnknownName for a choice that is not there.
    """
    from pyarrow.dataset import field

    held = offered(run)
    method, target = pair = held.pairs(run.folder, method, target)[0]
    layer = layer or held.last[pair]
    names = list(held.layers[pair])
    if layer not in names:
        raise UnknownName("layer", layer, names, hint=f"This run has {', '.join(names)}.")
    columns: dict[str, list[Any]] = {name: [] for name in PLAIN}
    numbers: dict[str, list[Any]] = {name: [] for name in NUMBERS}
    maps: list[Maps] = []
    where = (field("method") == method) & (field("target") == target) & field("error").is_null()
    for batch in run.batches(columns=[*PLAIN, *NUMBERS, "layers", "shapes", "lo", "hi", "maps"], where=where):
        add(batch, layer, columns, numbers, maps, run.store)
    made, said = on_one_grid(maps)
    found = {name: np.concatenate(values).astype(np.float64) for name, values in numbers.items()}
    methods, targets = (list(dict.fromkeys(some)) for some in zip(*held.last, strict=True))
    choices = (("method", methods, method), ("target", targets, target), ("layer", names, layer))
    notes = [
        f"{len(some)} {kind}s in this run: shown is {value} (--{kind})"
        for kind, some, value in choices
        if len(some) > 1
    ]
    missing = held.rows[pair] - len(maps)
    if missing:
        notes.append(f"{missing:,} pictures have no map at {layer}")
    return Answers(method, target, layer, columns, found, made, held.failed, (*notes, *said))


def add(
    batch: Any, layer: str, columns: dict[str, list[Any]], numbers: dict[str, list[Any]], maps: list[Maps], store: str
) -> None:
    """Take the rows of a batch that have the layer: of the lists what belongs to it."""
    import pyarrow.compute as pc

    for places, rows in by_layers(batch, layer):
        for name in PLAIN:
            columns[name] += rows[name].to_pylist()
        at = {name: pc.list_element(rows[name], places) for name in (*NUMBERS, "shapes", "lo", "hi", "maps")}
        for name in NUMBERS:
            numbers[name].append(at[name].to_numpy(zero_copy_only=False))
        found = zip(*(at[name].to_pylist() for name in ("maps", "shapes", "lo", "hi")), strict=True)
        maps += [decode_bytes(cells, (height, width), lo, hi, store) for cells, (height, width), lo, hi in found]


def by_layers(batch: Any, layer: str) -> Iterator[tuple[int, Any]]:
    """The rows that hold a layer, in stretches with the same layers, each with the place of `layer` among them."""
    names = batch["layers"].to_pylist()
    start = 0
    for end in range(1, len(names) + 1):
        if end == len(names) or names[end] != names[start]:
            if layer in (names[start] or ()):
                yield names[start].index(layer), batch.slice(start, end - start)
            start = end


def on_one_grid(maps: Sequence[Maps]) -> tuple[Maps, list[str]]:
    """Maps (N, h, w): where inputs were of several sizes, all on the grid of most of them."""
    shapes: dict[tuple[int, ...], int] = {}
    for one in maps:
        shapes[one.shape] = shapes.get(one.shape, 0) + 1
    if len(shapes) == 1:
        return np.stack(maps), []
    common = max(shapes, key=lambda shape: shapes[shape])
    moved = [
        one if one.shape == common else tensors.resize(torch.from_numpy(one)[None], common)[0].numpy() for one in maps
    ]
    return np.stack(moved), [f"maps of {len(shapes)} sizes are compared at {common[0]}x{common[1]}"]
