"""Export the maps of a run as files for other programs: NPZ, PNG, COCO masks, FiftyOne heatmaps."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy import storage
from seewhy.bulk.bulk_run import BulkRun, source_paths
from seewhy.bulk.row_values import MAP_COLUMNS, Row, decode_layer_map, view_from_row
from seewhy.errors import OptionError, UnknownName, UsageError
from seewhy.images.view import View
from seewhy.rendering.overlays import to_bytes
from seewhy.storage.paths import check_folders, check_overwrite, safe_name

MAX_PIXELS = 100_000_000  # of an exported heatmap
NPZ, COCO, FIFTYONE, HEATMAPS = "maps.npz", "annotations.json", "samples.json", "maps"
MAX_NAME = 1024  # characters of an id that is used as a path
HEATMAP_KINDS = ("png", "fiftyone")  # write a file per image
COLUMNS = (
    "id", "path", "width", "height", "view", "input", "label", "predicted_name", "confidence", "target_class", "target_name",
    "probability", *MAP_COLUMNS,
)  # fmt: skip
Maps = Iterator[tuple[Row, NDArray[np.float32]]]  # rows, each with its signed map (h, w)


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
    """Write the maps of one method, target and layer into `out`. Return the number of images.

    `kind` is one of `KINDS`. "npz": `maps.npz` with `ids` (N,) and the signed `maps` (N, h, w). "png": one 8-bit heatmap per
    image, at the size of the photo. "coco": `annotations.json` with a mask of where the heatmap is at least `threshold` times
    its maximum, as run lengths, and its box and area. "fiftyone": the PNGs, and `samples.json` with the fields of
    `fiftyone.Heatmap`.

    Raises UsageError, or UnknownName for another kind.
    """
    if kind not in KINDS:
        raise UnknownName("kind of export", kind, KINDS, hint=f"There are {', '.join(KINDS)}.")
    if not 0 < threshold <= 1:
        raise OptionError("threshold", threshold, "give a fraction of the maximum, above 0 and at most 1.")
    selection = run.select(method, target, layer)
    outputs = output_files(run, out, kind, selection)
    check_folders([out / HEATMAPS if kind in HEATMAP_KINDS else out])
    check_overwrite([out, *outputs], source_paths(run))
    for path in outputs:
        storage.check_own(path)
    rows = run.rows(*selection, COLUMNS)
    return KINDS[kind](run, out, ((row, decode_layer_map(row, run.store)) for row in rows), threshold)


def output_files(run: BulkRun, out: Path, kind: str, selection: tuple[str, str, str]) -> list[Path]:
    """Return the paths that an export may write.

    Before a file per image is written, all rows are read once: a damaged part must not leave half of an export.
    """
    names = Names()
    rows = run.rows(*selection, COLUMNS) if kind in HEATMAP_KINDS else ()
    document = {"npz": [NPZ], "coco": [COCO], "fiftyone": [FIFTYONE]}.get(kind, [])
    paths = [out / name for name in document]
    for row in rows:
        check_photo_size(row, view_from_row(row).photo_size)
        paths.append(out / HEATMAPS / names.png(str(row["id"])))
    return paths


def write_npz(run: BulkRun, out: Path, maps: Maps, threshold: float) -> int:
    ids, arrays = [], []
    for row, signed in maps:
        ids.append(row["id"])
        arrays.append(signed)
    if len({array.shape for array in arrays}) > 1:
        raise UsageError("the maps have different sizes, so they do not fit into one array. Export them as png.")
    storage.write_file(out / NPZ, storage.encode_npz({"ids": np.array(ids), "maps": np.stack(arrays)}))
    return len(ids)


def write_png(run: BulkRun, out: Path, maps: Maps, threshold: float) -> int:
    return sum(1 for _ in write_heatmaps(out, maps))


def write_fiftyone(run: BulkRun, out: Path, maps: Maps, threshold: float) -> int:
    """Write PNGs and the arguments of `fiftyone.Sample` and `fiftyone.Heatmap`; docs/bulk.md shows how to load them."""
    samples = [
        {
            "filepath": row["path"],
            "heatmap": {"map_path": path.relative_to(out).as_posix(), "range": [0, 255]},
            "label": row["label"],
            "predicted": row["predicted_name"],
            "confidence": number_or_none(row["confidence"]),
        }
        for row, path in write_heatmaps(out, maps)
    ]
    storage.write_file(out / FIFTYONE, storage.encode_marked_json({"samples": samples}))
    return len(samples)


def write_heatmaps(out: Path, maps: Maps) -> Iterator[tuple[Row, Path]]:
    """Write maps/ID.png for each row (8 bits, at the size of the photo), and yield the row with the file."""
    names = Names()
    for row, signed in maps:
        path = out / HEATMAPS / names.png(str(row["id"]))
        pixels = to_bytes(heatmap_on_photo(row, signed))
        yield row, storage.write_file(path, storage.encode_png(Image.fromarray(pixels)), root=out)


class Names:
    """The files of images, of which no two have the same name, also on file systems that ignore case."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.counts: Counter[str] = Counter()

    def png(self, name: str) -> Path:
        """Return the file of the image with the id `name`; repeated names get "_2", "_3", ..."""
        first = path = Path(*map(safe_name, name.split("/"))) if len(name) <= MAX_NAME else Path(long_name(name))
        while (key := path.as_posix().casefold()) in self.used:
            self.counts[str(first)] += 1
            path = first.with_name(f"{first.name}_{self.counts[str(first)] + 1}")
        self.used.add(key)
        return path.with_name(f"{path.name}.png")


