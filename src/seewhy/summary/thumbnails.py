"""Thumbnails for the summary page: overlays, mean maps and contrasts."""

from __future__ import annotations

import tarfile
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from seewhy import storage, tensors
from seewhy.bulk.export import heatmap_on_photo
from seewhy.bulk.row_values import view_from_row
from seewhy.bulk.tars import MAX_MEMBER, is_tar
from seewhy.errors import ImageError
from seewhy.images.loading import load_image
from seewhy.images.types import ImageArray
from seewhy.paths import path_text
from seewhy.rendering.overlays import OverlayStyle, colorize, draw_overlay, scale_photo, to_bytes
from seewhy.summary.map_table import MapTable
from seewhy.viewer import jpeg_data_url

SIDE = 150  # pixels of a thumbnail's longer side
MEAN_SIDE = 84  # pixels of a mean map's longer side
STYLE = OverlayStyle()
# Evidence against and for: blue and orange, which are distinguishable with red-green color blindness
NEGATIVE, ZERO, POSITIVE = (43, 108, 196), (244, 243, 240), (214, 96, 18)

Key = TypeVar("Key", bound=Hashable)
Float32Array = NDArray[np.float32]


class Thumbnails:
    """The thumbnails of a page, referenced by number. An image that several places show is rendered once."""

    def __init__(self, table: MapTable) -> None:
        self.table = table
        self.numbers: dict[int, int] = {}
        self.missing = 0  # photos that no longer exist

    def add(self, rows: Iterable[int], limit: int) -> list[int]:
        """Add at most `limit` images and return their numbers."""
        return [self.numbers.setdefault(int(row), len(self.numbers)) for row in list(rows)[:limit]]

    def render(self) -> list[dict[str, Any]]:
        """Return the entries of all added images, by number: id, data URL and lines of text."""
        paths = {row: self.table.columns["path"][row] for row in self.numbers}
        entries = {row: self.render_entry(row, photo) for row, photo in read_photos(paths)}
        return [entries[row] for row in self.numbers]

    def render_entry(self, row: int, photo: ImageArray | None) -> dict[str, Any]:
        self.missing += photo is None
        thumbnail = draw_thumbnail(self.table.row(row), photo, self.table.maps[row])
        return {
            "id": self.table.columns["id"][row],
            "thumbnail": jpeg_data_url(storage.encode_jpeg(thumbnail, quality=78)),
            "lines": describe_image(self.table, row),
        }


def describe_image(table: MapTable, index: int) -> list[str]:
    """Describe one image: its prediction, its label, the target of its map, and its statistics."""
    row = table.row(index)
    lines = []
    if row["predicted_name"] is not None:
        confidence = "" if row["confidence"] is None else f", {row['confidence']:.0%}"
        lines.append(f"predicted: {row['predicted_name']}{confidence}")
    if row["label"] is not None:
        name = row["label"] if row["label_class"] is None else table.class_name(row["label_class"])
        lines.append(f"label: {name}" if name == row["label"] else f"label: {name} ({row['label']})")
    if row["target_class"] != row["predicted"]:
        lines.append(f"map of: {row['target_name']}")
    known = [(name, table.statistics[name][index]) for name in ("border", "corner", "spread", "inside")]
    lines.append(", ".join(f"{name} {value:.2f}" for name, value in known if not np.isnan(value)))
    return lines


def read_photos(paths: Mapping[Key, str]) -> Iterator[tuple[Key, ImageArray | None]]:
    """Yield the photos at these paths, in any order; None if a photo no longer exists. A tar file is read only once."""
    members: dict[str, dict[str, list[Key]]] = {}
    for key, path in paths.items():
        tar, member = split_tar_path(path)
        if tar:
            members.setdefault(tar, {}).setdefault(member, []).append(key)
        else:
            yield key, read_photo(path)
    for tar, keys in members.items():
        for member, photo in read_tar_photos(tar, keys):
            yield from ((key, photo) for key in keys[member])


def split_tar_path(path: str) -> tuple[str, str]:
    """Return the tar file and the member name ("./a.png" is not normalized) of a path into a tar file, else ("", "")."""
    ends = [position for position, character in enumerate(path) if character in "/\\"]
    splits = ((path[:end], path[end + 1 :]) for end in ends)
    return next(((tar, member) for tar, member in splits if is_tar(tar) and Path(tar).is_file()), ("", ""))


def read_tar_photos(path: str, names: Iterable[str]) -> Iterator[tuple[str, ImageArray | None]]:
    """Yield the images with these names in one pass over a tar file; None for names that it does not contain."""
    remaining = dict.fromkeys(names)
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = path_text(member.name)
                if name in remaining and member.isfile():
                    del remaining[name]
                    content = tar.extractfile(member)
                    yield name, None if content is None else read_photo(content.read(MAX_MEMBER))
                if not remaining:
                    return
    except (OSError, EOFError, tarfile.TarError):
        pass
    yield from ((name, None) for name in remaining)


def read_photo(source: str | bytes) -> ImageArray | None:
    try:
        return load_image(source) if isinstance(source, bytes) or Path(source).is_file() else None
    except (ImageError, OSError):
        return None


def draw_thumbnail(row: Mapping[str, Any], photo: ImageArray | None, signed_map: Float32Array) -> Image.Image:
    """Draw the overlay of a map on its photo. Without the photo, draw the heatmap alone, in the shape of the input."""
    view = view_from_row(row)
    if photo is None or photo.shape[:2] != view.photo_size:  # the file was deleted or replaced
        return draw_heatmap(np.nan_to_num(signed_map).clip(min=0), view.input_size, SIDE)
    image, visible = scale_photo(photo, view, SIDE)
    return draw_overlay(image, heatmap_on_photo(row, signed_map, (image.height, image.width)), STYLE, visible)


def draw_heatmap(values: NDArray[np.floating[Any]], size: Sequence[int], side: int = MEAN_SIDE) -> Image.Image:
    """Draw a non-negative map (h, w) in the shape of the input `size`, divided by its maximum."""
    large = resize(np.asarray(values, np.float32), size, side)
    maximum = large.max()
    return colorize(to_bytes(large / maximum if maximum > 0 else large), STYLE.colors)


def draw_contrast(values: Float32Array, size: Sequence[int], side: int = MEAN_SIDE) -> Image.Image:
    """Draw a signed map (h, w), divided by its largest absolute value: orange is positive, blue negative."""
    large = resize(np.asarray(values, np.float32), size, side)
    maximum = np.abs(large).max()
    levels = (large / maximum if maximum > 0 else large)[:, :, None]
    ends = np.where(levels > 0, np.array(POSITIVE, np.float32), np.array(NEGATIVE, np.float32))
    mixed = np.array(ZERO, np.float32) * (1 - np.abs(levels)) + ends * np.abs(levels)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def resize(values: Float32Array, size: Sequence[int], side: int) -> Float32Array:
    scale = side / max(size)
    shape = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    resized: Float32Array = tensors.resize(torch.from_numpy(values)[None], shape)[0].numpy()
    return resized


def map_data_url(image: Image.Image) -> str:
    """Encode a drawn map. Quality 90 hides JPEG blocks and needs a third of the size of a PNG."""
    return jpeg_data_url(storage.encode_jpeg(image, quality=90))
