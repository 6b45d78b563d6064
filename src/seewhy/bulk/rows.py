"""Rows of a part file: one per image, target and method, with maps and statistics of all layers; one per failed image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from seewhy.bulk.decoding import DecodedImage
from seewhy.bulk.job_record import MAX_TEXT
from seewhy.bulk.map_codec import encode_maps
from seewhy.bulk.statistics import NAMES, fraction_inside, statistics
from seewhy.explanation.checks import MapCheck
from seewhy.explanation.components import TargetResult
from seewhy.explanation.data import maps_in_view, shared_region
from seewhy.explanation.flags import find_flags
from seewhy.explanation.result import Explanation
from seewhy.places.region import Region
from seewhy.storage.paths import path_text
from seewhy.targets.names import class_name

STATISTICS = (*NAMES, "inside")  # one number per layer

IMAGE_FIELDS = [
    ("id", pa.string()),
    ("path", pa.string()),
    ("sha256", pa.string()),
    ("bytes", pa.int64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("view", pa.list_(pa.float32())),  # left, top, right, bottom of the model's view, in pixels of the photo
    ("input", pa.list_(pa.int32())),  # height, width of the input
    ("label", pa.string()),
    ("label_class", pa.int32()),
    ("label_name", pa.string()),  # the model's name of that class
]
TARGET_FIELDS = [
    ("predicted", pa.int32()),
    ("predicted_name", pa.string()),
    ("confidence", pa.float32()),  # probability of the predicted class
    ("target", pa.string()),  # "top1", "label", or the target as given
    ("target_key", pa.string()),  # key of the target in `Explanation.maps`
    ("target_class", pa.int32()),
    ("target_name", pa.string()),
    ("score", pa.float32()),
    ("probability", pa.float32()),
    ("method", pa.string()),
]
MAP_FIELDS = [
    ("layers", pa.list_(pa.string())),
    ("shapes", pa.list_(pa.list_(pa.int32()))),
    ("lo", pa.list_(pa.float32())),
    ("hi", pa.list_(pa.float32())),
    ("maps", pa.list_(pa.binary())),
    *((name, pa.list_(pa.float32())) for name in STATISTICS),
    ("flags", pa.list_(pa.list_(pa.string()))),
]
CHECK_FIELDS = [  # of jobs with the check
    ("check", pa.list_(pa.string())),  # verdict
    ("check_r", pa.list_(pa.float32())),
    ("check_p", pa.list_(pa.float32())),
    ("check_reason", pa.list_(pa.string())),  # why a map was not checked
]
ERROR_FIELD = ("error", pa.string())
SCHEMA = pa.schema([*IMAGE_FIELDS, *TARGET_FIELDS, *MAP_FIELDS, ERROR_FIELD])
CHECKED_SCHEMA = pa.schema([*IMAGE_FIELDS, *TARGET_FIELDS, *MAP_FIELDS, *CHECK_FIELDS, ERROR_FIELD])

Columns = dict[str, Any]  # lists, NumPy arrays or Arrow arrays


def row_schema(is_checked: bool) -> pa.Schema:
    """Return the columns of a run, with or without the check."""
    return CHECKED_SCHEMA if is_checked else SCHEMA


@dataclass(frozen=True, eq=False)
class BatchItem:
    """A decoded image, its position in the part, and the class of its label."""

    position: int
    image: DecodedImage
    label_class: int | None = None
    error: str | None = None

    @property
    def failure(self) -> str | None:
        return self.image.error or self.error


def make_rows(
    e: Explanation, target: str, result: TargetResult, items: Sequence[BatchItem], store: str
) -> list[pa.RecordBatch]:
    """Return the rows of one target: a record batch per method, with a row per image.

    They have the columns of the check if the explanation has `checks`.
    """
    region = shared_region(e, e.layers)
    columns = image_columns(items, e.labels, region) | target_columns(e, target, result)
    batches = []
    for method in e.methods:
        layers = [layer for layer in e.layers_of(method) if (method, result.key, layer) in e.maps]
        maps = map_columns(e, method, result.key, layers, items, store, region)
        checks = check_columns([e.checks[method, result.key, layer] for layer in layers]) if e.checks else {}
        batch = columns | {"method": [method] * len(items)} | maps | checks
        batches.append(as_batch(batch, len(items), row_schema(bool(e.checks))))
    return batches


def make_failed_rows(
    items: Sequence[BatchItem], labels: Sequence[str] | None, schema: pa.Schema = SCHEMA
) -> pa.RecordBatch:
    """Return a row with the error for each failed image."""
    return as_batch(image_columns(items, labels) | {"error": [item.failure for item in items]}, len(items), schema)


def as_batch(columns: Columns, count: int, schema: pa.Schema) -> pa.RecordBatch:
    """Return a record batch of `count` rows. Columns that are not given are null."""
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(count, field.type))
        else:
            if field.type == pa.string():
                values = [cell_text(value) for value in values]
            arrays.append(values if isinstance(values, pa.Array) else pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def cell_text(text: str | None) -> str | None:
    """Return a text as Parquet stores it: UTF-8 without lone surrogates, and not longer than a reader accepts."""
    if text is None or (len(text) <= MAX_TEXT and text.isascii()):
        return text
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]


def image_columns(items: Sequence[BatchItem], labels: Sequence[str] | None, region: Region | None = None) -> Columns:
    """Return the columns about the images. The view is that of the region, if the model sees only that of its input."""
    images = [item.image for item in items]
    views = [image.view.crop(*region.box) if image.view and region else image.view for image in images]
    return {
        "id": [image.item.id for image in images],
        "path": [path_text(image.item.path) for image in images],
        "sha256": [image.sha256 for image in images],
        "bytes": [image.size for image in images],
        "width": [image.photo[1] if image.photo else None for image in images],
        "height": [image.photo[0] if image.photo else None for image in images],
        "view": [list(view.box) if view else None for view in views],
        "input": [list(view.input_size) if view else None for view in views],
        "label": [image.item.label for image in images],
        "label_class": [item.label_class for item in items],
        "label_name": [None if item.label_class is None else class_name(item.label_class, labels) for item in items],
    }


def target_columns(e: Explanation, target: str, result: TargetResult) -> Columns:
    count = len(e)
    columns: Columns = {"target": [target] * count, "score": result.scores.float().cpu().numpy()}
    if e.logits is not None and e.logits.shape[1] > 1:  # a single logit predicts no class
        best = e.probabilities.max(1)
        columns["predicted"] = best.indices.int().cpu().numpy()
        columns["predicted_name"] = [class_name(index, e.labels) for index in best.indices.tolist()]
        columns["confidence"] = best.values.float().cpu().numpy()
    if result.classes is None:
        return columns | {"target_key": [result.key] * count, "target_name": [result.name] * count}
    classes = result.classes.tolist()
    columns |= {"target_key": list(map(str, classes)), "target_class": classes}
    columns["target_name"] = [class_name(index, e.labels) for index in classes]
    if result.probabilities is not None:
        columns["probability"] = result.probabilities.float().cpu().numpy()
    return columns


def map_columns(
    e: Explanation,
    method: str,
    target: str,
    layers: Sequence[str],
    items: Sequence[BatchItem],
    store: str,
    region: Region | None,
) -> Columns:
    marked = [item.image.region for item in items]
    if region is not None:
        marked = [None if mask is None else region.cut_box(torch.from_numpy(mask)).numpy() for mask in marked]
    height, width = e.size if region is None else (stop - start for start, stop in region.box)
    size = height, width
    contents: list[list[bytes]] = []
    shapes: list[list[int]] = []
    flags: list[list[tuple[str, ...]]] = []
    numbers: dict[str, list[NDArray[Any]]] = {name: [] for name in ("lo", "hi", *STATISTICS)}
    for layer in layers:
        key = method, target, layer
        tensor = maps_in_view(e, key, region).float().cpu()
        maps = tensor.numpy()
        content, lo, hi = encode_maps(maps, store)
        contents.append(content)
        shapes.append(list(maps.shape[1:]))
        layer_numbers: dict[str, NDArray[Any]] = {
            "lo": lo,
            "hi": hi,
            **statistics(maps, size),
            "inside": inside(maps, marked),
        }
        for name, values in layer_numbers.items():
            numbers[name].append(values)
        flags.append(find_flags(e.maps[key].float().cpu(), e.has_gradient.get((target, layer))))
    return {
        "layers": [list(layers)] * len(items),
        "shapes": [shapes] * len(items),
        "maps": [list(row) for row in zip(*contents, strict=True)],
        "flags": [[list(names) for names in row] for row in zip(*flags, strict=True)],
        **{name: number_lists(np.stack(values, 1)) for name, values in numbers.items()},
    }


def check_columns(checks: Sequence[Sequence[MapCheck]]) -> Columns:
    """Return the columns of the check from the checks of each layer, one per image."""
    rows = list(zip(*checks, strict=True))
    return {
        "check": [[check.verdict for check in row] for row in rows],
        "check_r": number_lists(np.array([[check.r for check in row] for row in rows])),
        "check_p": number_lists(np.array([[check.p for check in row] for row in rows])),
        "check_reason": [[cell_text(check.reason or None) for check in row] for row in rows],
    }


def inside(maps: NDArray[np.float32], regions: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float64]:
    """Return the fraction (N,) of each heatmap inside the region of its image; NaN for images without a region."""
    fractions = np.full(len(maps), np.nan)
    known = {index: region for index, region in enumerate(regions) if region is not None}
    if known:
        fractions[list(known)] = fraction_inside(maps[list(known)], np.stack(list(known.values())).astype(np.float64))
    return fractions


def number_lists(values: NDArray[Any]) -> pa.ListArray:
    """Return numbers (N, L) as a column of N lists. NaN becomes null."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    flat = values.astype(np.float32).ravel()
    return pa.ListArray.from_arrays(offsets, pa.array(flat, pa.float32(), mask=np.isnan(flat)))


def sort_rows(batches: Sequence[pa.RecordBatch], positions: Sequence[Sequence[int]]) -> pa.Table:
    """Return all rows in the order of their images; rows of the same image keep the order of `batches`."""
    table = pa.Table.from_batches(batches)
    order = np.argsort(np.concatenate([np.asarray(batch, int) for batch in positions]), kind="stable")
    return table.take(pa.array(order)).combine_chunks()
