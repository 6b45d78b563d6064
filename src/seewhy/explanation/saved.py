"""An explanation of one picture as files: what goes into the record, and the way back."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from seewhy import storage, tensors
from seewhy.errors import UsageError
from seewhy.explanation import drawing
from seewhy.explanation.components import InputImage, LayerInfo, TargetResult, non_finite_notes
from seewhy.explanation.flags import find_flags
from seewhy.images.view import View
from seewhy.rendering import overlays as render

if TYPE_CHECKING:
    from seewhy.explanation.result import Explanation


def document(e: Explanation) -> dict[str, Any]:
    """Everything but the arrays, as JSON takes it. Numbers are in the units of the maps."""
    picture = e.images[0] if e.images else None
    top = e.top() if e.logits is not None or e.top_classes else []
    return {
        "image": picture.source if picture else None,
        "provenance": dict(e.provenance),
        "notes": list(dict.fromkeys([*e.notes, *non_finite_notes(e.target_results)])),
        "size": list(e.size),
        "view": None if picture is None else dataclasses.asdict(picture.view),
        "top": [{"class": index, "name": name, "probability": storage.number(chance)} for index, name, chance in top],
        "targets": [answer.to_dict() for answer in e.target_results],
        "suggested": e.suggested,
        "layers": {name: dataclasses.asdict(info) for name, info in e.layer_info.items()},
        "maps": [map_entry(e, key) for key in e.maps],
    }


def map_entry(e: Explanation, key: tuple[str, str, str]) -> dict[str, Any]:
    maps = e.maps[key]
    method, target, layer = key
    return {
        "method": method,
        "target": target,
        "layer": layer,
        "shape": list(maps.shape[1:]),
        "min": storage.number(maps.amin()),
        "max": storage.number(maps.amax()),
        "positive_evidence": storage.number(tensors.positive_evidence(maps)[0]),
        "flags": list(find_flags(maps, e.has_gradient.get((target, layer)))[0]),
    }


def files(e: Explanation) -> dict[str, storage.Content]:
    """The files beside the record: signed float32 maps under "method|target|layer", and the photo as drawn.

    A signal, a volume or an input of other than 1 or 3 channels has no photo: what the network saw is kept in float32.
    """
    arrays = {"|".join(key): maps[0].float().cpu().numpy() for key, maps in e.maps.items()}
    content: dict[str, storage.Content] = {storage.MAPS: lambda file: np.savez_compressed(file, **arrays)}  # type: ignore[arg-type]
    flat = len(e.size) == 2 and (e.inputs is None or e.inputs.shape[1] in (1, 3))
    if e.images is not None or flat:
        pixels = e.images[0].photo if e.images else drawing.seen(e)
        content[storage.PHOTO] = storage.jpeg(render.shrunk(pixels, render.LONGEST))
    elif e.inputs is not None:
        ground = e.inputs[0].detach().float().cpu().numpy()
        content[storage.INPUT] = lambda file: np.savez_compressed(file, input=ground)
    return content


def read(folder: str | Path) -> dict[str, Any]:
    """The fields of an Explanation from a folder that `files` and `document` were written to."""
    folder = Path(folder)
    try:
        data = json.loads((folder / storage.RECORD).read_text("utf-8"))
        with open(folder / storage.MAPS, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            maps = {tuple(name.split("|")): torch.from_numpy(arrays[name])[None] for name in arrays.files}
        return fields_from(folder, data, maps)
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: no saved explanation here ({Path(error.filename).name} is missing).") from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{folder}: this saved explanation cannot be read ({error}); make it again.") from None


def fields_from(folder: Path, data: dict[str, Any], maps: dict[Any, torch.Tensor]) -> dict[str, Any]:
    blank = {(entry["target"], entry["layer"]) for entry in data["maps"] if "no_gradient" in entry["flags"]}
    layers = {name: LayerInfo(**{**info, "grid": tuple(info["grid"])}) for name, info in data["layers"].items()}
    return {
        "maps": maps,
        "target_results": tuple(map(TargetResult.from_dict, data["targets"])),
        "layer_info": layers,
        "has_gradient": {key: torch.tensor([False]) for key in blank},
        "size": tuple(data["size"]),
        "images": read_pictures(folder, data),
        "inputs": read_input(folder) if storage.INPUT in data["files"] else None,
        "suggested": data["suggested"],
        "single": True,
        "notes": tuple(data["notes"]),
        "top_classes": tuple((one["class"], one["name"], finite(one["probability"])) for one in data["top"]),
        "provenance": data["provenance"],
    }


def finite(value: float | None) -> float:
    return math.nan if value is None else value  # JSON has no such number


def read_input(folder: Path) -> torch.Tensor:
    with open(folder / storage.INPUT, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["input"])[None]


def read_pictures(folder: Path, data: dict[str, Any]) -> tuple[InputImage, ...] | None:
    if not (folder / storage.PHOTO).exists():
        return None
    with Image.open(folder / storage.PHOTO) as photo:
        pixels = np.array(photo.convert("RGB"))
    if data["view"] is None:  # a tensor was explained: what the network saw is all there is
        view = View.whole(data["size"])
    else:
        view = View(*(tuple(data["view"][name]) for name in ("photo", "inputs", "box")))
    return (InputImage(data["image"] or "tensor", pixels, view),)
