"""From folders to picture files."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from PIL import Image

from seewhy.errors import ImageError
from seewhy.images.loading import FORMATS, READABLE, describe_error


def find_images(paths: Sequence[str]) -> list[str]:
    """The picture files that `paths` stand for, in the order given; folders are searched to the bottom, sorted by name.

    In a folder only known picture suffixes count; hidden files and folders are skipped and linked folders not entered.
    Whatever is not a folder, "-" and missing files included, is passed on: `load_image` reports what is wrong with it.

    Raises ImageError for a folder that holds no picture or cannot be listed.

    >>> find_images(["cat.jpg", "-"])
    ['cat.jpg', '-']
    """
    return [picture for path in paths for picture in (in_folder(path) if os.path.isdir(path) else [path])]


def in_folder(folder: str) -> list[str]:
    """Every picture file below `folder`; ImageError when there is none."""
    found = list(walk_images(folder, refuse_folder))
    if not found:
        raise ImageError(folder, f"no pictures in this folder ({READABLE}, by file name)")
    return found


def walk_images(folder: str, onerror: Callable[[OSError], None]) -> Iterator[str]:
    """The picture files below `folder`, folder by folder, sorted; `onerror` hears of a folder that cannot be listed."""
    for parent, folders, files in os.walk(folder, onerror=onerror):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = (name for name in sorted(files) if not name.startswith("."))
        yield from (
            os.path.join(parent, name) for name in shown if os.path.splitext(name)[1].lower() in image_suffixes()
        )


def refuse_folder(error: OSError) -> NoReturn:
    raise ImageError(str(error.filename), f"cannot list this folder: {describe_error(error)}") from error


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The file name endings of the formats read, in lower case with their dot."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
