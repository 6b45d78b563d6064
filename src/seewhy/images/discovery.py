"""Find image files in folders."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from PIL import Image

from seewhy import storage
from seewhy.errors import ImageError
from seewhy.images.files import FORMATS, READABLE, describe_error


def find_images(paths: Sequence[str]) -> list[str]:
    """Return the image files of `paths` in the given order; folders are searched recursively, sorted by name.

    In folders, only files with a known image suffix are returned. Hidden files and folders are
    skipped, and links to folders are not followed. Other paths are returned unchanged, including "-" and missing files,
    for which `load_image` reports the problem.

    Raises ImageError for a folder that has no images or cannot be listed.

    >>> find_images(["cat.jpg", "-"])
    ['cat.jpg', '-']
    """
    return [image for path in paths for image in (find_images_in_folder(path) if os.path.isdir(path) else [path])]


def find_images_in_folder(folder: str) -> list[str]:
    """Return all image files below `folder`; raise ImageError if there are none."""
    images = list(walk_images(folder, raise_listing_error))
    if not images:
        raise ImageError(folder, f"no images in this folder ({READABLE}, by file name)")
    return images


def walk_images(folder: str, on_error: Callable[[OSError], None]) -> Iterator[str]:
    """Yield the image files below `folder`, folder by folder, sorted; call `on_error` if a folder cannot be listed."""
    for parent, folders, files in os.walk(folder, onerror=on_error):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in image_suffixes():
                yield os.path.join(parent, name)


def split_regular(images: Sequence[str]) -> tuple[list[str], list[ImageError]]:
    """Return the regular files among `images`, and an error for each of the others: reading a pipe may block."""
    files: list[str] = []
    errors: list[ImageError] = []
    for image in images:
        if os.path.exists(image) and not os.path.isfile(image):
            errors.append(ImageError(image, "skipped: not a regular file but a pipe, a socket or a device"))
        else:
            files.append(image)
    return files, errors


def skip_outputs(images: list[str], folder: str, out: Path) -> list[str]:
    """Return the images found in `folder`, except those that earlier runs wrote below the output folder `out`.

    Raises ImageError if there are no others.
    """
    home = Path(os.path.realpath(out))
    if not home.is_relative_to(os.path.realpath(folder)):
        return images
    recorded_files = functools.cache(storage.read_recorded_files)

    def is_output(image: str) -> bool:
        path = Path(os.path.realpath(image))
        above = (parent for parent in path.parents if parent.is_relative_to(home))
        return any(path.relative_to(parent).as_posix() in recorded_files(parent) for parent in above)

    others = [image for image in images if not is_output(image)]
    if images and not others:
        raise ImageError(folder, "contains only images that earlier runs of seewhy wrote")
    return others


def raise_listing_error(error: OSError) -> NoReturn:
    raise ImageError(str(error.filename), f"cannot list this folder: {describe_error(error)}") from error


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the file suffixes of all supported formats, in lower case with the dot."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
