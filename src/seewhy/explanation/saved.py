"""Saved explanations: the JSON record, the arrays and the photo of one image, and reading them back."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from seewhy import storage
from seewhy.errors import ImageError, RecordError, UsageError
from seewhy.explanation.array_files import read_arrays
from seewhy.explanation.checks import build_check
from seewhy.explanation.components import InputImage, LayerInfo, TargetResult, non_finite_notes
from seewhy.explanation.data import ExplanationData, MapKey, most_likely
from seewhy.explanation.effect_records import (
    as_check,
    as_curve,
    as_curves,
    as_drops,
    build_curves,
    build_effects,
    nan_if_none,
)
from seewhy.explanation.flags import find_flags
from seewhy.explanation.record_checks import MAX_VALUES, check_record, member_name
from seewhy.explanation.target_matching import describe_spellings
from seewhy.images.files import describe_error, open_image
from seewhy.images.loading import MAX_PIXELS, check_image_header
from seewhy.images.view import View
from seewhy.places.parts import Part
from seewhy.places.region import Region
from seewhy.rendering.overlays import LONGEST, fit_size, shrink
from seewhy.storage.paths import check_named
from seewhy.storage.records import open_record, read_json_record
from seewhy.targets.names import Labels
from seewhy.tensors import map_functions

if TYPE_CHECKING:
    from seewhy.explanation.record_schema import ExplanationRecord, LayerRecord, TargetRecord

MAX_PHOTO_BYTES = 2**24
BULK_RECORD = "job.json"  # of a bulk run
RECORDED_CLASSES = 5  # in the record's "top"


def build_record(e: ExplanationData) -> dict[str, Any]:
    """Return everything but the arrays as JSON. Numbers are in the units of the maps."""
    image = e.images[0] if e.images else None
    top = most_likely(e, RECORDED_CLASSES)
    return {
        "image": image.source if image else None,
        "provenance": dict(e.provenance),
        "notes": list(dict.fromkeys([*e.notes, *non_finite_notes(e.target_results)])),
        "size": list(e.size),
        "view": None if image is None else dataclasses.asdict(image.view),
        "top": [
            {"class": index, "name": name, "probability": storage.finite_or_none(chance)} for index, name, chance in top
        ],
        "targets": [result.to_dict() for result in e.target_results],
        "suggested": e.suggested,
        "layers": {name: info.to_dict() for name, info in e.layer_info.items()},
        "maps": [build_map_entry(e, key) for key in e.maps],
        "requested": {
            "targets": {result.key: describe_requests(result, e.labels) for result in e.target_results},
            "layers": {text: list(names) for text, names in e.selected_layers.items() if is_alias(text, names)},
        },
        **build_effects(e),
    }


def build_map_entry(e: ExplanationData, key: MapKey) -> dict[str, Any]:
    """Return the record of one map."""
    maps = e.maps[key]
    method, target, layer = key
    checks = {"check": build_check(e.checks[key][0])} if key in e.checks else {}
    curves = {"curves": build_curves(e.curves[key][0])} if key in e.curves else {}
    return {
        "method": method,
        "target": target,
        "layer": layer,
        "shape": list(maps.shape[1:]),
        "min": storage.finite_or_none(maps.amin()),
        "max": storage.finite_or_none(maps.amax()),
        "positive_evidence": storage.finite_or_none(map_functions.positive_evidence(maps)[0]),
        "flags": list(find_flags(maps, e.has_gradient.get((target, layer)))[0]),
        **checks,
        **curves,
    }


def describe_requests(result: TargetResult, labels: Labels) -> list[str]:
    """Return the requested targets as text, except those that text cannot identify."""
    texts: dict[str, None] = {}
    for one in result.requested:
        texts.update(dict.fromkeys([one] if isinstance(one, str) else describe_spellings(one, labels)))
    return list(texts)


def is_alias(text: str, layers: tuple[str, ...]) -> bool:
    """Return True if an entry of `layers=` selected one layer of another name."""
    return len(layers) == 1 and layers[0] != text and not text.startswith("<")


def build_files(e: ExplanationData) -> dict[str, storage.Content]:
    """Return the files next to the record: signed float32 maps under "method|target|layer", and the photo.

    A signal, a volume, or an input with other than 1 or 3 channels has no photo: the model's input is stored in float32.
    """
    arrays = {"|".join(key): maps[0].float().cpu().numpy() for key, maps in e.maps.items()}
    content: dict[str, storage.Content] = {storage.MAPS: storage.encode_npz(arrays)}
    is_image = len(e.size) == 2 and (e.inputs is None or e.inputs.shape[1] in (1, 3))
    if e.images is not None or is_image:
        pixels = e.images[0].photo if e.images else e.input_pixels()
        content[storage.PHOTO] = storage.encode_jpeg(shrink(pixels, LONGEST))
    elif e.inputs is not None:
        content[storage.INPUT] = storage.encode_npz({"input": e.inputs[0].detach().float().cpu().numpy()})
    return content


def no_explanation(folder: Path, missing: str) -> UsageError:
    """Return the error for a folder without a saved explanation, with what the user may have meant."""
    reason = f"no saved explanation here ({missing} is missing)"
    if not os.path.lexists(folder):
        return UsageError(f"{folder}: no such folder. Pass a folder that seewhy wrote, such as cam/bus.")
    if not folder.is_dir():
        if (folder.parent / storage.RECORD).exists():
            return UsageError(f"{folder} is a file of a saved explanation. Pass its folder: {folder.parent}")
        return UsageError(
            f"{folder} is a file, not a saved explanation. Pass a folder that seewhy wrote, such as cam/bus."
        )
    if missing != storage.RECORD:
        return UsageError(f"{folder}: {reason}. Explain the image again, or restore the file.")
    if (folder / BULK_RECORD).exists():
        return UsageError(f"{folder}: {reason}. It is a bulk run: seewhy summary {shlex.quote(str(folder))}")
    runs = sorted(path.parent for path in folder.glob(f"*/{storage.RECORD}"))
    return UsageError(
        f"{folder}: {reason}. " + (f"It contains some: pass {runs[0]}" if runs else "Pass another folder.")
    )


def read_fields(folder: str | Path) -> dict[str, Any]:
    """Read the fields of an explanation from a folder written with `build_record` and `build_files`.

    Nothing in the folder is trusted: users exchange saved explanations. Raises RecordError, which names the file and the field.
    """
    from seewhy.explanation.record_schema import ExplanationRecord  # imports msgspec

    check_named(folder)
    folder = Path(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise no_explanation(folder, storage.RECORD)
    try:
        record = read_json_record(folder / storage.RECORD, ExplanationRecord, storage.MAX_RECORD_BYTES)
        check_record(folder / storage.RECORD, record)
        shapes = {member_name(entry): entry.shape for entry in record.maps}
        arrays = read_arrays(folder / storage.MAPS, shapes, MAX_VALUES)
        inputs = read_input(folder, record)
    except FileNotFoundError as error:
        raise no_explanation(folder, Path(error.filename).name) from None
    blank = {(entry.target, entry.layer) for entry in record.maps if "no_gradient" in entry.flags}
    return {
        "maps": {
            (entry.method, entry.target, entry.layer): torch.from_numpy(arrays[member_name(entry)])[None]
            for entry in record.maps
        },
        "target_results": tuple(as_result(one, record.requested.targets.get(one.key, ())) for one in record.targets),
        "layer_info": {name: as_layer_info(layer) for name, layer in record.layers.items()},
        "has_gradient": {key: torch.tensor([False]) for key in blank},
        "size": record.size,
        "images": read_images(folder, record),
        "inputs": inputs,
        "suggested": record.suggested,
        "single": True,
        "notes": tuple(record.notes),
        "top_classes": tuple((one.class_index, one.name, nan_if_none(one.probability)) for one in record.top),
        "provenance": record.provenance,
        "selected_layers": {text: tuple(names) for text, names in record.requested.layers.items()},
        "checks": {
            (entry.method, entry.target, entry.layer): (as_check(entry.check),)
            for entry in record.maps
            if entry.check is not None
        },
        "drops": {target: (as_drops(one),) for target, one in record.drops.items()},
        "curves": {
            (entry.method, entry.target, entry.layer): (as_curves(entry.curves),)
            for entry in record.maps
            if entry.curves
        },
        "random_curves": {
            target: ({filler: as_curve(one) for filler, one in curves.items()},)
            for target, curves in record.random_curves.items()
        },
    }


def as_result(record: TargetRecord, requested: Iterable[str]) -> TargetResult:
    """Convert the record of a target."""
    classes = None if record.class_index is None else torch.tensor([record.class_index])
    chances = None if record.probability is None else torch.tensor([record.probability])
    scores = torch.tensor([nan_if_none(record.score)])
    return TargetResult(record.key, record.name, scores, classes, chances, tuple(requested), record.for_comparison)


def as_layer_info(record: LayerRecord) -> LayerInfo:
    """Convert the record of a layer."""
    parts = tuple(Part(part.box, part.mirrored) for part in record.parts)
    one = record.region
    region = None if one is None else Region(one.box, one.order, one.mirrored)
    return LayerInfo(record.kind, record.grid, record.channels, record.note, record.requested, parts, region)


def read_input(folder: Path, record: ExplanationRecord) -> torch.Tensor | None:
    """Read the stored model input, with a batch axis; None if the record lists none."""
    if storage.INPUT not in record.files:
        return None
    (array,) = read_arrays(folder / storage.INPUT, {"input": (None, *record.size)}, MAX_VALUES).values()
    return torch.from_numpy(array)[None]


def read_images(folder: Path, record: ExplanationRecord) -> tuple[InputImage, ...] | None:
    """Read the stored photo; None if the record lists none, or if the file was removed."""
    path = folder / storage.PHOTO
    if storage.PHOTO not in record.files:
        return None
    if record.view is not None:
        view = View(record.view.photo_size, record.view.input_size, record.view.box)
    elif len(record.size) == 2:  # a tensor was explained: the photo is the model's input
        view = View.identity(record.size)
    else:
        raise RecordError(
            folder / storage.RECORD, "files", f"an input of size {list(record.size)} has no {storage.PHOTO}"
        )
    try:
        pixels = read_photo(path, fit_size(view.photo_size, LONGEST))
    except FileNotFoundError:
        return None
    return (InputImage(record.image or "tensor", pixels, view),)


def read_photo(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read a stored photo. Raises RecordError if it is not a JPEG of `size` (height, width); this is checked first."""
    with open_record(path, MAX_PHOTO_BYTES) as file:
        data = file.read(MAX_PHOTO_BYTES)
    # Only JPEG, as it was written: Pillow opens an EPS file of this name with Ghostscript.
    try:
        with open_image(io.BytesIO(data), ("JPEG",)) as photo:
            if (photo.height, photo.width) != size:
                found, recorded = f"{photo.width} x {photo.height}", f"{size[1]} x {size[0]}"
                raise RecordError(path, "", f"it has {found} pixels, and the record describes a photo of {recorded}")
            check_image_header(data, MAX_PIXELS, storage.PHOTO)
            return np.array(photo.convert("RGB"))
    except RecordError:
        raise
    except UnidentifiedImageError:
        raise RecordError(path, "", "not a JPEG") from None
    except ImageError as error:
        raise RecordError(path, "", error.reason) from None
    except Exception as error:  # decoders raise almost any type
        raise RecordError(path, "", describe_error(error)) from None
