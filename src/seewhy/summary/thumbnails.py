"""Thumbnails for the summary page: overlays, mean maps and contrasts."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from seewhy import storage
from seewhy.bulk.export import heatmap_on_photo
from seewhy.bulk.row_values import view_from_row
from seewhy.bulk.tars import MAX_MEMBER, is_tar
from seewhy.errors import ImageError
from seewhy.images.loading import MAX_PIXELS, check_image_header, load_image
from seewhy.images.types import ImageArray
from seewhy.rendering.overlays import OverlayStyle, colorize, draw_overlay, scale_photo, to_bytes
from seewhy.storage.paths import path_text
from seewhy.summary.map_table import MapTable
from seewhy.tensors import map_functions
from seewhy.viewer import jpeg_data_url

SIDE = 150  # pixels of a thumbnail's longer side
MAX_PATH = 2**14  # characters
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
        self.missing = 0  # photos that no longer exist, or have other content

    def add(self, rows: Iterable[int], limit: int) -> list[int]:
        """Add at most `limit` images and return their numbers."""
        return [self.numbers.setdefault(int(row), len(self.numbers)) for row in list(rows)[:limit]]

    def render(self) -> list[dict[str, Any]]:
        """Return the entries of all added images, by number: id, data URL and lines of text."""
        photos = read_photos({row: photo_file(self.table, row) for row in self.numbers})
        entries = {row: self.render_entry(row, photo) for row, photo in photos}
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
    """Describe one image: its prediction, its label, the target of its map, its statistics, and the verdict of the check."""
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
    if row.get("check") is not None:
        detail = row["check_reason"] if row["check_r"] is None else f"r = {row['check_r']:.2f}"
        lines.append(f"check: {row['check']} ({detail})")
    return lines


class PhotoFile(NamedTuple):
    """The file of a photo, as a run recorded it. A file with other content is not shown."""

    path: str
    size: int
    sha256: str


def photo_file(table: MapTable, row: int) -> PhotoFile:
    return PhotoFile(*(table.columns[name][row] for name in ("path", "bytes", "sha256")))


def read_photos(files: Mapping[Key, PhotoFile]) -> Iterator[tuple[Key, ImageArray | None]]:
    """Yield these photos, in any order; None if a photo no longer exists. A tar file is read only once."""
    members: dict[str, dict[str, list[Key]]] = {}
    for key, file in files.items():
        tar, member = split_tar_path(file.path)
        if tar:
            members.setdefault(tar, {}).setdefault(member, []).append(key)
        else:
            yield key, read_photo(file)
    for tar, keys in members.items():
        for member, content in read_tar_members(tar, keys):
            yield from ((key, decode_photo(content, files[key])) for key in keys[member])


def split_tar_path(path: str) -> tuple[str, str]:
    """Return the tar file and the member name ("./a.png" is not normalized) of a path into a tar file, else ("", "")."""
    if len(path) > MAX_PATH:
        return "", ""
    ends = [position for position, character in enumerate(path) if character in "/\\"]
    splits = ((path[:end], path[end + 1 :]) for end in ends)
    return next(((tar, member) for tar, member in splits if is_tar(tar) and os.path.isfile(tar)), ("", ""))


def read_tar_members(path: str, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the content of the members with these names in one pass over a tar file; empty if it does not contain them."""
    remaining = dict.fromkeys(names)
    # zlib.error and lzma.LZMAError: a compressed file that is damaged; the others: a header that is
    damage = (OSError, EOFError, ValueError, OverflowError, tarfile.TarError, zlib.error, lzma.LZMAError)
    with suppress(*damage), tarfile.open(path) as tar:
        for member in tar:
            name = path_text(member.name)
            if name in remaining and member.isfile():
                content = tar.extractfile(member)
                data = b"" if content is None else content.read(MAX_MEMBER)
                del remaining[name]
                yield name, data
            if not remaining:
                return
    yield from ((name, b"") for name in remaining)


def read_photo(file: PhotoFile) -> ImageArray | None:
    """Read a photo. Only the file that was explained is read: the path of a run could name any file."""
    try:
        with storage.open_regular(Path(file.path)) as content:
            if os.fstat(content.fileno()).st_size != file.size or file.size > MAX_MEMBER:
                return None
            return decode_photo(content.read(file.size), file)
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return None


def decode_photo(content: bytes, file: PhotoFile) -> ImageArray | None:
    if hashlib.sha256(content).hexdigest() != file.sha256:
        return None
    try:
        check_image_header(content, MAX_PIXELS, file.path)
        return load_image(content)
    except ImageError:
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
    resized: Float32Array = map_functions.resize(torch.from_numpy(values)[None], shape)[0].numpy()
    return resized


def map_data_url(image: Image.Image) -> str:
    """Encode a drawn map. Quality 90 hides JPEG blocks and needs a third of the size of a PNG."""
    return jpeg_data_url(storage.encode_jpeg(image, quality=90))
