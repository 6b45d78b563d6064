"""What the types of explanation.json cannot express: its names refer to each other, and its shapes fit together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from seewhy import storage
from seewhy.errors import RecordError
from seewhy.explanation.components import NETWORK
from seewhy.explanation.windows import MASKS
from seewhy.storage.records import quote

if TYPE_CHECKING:
    from seewhy.explanation.record_schema import CurveRecord, ExplanationRecord, LayerRecord, MapRecord, ViewRecord

MAX_VALUES = 2**28  # of all maps, of an input, or of a heatmap over it: 1 GiB in float32
MIN_VIEW = 1e-3  # pixels of the photo


class FieldError(Exception):
    """A field of a record is invalid."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def check_record(path: Path, record: ExplanationRecord) -> None:
    """Raise RecordError if the fields of a record do not fit together."""
    try:
        check_size("size", record.size)
        check_names(record)
        for name, layer in record.layers.items():
            check_layer(f"layers[{quote(name)}]", layer, record.size)
        check_maps(record)
        check_effects(record)
        check_preprocessing(record)
        if record.view is not None:
            check_view(record.view, record.size)
    except FieldError as error:
        raise RecordError(path, error.field, error.reason) from None


def check_size(field: str, lengths: Iterable[int]) -> None:
    if (count := math.prod(lengths)) > MAX_VALUES:
        raise FieldError(field, f"{count:,} positions; the limit is {MAX_VALUES:,}")


def check_names(record: ExplanationRecord) -> None:
    """Check that targets are unique, that names refer to listed targets and layers, and that files are in the folder."""
    keys = {target.key for target in record.targets}
    if len(keys) < len(record.targets):
        raise FieldError("targets", "two targets have the same key")
    if record.suggested is not None and record.suggested not in record.layers:
        raise FieldError("suggested", f"{quote(record.suggested)} is not one of its layers")
    for key in record.requested.targets:
        if key not in keys:
            raise FieldError("requested.targets", f"{quote(key)} is not one of its targets")
    for text, names in record.requested.layers.items():
        for name in names:
            if name not in record.layers:
                raise FieldError(f"requested.layers[{quote(text)}]", f"{quote(name)} is not one of its layers")
    for index, name in enumerate(record.files):
        if not storage.is_relative(name):
            raise FieldError(f"files[{index}]", f"{quote(name)} is not a name of a file in this folder")


def check_layer(field: str, layer: LayerRecord, size: Sequence[int]) -> None:
    """Check that the parts or the region of a layer lie in an input of `size`."""
    rank = len(size)
    check_size(f"{field}.grid", layer.grid)
    for index, part in enumerate(layer.parts):
        place = f"{field}.parts[{index}]"
        if len(part.box) != rank or any(
            not 0 <= start < stop <= length for (start, stop), length in zip(part.box, size, strict=True)
        ):
            raise FieldError(f"{place}.box", f"it is not a box in an input of size {list(size)}")
        check_axes(f"{place}.mirrored", part.mirrored, rank)
    if layer.parts:
        check_part_grid(field, layer, rank)
    if layer.region is not None:
        box = layer.region.box
        if len(box) != rank or any(
            start >= stop or stop <= 0 or start >= length for (start, stop), length in zip(box, size, strict=True)
        ):
            raise FieldError(f"{field}.region.box", f"it is not a box that overlaps an input of size {list(size)}")
        check_size(f"{field}.region.box", (stop - start for start, stop in box))
        check_size(
            f"{field}.region.box", (max(stop, n) - min(start, 0) for (start, stop), n in zip(box, size, strict=True))
        )
        check_axes(f"{field}.region.mirrored", layer.region.mirrored, rank)
        if sorted(layer.region.order) != list(range(rank)):
            raise FieldError(f"{field}.region.order", f"it is not an order of {rank} axes")


def check_axes(field: str, axes: Sequence[int], rank: int) -> None:
    if len(set(axes)) < len(axes) or any(axis >= rank for axis in axes):
        raise FieldError(field, f"it does not list axes of an input with {rank}")


def check_part_grid(field: str, layer: LayerRecord, rank: int) -> None:
    """Check that there is one map for each part. An axis along which all parts are points may be missing in their maps."""
    longest = [max(part.box[axis][1] - part.box[axis][0] for part in layer.parts) for axis in range(rank)]
    missing = rank - (len(layer.grid) - 1)
    if layer.grid[0] != len(layer.parts) or not 0 <= missing <= longest.count(1):
        raise FieldError(f"{field}.grid", f"{list(layer.grid)} is not a grid for each of {len(layer.parts)} parts")


