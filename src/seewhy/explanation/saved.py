"""Saved explanations: the JSON record, the arrays and the photo of one image, and reading them back."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import UnidentifiedImageError

from seewhy import storage, tensors
from seewhy.errors import UsageError
from seewhy.explanation.components import InputImage, LayerInfo, TargetResult, non_finite_notes
from seewhy.explanation.data import ExplanationData, MapKey, most_likely
from seewhy.explanation.flags import find_flags
from seewhy.explanation.target_matching import describe_spellings
from seewhy.images.files import check_size, describe_error, open_binary, open_image
from seewhy.images.loading import MAX_PIXELS
from seewhy.images.view import View
from seewhy.rendering.overlays import LONGEST, shrink
from seewhy.targets.names import Labels

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
    }


def build_map_entry(e: ExplanationData, key: MapKey) -> dict[str, Any]:
    """Return the record of one map."""
    maps = e.maps[key]
    method, target, layer = key
    return {
        "method": method,
        "target": target,
        "layer": layer,
        "shape": list(maps.shape[1:]),
        "min": storage.finite_or_none(maps.amin()),
        "max": storage.finite_or_none(maps.amax()),
        "positive_evidence": storage.finite_or_none(tensors.positive_evidence(maps)[0]),
        "flags": list(find_flags(maps, e.has_gradient.get((target, layer)))[0]),
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
    content: dict[str, storage.Content] = {storage.MAPS: lambda file: np.savez_compressed(file, **arrays)}  # type: ignore[arg-type]
    is_image = len(e.size) == 2 and (e.inputs is None or e.inputs.shape[1] in (1, 3))
    if e.images is not None or is_image:
        pixels = e.images[0].photo if e.images else e.input_pixels()
        content[storage.PHOTO] = storage.encode_jpeg(shrink(pixels, LONGEST))
    elif e.inputs is not None:
        values = e.inputs[0].detach().float().cpu().numpy()
        content[storage.INPUT] = lambda file: np.savez_compressed(file, input=values)
    return content


def read_fields(folder: str | Path) -> dict[str, Any]:
    """Read the fields of an explanation from a folder written with `build_record` and `build_files`."""
    folder = Path(folder)
    try:
        with storage.open_regular(folder / storage.RECORD) as file:
            data = json.load(file)
        with storage.open_regular(folder / storage.MAPS) as file, np.load(file, allow_pickle=False) as arrays:
            maps = {tuple(name.split("|")): torch.from_numpy(arrays[name])[None] for name in arrays.files}
        return fields_from(folder, data, maps)
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: no saved explanation here ({Path(error.filename).name} is missing).") from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{folder}: this saved explanation cannot be read ({error}). Save it again.") from None


def fields_from(folder: Path, data: dict[str, Any], maps: dict[Any, torch.Tensor]) -> dict[str, Any]:
    """Convert a record and its maps to the fields of an explanation."""
    blank = {(entry["target"], entry["layer"]) for entry in data["maps"] if "no_gradient" in entry["flags"]}
    layers = {name: LayerInfo.from_dict(info) for name, info in data["layers"].items()}
    requested = data.get("requested", {"targets": {}, "layers": {}})
    targets = [{**entry, "requested": requested["targets"].get(entry["key"], ())} for entry in data["targets"]]
    return {
        "maps": maps,
        "target_results": tuple(map(TargetResult.from_dict, targets)),
        "layer_info": layers,
        "has_gradient": {key: torch.tensor([False]) for key in blank},
        "size": tuple(data["size"]),
        "images": read_images(folder, data),
        "inputs": read_input(folder) if storage.INPUT in data["files"] else None,
        "suggested": data["suggested"],
        "single": True,
        "notes": tuple(data["notes"]),
        "top_classes": tuple((one["class"], one["name"], nan_if_none(one["probability"])) for one in data["top"]),
        "provenance": data["provenance"],
        "selected_layers": {text: tuple(names) for text, names in requested["layers"].items()},
    }


def nan_if_none(value: float | None) -> float:
    return math.nan if value is None else value  # JSON has no NaN


def read_input(folder: Path) -> torch.Tensor:
    """Read the stored model input, with a batch axis."""
    with storage.open_regular(folder / storage.INPUT) as file, np.load(file, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["input"])[None]


def read_images(folder: Path, data: dict[str, Any]) -> tuple[InputImage, ...] | None:
    """Read the stored photo; None if there is none. Raises ValueError if it is not a JPEG within the pixel limit."""
    if not (folder / storage.PHOTO).exists():
        return None
    # Only JPEG, as it was written: Pillow opens an EPS file of this name with Ghostscript.
    try:
        with (
            storage.open_regular(folder / storage.PHOTO) as source,
            open_binary(source, MAX_PIXELS) as file,
            open_image(file, ("JPEG",)) as photo,
        ):
            check_size(*photo.size, MAX_PIXELS)
            pixels = np.array(photo.convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError(f"{storage.PHOTO} is not a JPEG") from None
    except Exception as error:  # decoders raise almost any type
        raise ValueError(f"{storage.PHOTO}: {describe_error(error)}") from None
    if data["view"] is None:  # a tensor was explained: the photo is the model's input
        view = View.identity(data["size"])
    else:
        view = View(*(tuple(data["view"][name]) for name in ("photo_size", "input_size", "box")))
    return (InputImage(data["image"] or "tensor", pixels, view),)
