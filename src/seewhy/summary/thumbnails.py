"""Small pictures for the page of a run: photos with their heat, mean maps, contrasts."""

from __future__ import annotations

import tarfile
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from seewhy import storage, tensors
from seewhy.bulk.bulk_run import view_from_row
from seewhy.bulk.dataset import path_text
from seewhy.bulk.export import heatmap_on_photo
from seewhy.bulk.tars import is_tar
from seewhy.errors import ImageError
from seewhy.images.loading import load_image
from seewhy.images.types import ImageArray
from seewhy.rendering.overlays import OverlayStyle, colorize, draw_overlay, scale_photo, to_bytes
from seewhy.summary.answers import Answers
from seewhy.viewer import jpeg_data_url

SIDE = 150  # pixels of a thumbnail's longer side
MEAN = 84  # and of a mean map's
LOOK = OverlayStyle()
# What speaks against, what speaks for: colours that differ also to those who see red and green alike.
AGAINST, NOTHING, FOR = (43, 108, 196), (244, 243, 240), (214, 96, 18)

Key = TypeVar("Key", bound=Hashable)


class Thumbnails:
    """Pictures of the page by number; one that several places show is made once."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.numbers: dict[int, int] = {}
        self.missing = 0  # photos that are no longer where they were

    def of(self, members: Any, most: int) -> list[int]:
        """The numbers of at most so many of these pictures."""
        return [self.numbers.setdefault(int(at), len(self.numbers)) for at in list(members)[:most]]

    def made(self) -> list[dict[str, Any]]:
        """Every picture that was asked for: id, picture address, and what is known of it in words."""
        paths = {at: self.answers.columns["path"][at] for at in self.numbers}
        found = {at: self.one(at, photo) for at, photo in photos(paths)}
        return [found[at] for at in self.numbers]

    def one(self, at: int, photo: ImageArray | None) -> dict[str, Any]:
        row = {name: values[at] for name, values in self.answers.columns.items()}
        self.missing += photo is None
        picture = with_heat(row, photo, self.answers.maps[at])
        return {
            "id": row["id"],
            "thumbnail": jpeg_data_url(storage.encode_jpeg(picture, quality=78)),
            "lines": lines(self.answers, at),
        }


def lines(answers: Answers, at: int) -> list[str]:
    """What is known of one picture, for people."""
    row = {name: values[at] for name, values in answers.columns.items()}
    found = []
    if row["predicted_name"] is not None:
        sure = "" if row["confidence"] is None else f", {row['confidence']:.0%}"
        found.append(f"predicted {row['predicted_name']}{sure}")
    if row["label"] is not None:
        index = row["label_class"]
        name = row["label"] if index is None else answers.name_of(index)
        found.append(f"labelled {name}" if name == row["label"] else f"labelled {name} ({row['label']})")
    if row["target_class"] != row["predicted"]:
        found.append(f"the map is of {row['target_name']}")
    known = [(name, answers.numbers[name][at]) for name in ("border", "corner", "spread", "inside")]
    found.append(", ".join(f"{name} {value:.2f}" for name, value in known if not np.isnan(value)))
    return found


def photos(paths: Mapping[Key, str]) -> Iterator[tuple[Key, ImageArray | None]]:
    """The photos at paths, one at a time and in any order; None where it is not there any more. A tar file is read once."""
    packed: dict[str, dict[str, list[Key]]] = {}
    for key, path in paths.items():
        tar, member = in_tar(path)
        if tar:
            packed.setdefault(tar, {}).setdefault(member, []).append(key)
        else:
            yield key, read_photo(path)
    for tar, wanted in packed.items():
        for member, photo in unpacked_photos(tar, wanted):
            yield from ((key, photo) for key in wanted[member])


def in_tar(path: str) -> tuple[str, str]:
    """The tar file that a path leads into, and the name of the member as it stands there ("./a.png"); "" for other paths."""
    ends = [at for at, letter in enumerate(path) if letter in "/\\"]
    return next(
        ((path[:at], path[at + 1 :]) for at in ends if is_tar(path[:at]) and Path(path[:at]).is_file()), ("", "")
    )


def unpacked_photos(path: str, wanted: Iterable[str]) -> Iterator[tuple[str, ImageArray | None]]:
    """The pictures of these names in a tar file, read from front to back; None for what is not there."""
    left = dict.fromkeys(wanted)
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = path_text(member.name)
                if name in left and member.isfile():
                    del left[name]
                    content = tar.extractfile(member)
                    yield name, None if content is None else read_photo(content.read())
                if not left:
                    return
    except (OSError, EOFError, tarfile.TarError):
        pass
    yield from ((name, None) for name in left)


def read_photo(source: str | bytes) -> ImageArray | None:
    try:
        return load_image(source) if isinstance(source, bytes) or Path(source).is_file() else None
    except (ImageError, OSError):
        return None


def with_heat(row: Mapping[str, Any], photo: ImageArray | None, found: NDArray[np.float32]) -> Image.Image:
    """A photo with its heat, small; without a photo the heat alone, as the network saw it."""
    view = view_from_row(row)
    if photo is None or photo.shape[:2] != view.photo_size:  # or another picture lies there now
        return heat_picture(np.nan_to_num(found).clip(min=0), view.input_size, SIDE)
    drawn, seen = scale_photo(photo, view, SIDE)
    return draw_overlay(drawn, heatmap_on_photo(row, found, (drawn.height, drawn.width)), LOOK, seen)


def heat_picture(heat: NDArray[np.floating[Any]], size: tuple[int, int], side: int = MEAN) -> Image.Image:
    """A map (h, w) in the shape of the input, in colours of shares of its maximum."""
    large = enlarged(np.asarray(heat, np.float32), size, side)
    top = large.max()
    return colorize(to_bytes(large / top if top > 0 else large), LOOK.colors)


def contrast_picture(values: NDArray[np.float32], size: tuple[int, int], side: int = MEAN) -> Image.Image:
    """A signed map (h, w): orange is for, blue against, in shares of the largest absolute value."""
    large = enlarged(np.asarray(values, np.float32), size, side)
    top = np.abs(large).max()
    part = (large / top if top > 0 else large)[:, :, None]
    ends = np.where(part > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    mixed = np.array(NOTHING, np.float32) * (1 - np.abs(part)) + ends * np.abs(part)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def enlarged(values: NDArray[np.float32], size: tuple[int, int], side: int) -> NDArray[np.float32]:
    scale = side / max(size)
    shape = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    made: NDArray[np.float32] = tensors.resize(torch.from_numpy(values)[None], shape)[0].numpy()
    return made


def address(picture: Image.Image) -> str:
    """A small picture of few colours as a data address; JPEG's blocks would show in it, but it is a third of a PNG."""
    return jpeg_data_url(storage.encode_jpeg(picture, quality=90))