def check_maps(record: ExplanationRecord) -> None:
    """Check that each map is of a listed target and layer, is listed once, and has the grid of its layer."""
    keys = {target.key for target in record.targets}
    listed = set()
    for index, entry in enumerate(record.maps):
        field = f"maps[{index}]"
        layer = record.layers.get(entry.layer)
        if layer is None:
            raise FieldError(f"{field}.layer", f"{quote(entry.layer)} is not one of its layers")
        if entry.target not in keys:
            raise FieldError(f"{field}.target", f"{quote(entry.target)} is not one of its targets")
        if not has_grid_of(entry, layer, len(record.size)):
            raise FieldError(
                f"{field}.shape", f"{list(entry.shape)} does not fit the grid of its layer, {list(layer.grid)}"
            )
        listed.add(member_name(entry))
    if len(listed) < len(record.maps):
        raise FieldError("maps", "two maps have the same method, target and layer")
    if (count := sum(math.prod(entry.shape) for entry in record.maps)) > MAX_VALUES:
        raise FieldError("maps", f"{count:,} values; the limit is {MAX_VALUES:,}")


def check_effects(record: ExplanationRecord) -> None:
    """Check that drops and curves are of listed targets, that drops are complete, and that curves run from 0 to 1."""
    keys = {target.key for target in record.targets}
    for name, group in (("drops", record.drops), ("random_curves", record.random_curves)):
        for key in group:
            if key not in keys:
                raise FieldError(name, f"{quote(key)} is not one of its targets")
    for key, drops in record.drops.items():
        if len(drops.values) not in (0, MASKS) or not (drops.values or drops.reason):
            raise FieldError(f"drops[{quote(key)}].values", f"{len(drops.values)} drops instead of {MASKS}")
    for key, curves in record.random_curves.items():
        for filler, curve in curves.items():
            check_curve(f"random_curves[{quote(key)}][{quote(filler)}]", curve)
    for index, entry in enumerate(record.maps):
        for filler, both in entry.curves.items():
            check_curve(f"maps[{index}].curves[{quote(filler)}].most_first", both.most_first)
            check_curve(f"maps[{index}].curves[{quote(filler)}].least_first", both.least_first)


def check_curve(field: str, curve: CurveRecord) -> None:
    if not len(curve.fractions) == len(curve.scores) == len(curve.mass):
        raise FieldError(field, "its lists have several lengths")
    if curve.fractions[0] != 0 or curve.fractions[-1] != 1 or any(a > b for a, b in pairwise(curve.fractions)):
        raise FieldError(f"{field}.fractions", "they do not increase from 0 to 1")


def has_grid_of(entry: MapRecord, layer: LayerRecord, rank: int) -> bool:
    """Return True if a map has the rank of its layer's grid. Its lengths depend on the method: some have the input's size."""
    if layer.parts:
        return len(entry.shape) == len(layer.grid) and entry.shape[0] == layer.grid[0]
    return len(entry.shape) == rank and (entry.layer == NETWORK or len(layer.grid) == rank)


def member_name(entry: MapRecord) -> str:
    """Return the name of a map in maps.npz."""
    return f"{entry.method}|{entry.target}|{entry.layer}"


def check_preprocessing(record: ExplanationRecord) -> None:
    """Check the numbers that turn an input back into an image: one or three per channel."""
    preprocess = record.provenance.get("preprocess")
    if preprocess is None or (isinstance(preprocess, dict) and "mean" not in preprocess):
        return
    if not isinstance(preprocess, dict):
        raise FieldError("provenance.preprocess", "it is not an object")
    for name in ("mean", "std"):
        numbers = preprocess.get(name)
        if not isinstance(numbers, list) or len(numbers) not in (1, 3) or not all(map(is_small_number, numbers)):
            raise FieldError(f"provenance.preprocess.{name}", "it is not a list of one or three numbers")


def is_small_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def check_view(view: ViewRecord, size: Sequence[int]) -> None:
    """Check that a view is a rectangle that overlaps its photo, and that it fills an input of `size`."""
    if view.input_size != tuple(size):
        raise FieldError("view.input_size", f"{list(view.input_size)} is not the size of the input, {list(size)}")
    left, top, right, bottom = view.box
    height, width = view.photo_size
    overlaps = right > 0 and bottom > 0 and left < width and top < height
    if not overlaps or right - left < MIN_VIEW or bottom - top < MIN_VIEW:
        raise FieldError("view.box", f"it is not a rectangle on a photo of {width} x {height} pixels")
