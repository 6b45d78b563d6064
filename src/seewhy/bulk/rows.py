"""Rows: one for each picture, question and method, with maps and numbers of all layers; one for a picture that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from seewhy.bulk.map_codec import encode_maps
from seewhy.bulk.dataset import path_text
from seewhy.bulk.decoding import DecodedImage
from seewhy.bulk.plan import LABEL, BulkSettings
from seewhy.bulk.statistics import NAMES, fraction_inside, statistics
from seewhy.explanation.components import TargetResult
from seewhy.explanation.flags import find_flags
from seewhy.explanation.result import Explanation
from seewhy.targets import ClassScore, Target, TopScore, as_targets, class_name

LISTED = (*NAMES, "inside")  # a number for each layer

PICTURE = [
    ("id", pa.string()),
    ("path", pa.string()),
    ("sha256", pa.string()),
    ("bytes", pa.int64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("view", pa.list_(pa.float32())),  # left, top, right, bottom of what the network saw, in photo pixels
    ("input", pa.list_(pa.int32())),  # height, width of the network's input
    ("label", pa.string()),
    ("label_class", pa.int32()),
    ("label_name", pa.string()),  # the model's name of that class
]
ANSWER = [
    ("predicted", pa.int32()),
    ("predicted_name", pa.string()),
    ("confidence", pa.float32()),  # the probability of the predicted class
    ("target", pa.string()),  # "top1", "label", or the target as given
    ("target_key", pa.string()),
    ("target_class", pa.int32()),
    ("target_name", pa.string()),
    ("score", pa.float32()),
    ("probability", pa.float32()),
    ("method", pa.string()),
]
MAPS = [
    ("layers", pa.list_(pa.string())),
    ("shapes", pa.list_(pa.list_(pa.int32()))),
    ("lo", pa.list_(pa.float32())),
    ("hi", pa.list_(pa.float32())),
    ("maps", pa.list_(pa.binary())),
    *((name, pa.list_(pa.float32())) for name in LISTED),
    ("flags", pa.list_(pa.list_(pa.string()))),
]
SCHEMA = pa.schema([*PICTURE, *ANSWER, *MAPS, ("error", pa.string())])


@dataclass(frozen=True, eq=False)
class BatchItem:
    """A picture with its place in the part, and the class that its label means."""

    place: int
    read: DecodedImage
    label_class: int | None = None
    error: str | None = None

    @property
    def reason(self) -> str | None:
        return self.read.error or self.error


def as_target_list(questions: BulkSettings, label_classes: Sequence[int | None]) -> list[Target]:
    """The questions of a batch; "label" is the class of each picture's own label."""
    found: list[Target] = []
    for text in questions.asked:
        if text == LABEL:
            found.append(ClassScore(torch.tensor(label_classes)))
        elif text.startswith("top") and text[3:].isdecimal():
            found.append(TopScore(int(text[3:])))
        else:
            found += as_targets(text)
    return found


def rows_of(
    e: Explanation, target: str, answer: TargetResult, taken: Sequence[BatchItem], store: str
) -> list[pa.RecordBatch]:
    """The rows of one question of a batch: a batch for each method, a row for each picture."""
    about = picture_columns(taken, e.labels)
    answers = answer_columns(e, target, answer)
    found = []
    for method in e.methods:
        layers = [layer for layer in e.layers_of(method) if (method, answer.key, layer) in e.maps]
        columns = {
            **about,
            **answers,
            "method": [method] * len(taken),
            **map_columns(e, method, answer.key, layers, taken, store),
        }
        found.append(as_batch(columns, len(taken)))
    return found


def failed_rows(taken: Sequence[BatchItem], names: Sequence[str] | None) -> pa.RecordBatch:
    """A row for each picture that failed, with the reason."""
    return as_batch({**picture_columns(taken, names), "error": [one.reason for one in taken]}, len(taken))