def long_name(name: str) -> str:
    """Return a short name for an id that is too long for a path."""
    return f"{safe_name(name[-60:])}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def write_coco(run: BulkRun, out: Path, maps: Maps, threshold: float) -> int:
    """Write images, categories (the target classes) and annotations in COCO's format, with uncompressed run lengths."""
    images, annotations = [], []
    categories: dict[int, str] = {}
    for number, (row, signed) in enumerate(maps, 1):
        heatmap = heatmap_on_photo(row, signed)
        mask = (heatmap >= threshold * heatmap.max()) & (heatmap > 0)  # as in Explanation.mask
        images.append({"id": number, "file_name": row["id"], "width": row["width"], "height": row["height"]})
        if not mask.any():
            continue
        category = -1 if row["target_class"] is None else row["target_class"]
        categories[category] = row["target_name"]
        annotations.append({"id": number, "image_id": number, "category_id": category, **coco_mask(row, mask)})
    model = run.model["model"]
    document = {
        "info": {"description": f"{model}: where the heatmap is at least {threshold:g} of its maximum"},
        "images": images,
        "categories": [{"id": index, "name": name} for index, name in sorted(categories.items())],
        "annotations": annotations,
    }
    storage.write_file(out / COCO, storage.encode_marked_json(document, indent=None))
    return len(images)


def coco_mask(row: Row, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the fields of an annotation that describe its mask."""
    down, across = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    left, top = int(across[0]), int(down[0])
    return {
        "iscrowd": 1, "area": int(mask.sum()), "bbox": [left, top, int(across[-1]) + 1 - left, int(down[-1]) + 1 - top],
        "segmentation": {"size": [row["height"], row["width"]], "counts": run_lengths(mask)},
        "score": number_or_none(row["probability"]),
    }  # fmt: skip


def number_or_none(value: float | None) -> float | None:
    return None if value is None else storage.finite_or_none(value)


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Return a mask (H, W) as COCO's uncompressed run lengths: column by column, starting with the number of zeros.

    >>> run_lengths(np.array([[0, 1], [1, 1]], bool))
    [1, 3]
    """
    # Not pycocotools: its `encode` returns compressed strings only, which change the file and need pycocotools to decode.
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    return list(lengths) if lengths[-1] or len(lengths) == 1 else lengths[:-1]


def heatmap_on_photo(
    row: Mapping[str, Any], signed: NDArray[np.float32], size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Return the heatmap of a map on its photo (H0, W0), or resized to `size`, in [0, 1]. See `Explanation.on_photo`."""
    view = view_from_row(row)
    height, width = size or view.photo_size
    check_photo_size(row, (height, width))
    positive = np.nan_to_num(signed).clip(min=0)
    maximum = View.identity(view.input_size).to_photo(positive, view.input_size).max()
    heatmap = view.to_photo(positive, (height, width))
    return np.clip(heatmap / maximum, 0, 1) if maximum > 0 else heatmap * 0


def check_photo_size(row: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Raise UsageError if a heatmap at this size would be too large."""
    if size[0] * size[1] > MAX_PIXELS:
        raise UsageError(f"{row['id']}: the photo has more than {MAX_PIXELS:,} pixels. Export the maps as npz.")


Writer = Callable[[BulkRun, Path, Maps, float], int]
KINDS: dict[str, Writer] = {"npz": write_npz, "png": write_png, "coco": write_coco, "fiftyone": write_fiftyone}
