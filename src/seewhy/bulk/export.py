"""Rows as files that other programs read: NPZ, PNG, COCO masks, FiftyOne heatmaps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy import storage
from seewhy.bulk.bulk_run import CELLS, BulkRun, decode_layer_map, view_from_row
from seewhy.errors import UnknownName, UsageError
from seewhy.images.regions import largest_box
from seewhy.images.view import View
from seewhy.paths import safe_name
from seewhy.rendering.overlays import to_bytes

LARGEST = 100_000_000  # pixels of a mask


def export(
    run: BulkRun,
    out: Path,
    kind: str,
    *,
    method: str | None = None,
    target: str | None = None,
    layer: str | None = None,
    threshold: float = 0.5,
) -> int:
    """Write the maps of one method, question and layer into `out`, as one of `KINDS`; gives how many.

    "npz": `maps.npz` with `ids` (N,) and the signed `maps` (N, h, w). "png": the heat on the photo, 8 bits, in the photo's
    size, a file for each picture. "coco": `annotations.json` with a run-length mask of where the heat is at least `threshold`
    of its maximum, its box and area. "fiftyone": the PNGs, and `samples.json` with what `fiftyone.Heatmap` takes.
    Raises UsageError; UnknownName for another kind.
    """
    if kind not in KINDS:
        raise UnknownName("kind of export", kind, KINDS, hint=f"There are {', '.join(KINDS)}.")
    if not 0 < threshold <= 1:
        raise UsageError(f"--threshold {threshold}: give a share of the map's maximum, above 0 and at most 1.")
    columns = ["id", "path", "width", "height", "view", "input", "label", "predicted_name", "confidence", *CELLS]
    columns += ["target_class", "target_name", "probability"]
    rows = run.rows(*run.select(method, target, layer), columns)
    return KINDS[kind](run, out, ((row, decode_layer_map(row, run.store)) for row in rows), threshold)


Rows = Iterator[tuple[dict[str, Any], NDArray[np.float32]]]


def as_npz(run: BulkRun, out: Path, rows: Rows, threshold: float) -> int:
    ids, maps = [], []
    for row, found in rows:
        ids.append(row["id"])
        maps.append(found)
    if len({one.shape for one in maps}) > 1:
        raise UsageError("the maps are of several sizes, which one array cannot hold; take another kind: png.")
    storage.write_file(out / "maps.npz", lambda file: np.savez_compressed(file, ids=np.array(ids), maps=np.stack(maps)))
    return len(ids)


def as_png(run: BulkRun, out: Path, rows: Rows, threshold: float) -> int:
    return sum(1 for _ in png_files(out, rows))


def as_fiftyone(run: BulkRun, out: Path, rows: Rows, threshold: float) -> int:
    """`fo.Sample(filepath=...)` and `fo.Heatmap(map_path=..., range=[0, 255])`, which docs/bulk.md puts together."""
    samples = [
        {
            "filepath": row["path"],
            "heatmap": {"map_path": path.relative_to(out).as_posix(), "range": [0, 255]},
            "label": row["label"],
            "predicted": row["predicted_name"],
            "confidence": row["confidence"],
        }
        for row, path in png_files(out, rows)
    ]
    storage.write_file(out / "samples.json", json.dumps({"samples": samples}, indent=1, ensure_ascii=False).encode())
    return len(samples)


def png_files(out: Path, rows: Rows) -> Iterator[tuple[dict[str, Any], Path]]:
    """Each row with the file that its heat was written to: maps/ID.png, 8 bits, in the photo's size."""
    names: set[str] = set()
    for row, found in rows:
        path = Path(*map(safe_name, str(row["id"]).split("/")))
        path = path.with_name(path.name + ".png")
        while path.as_posix().casefold() in names:
            path = path.with_name(f"_{path.name}")
        names.add(path.as_posix().casefold())
        heat = to_bytes(heatmap_on_photo(row, found))
        yield row, storage.write_file(out / "maps" / path, storage.png(Image.fromarray(heat)))


def as_coco(run: BulkRun, out: Path, rows: Rows, threshold: float) -> int:
    """Images, categories (the target classes) and annotations in COCO's format, with uncompressed run lengths."""
    images, annotations = [], []
    categories: dict[int, str] = {}
    for number, (row, found) in enumerate(rows, 1):
        heat = heatmap_on_photo(row, found)
        mask = (heat >= threshold * heat.max()) & (heat > 0)  # as Explanation.mask
        images.append({"id": number, "file_name": row["id"], "width": row["width"], "height": row["height"]})
        box = largest_box(mask)
        if box is None:
            continue
        category = -1 if row["target_class"] is None else row["target_class"]
        categories[category] = row["target_name"]
        down, across = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        left, top = int(across[0]), int(down[0])
        annotations.append({
            "id": number, "image_id": number, "category_id": category, "iscrowd": 1, "area": int(mask.sum()),
            "bbox": [left, top, int(across[-1]) + 1 - left, int(down[-1]) + 1 - top],
            "segmentation": {"size": [row["height"], row["width"]], "counts": run_lengths(mask)},
            "score": row["probability"],
        })  # fmt: skip
    document = {
        "info": {
            "description": f"where {run.model['model']} sees its classes: heat of at least {threshold:g} of its maximum"
        },
        "images": images,
        "categories": [{"id": index, "name": name} for index, name in sorted(categories.items())],
        "annotations": annotations,
    }
    storage.write_file(out / "annotations.json", json.dumps(document, ensure_ascii=False).encode())
    return len(images)


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """A mask (H, W) as COCO's uncompressed run lengths: column by column, beginning with how many are not set.

    >>> run_lengths(np.array([[0, 1], [1, 1]], bool))
    [1, 3]
    """
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    return list(lengths) if lengths[-1] or len(lengths) == 1 else lengths[:-1]


def heatmap_on_photo(
    row: Mapping[str, Any], found: NDArray[np.float32], size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """The heat of a map on its photo (H0, W0), or on the photo drawn at `size`, in [0, 1]: as `Explanation.on_photo`."""
    view = view_from_row(row)
    height, width = size or view.photo_size
    if height * width > LARGEST:
        raise UsageError(f"{row['id']}: a photo of more than {LARGEST:,} pixels; take npz.")
    positive = np.nan_to_num(found).clip(min=0)
    top = View.identity(view.input_size).to_photo(positive, view.input_size).max()
    heat = view.to_photo(positive, (height, width))
    return np.clip(heat / top, 0, 1) if top > 0 else heat * 0


Writer = Callable[[BulkRun, Path, Rows, float], int]
KINDS: dict[str, Writer] = {"npz": as_npz, "png": as_png, "coco": as_coco, "fiftyone": as_fiftyone}
