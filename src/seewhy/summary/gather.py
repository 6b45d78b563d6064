"""One answer for every picture of a run, as arrays: what is counted, compared and clustered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seewhy import tensors
from seewhy.bulk.cells import unpacked
from seewhy.bulk.run import Run, chosen
from seewhy.bulk.statistics import NAMES
from seewhy.errors import UnknownName, UsageError

NUMBERS = (*NAMES, "inside")
PLAIN = (
    "id", "path", "width", "height", "view", "input", "label", "label_class", "label_name", "predicted", "predicted_name",
    "confidence", "target_class", "target_name", "probability",
)  # fmt: skip
NAMED = (("target_class", "target_name"), ("predicted", "predicted_name"), ("label_class", "label_name"))
Maps = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of one method to one question, read at one layer: N pictures, in the order of the run.

    `columns` are those of `PLAIN`, as lists; `numbers` (N,) each, NaN where unknown; `maps` (N, h, w) are signed, in the
    method's units. `failed` are the pictures that have none, with the reason.
    """

    method: str
    question: str
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

    @property
    def right(self) -> NDArray[np.bool_] | None:
        """Whether the predicted class is that of the label (N,); None where no picture has one."""
        labels, said = self.columns["label_class"], self.columns["predicted"]
        if all(label is None for label in labels):
            return None
        return np.array([label == one for label, one in zip(labels, said, strict=True)])

    def name_of(self, index: int) -> str:
        """The name of a class that was predicted or asked for."""
        for number, name in NAMED:
            for found, text in zip(self.columns[number], self.columns[name], strict=True):
                if found == index:
                    return str(text)
        return f"class {index}"


def gather(run: Run, method: str | None = None, question: str | None = None, layer: str | None = None) -> Answers:
    """The answers of a run; of several methods, questions or layers what is named, else the first, and of layers the last.

    Raises UsageError where nothing was explained, UnknownName for a choice that is not there.
    """
    columns: dict[str, list[Any]] = {name: [] for name in PLAIN}
    numbers: dict[str, list[Any]] = {name: [] for name in NUMBERS}
    maps: list[Maps] = []
    failed: list[tuple[str, str]] = []
    others: dict[str, dict[str, None]] = {"method": {}, "question": {}, "layer": {}}
    wanted = [*PLAIN, *NUMBERS, "question", "method", "layers", "shapes", "lo", "hi", "maps", "error"]
    for batch in run.batches(columns=wanted):
        rows = batch.select(["id", "error", "method", "question", "layers"]).to_pylist()
        failed += [(row["id"], row["error"]) for row in rows if row["error"] is not None]
        good = [row for row in rows if row["error"] is None]
        if not good:
            continue
        for row in good:
            others["method"].setdefault(row["method"])
            others["question"].setdefault(row["question"])
        method = method or good[0]["method"]
        question = question or good[0]["question"]
        keep = [
            at
            for at, row in enumerate(rows)
            if (row["method"], row["question"]) == (method, question) and not row["error"]
        ]
        if not keep:
            continue
        names = rows[keep[0]]["layers"]
        others["layer"] |= dict.fromkeys(names)
        layer = layer or names[-1]
        if layer not in names:
            raise UnknownName("layer", layer, names, hint=f"This run has {', '.join(names)}.")
        add(batch.take(keep), layer, columns, numbers, maps, run.store)
    if not maps:
        for kind, given in (("method", method), ("question", question)):
            if others[kind]:
                chosen(kind, given, list(others[kind]))
        raise UsageError(f"{run.folder}: no picture of this run was explained.")
    made, said = on_one_grid(maps)
    found = {name: np.concatenate(values).astype(np.float64) for name, values in numbers.items()}
    notes = [
        f"{len(names)} {kind}s in this run: shown is {value} (--{kind})"
        for (kind, names), value in zip(others.items(), (method, question, layer), strict=True)
        if len(names) > 1
    ]
    assert method is not None and question is not None and layer is not None
    return Answers(method, question, layer, columns, found, made, failed, (*notes, *said))


def add(
    batch: Any, layer: str, columns: dict[str, list[Any]], numbers: dict[str, list[Any]], maps: list[Maps], store: str
) -> None:
    """Take the rows of a batch, all of the same method: of the lists what belongs to the layer."""
    import pyarrow.compute as pc

    for places, rows in by_layers(batch, layer):
        for name in PLAIN:
            columns[name] += rows[name].to_pylist()
        at = {name: pc.list_element(rows[name], places) for name in (*NUMBERS, "shapes", "lo", "hi", "maps")}
        for name in NUMBERS:
            numbers[name].append(at[name].to_numpy(zero_copy_only=False))
        found = zip(*(at[name].to_pylist() for name in ("maps", "shapes", "lo", "hi")), strict=True)
        maps += [unpacked(cells, (height, width), lo, hi, store) for cells, (height, width), lo, hi in found]


def by_layers(batch: Any, layer: str) -> Iterator[tuple[int, Any]]:
    """The rows in stretches that hold the same layers, each with the place of `layer` among them."""
    names = batch["layers"].to_pylist()
    start = 0
    for end in range(1, len(names) + 1):
        if end == len(names) or names[end] != names[start]:
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