def as_batch(columns: dict[str, Any], count: int) -> pa.RecordBatch:
    arrays = []
    for entry in SCHEMA:
        values = columns.get(entry.name)
        if values is None:
            arrays.append(pa.nulls(count, entry.type))
        else:
            arrays.append(values if isinstance(values, pa.Array) else pa.array(values, entry.type))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def picture_columns(taken: Sequence[BatchItem], names: Sequence[str] | None) -> dict[str, Any]:
    reads = [one.read for one in taken]
    views = [read.view for read in reads]
    return {
        "id": [read.item.id for read in reads],
        "path": [path_text(read.item.path) for read in reads],
        "sha256": [read.sha256 for read in reads],
        "bytes": [read.size for read in reads],
        "width": [read.photo[1] if read.photo else None for read in reads],
        "height": [read.photo[0] if read.photo else None for read in reads],
        "view": [list(view.box) if view else None for view in views],
        "input": [list(view.input_size) if view else None for view in views],
        "label": [read.item.label for read in reads],
        "label_class": [one.label_class for one in taken],
        "label_name": [None if one.label_class is None else class_name(one.label_class, names) for one in taken],
    }


def answer_columns(e: Explanation, target: str, answer: TargetResult) -> dict[str, Any]:
    count = len(e)
    columns: dict[str, Any] = {"target": [target] * count, "score": answer.scores.float().cpu().numpy()}
    if e.logits is not None and e.logits.shape[1] > 1:  # of one number, only its sign or its size says anything
        best = e.probabilities.max(1)
        columns["predicted"] = best.indices.int().cpu().numpy()
        columns["predicted_name"] = [class_name(index, e.labels) for index in best.indices.tolist()]
        columns["confidence"] = best.values.float().cpu().numpy()
    if answer.classes is None:
        return {**columns, "target_key": [answer.key] * count, "target_name": [answer.name] * count}
    classes = answer.classes.tolist()
    columns |= {"target_key": list(map(str, classes)), "target_class": classes}
    columns["target_name"] = [class_name(index, e.labels) for index in classes]
    if answer.probabilities is not None:
        columns["probability"] = answer.probabilities.float().cpu().numpy()
    return columns


def map_columns(
    e: Explanation, method: str, target: str, layers: Sequence[str], taken: Sequence[BatchItem], store: str
) -> dict[str, Any]:
    count = len(taken)
    size = (e.size[0], e.size[1])
    regions = [one.read.region for one in taken]
    cells: list[list[bytes]] = []
    shapes: list[list[int]] = []
    flags: list[list[tuple[str, ...]]] = []
    numbers: dict[str, list[NDArray[Any]]] = {name: [] for name in ("lo", "hi", *LISTED)}
    for layer in layers:
        signed = e.maps[method, target, layer].float().cpu()
        maps = signed.numpy()
        made, lo, hi = encode_maps(maps, store)
        cells.append(made)
        shapes.append(list(maps.shape[1:]))
        found: dict[str, NDArray[Any]] = {"lo": lo, "hi": hi, **statistics(maps, size), "inside": inside(maps, regions)}
        for name, values in found.items():
            numbers[name].append(values)
        flags.append(find_flags(signed, e.has_gradient.get((target, layer))))
    listed = {name: number_lists(np.stack(values, 1)) for name, values in numbers.items()}
    return {
        "layers": [list(layers)] * count,
        "shapes": [shapes] * count,
        "maps": [list(row) for row in zip(*cells, strict=True)],
        "flags": [[list(names) for names in row] for row in zip(*flags, strict=True)],
        **listed,
    }


def inside(maps: NDArray[np.float32], regions: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float64]:
    """The share of heat in the region of each picture (N,); NaN where there is no region."""
    found = np.full(len(maps), np.nan)
    known = {place: region for place, region in enumerate(regions) if region is not None}
    if known:
        found[list(known)] = fraction_inside(maps[list(known)], np.stack(list(known.values())).astype(np.float64))
    return found


def number_lists(values: NDArray[Any]) -> pa.ListArray:
    """Numbers (N, L) as a column of lists; NaN as null."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    flat = values.astype(np.float32).ravel()
    return pa.ListArray.from_arrays(offsets, pa.array(flat, pa.float32(), mask=np.isnan(flat)))


def in_order(batches: Sequence[pa.RecordBatch], places: Sequence[Sequence[int]]) -> pa.Table:
    """All rows by the place of their picture; of one picture in the order of the batches."""
    table = pa.Table.from_batches(batches, SCHEMA)
    order = np.argsort(np.concatenate([np.asarray(some, int) for some in places]), kind="stable")
    return table.take(pa.array(order)).combine_chunks()
