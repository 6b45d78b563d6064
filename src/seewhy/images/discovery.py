"""Find image files in folders."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn

from PIL import Image

from seewhy import storage
from seewhy.errors import ImageError
from seewhy.images.files import FORMATS, READABLE, describe_error
from seewhy.storage.paths import path_text

OUTPUT_NAMES = ("overlay.jpg", "sheet.jpg", "features.jpg", "photo.jpg")
OUTPUT_FOLDERS = {"overlays", "sheets", "maps"}


def listing_error(error: OSError) -> ImageError:
    return ImageError(os.fsdecode(error.filename), f"cannot list this folder: {describe_error(error)}")


def raise_listing_error(error: OSError) -> NoReturn:
    raise listing_error(error) from error


def ignore(_: object) -> None:
    """Do nothing: the default for callbacks."""


def find_images(
    paths: Sequence[str],
    on_error: Callable[[OSError], None] = raise_listing_error,
    on_output: Callable[[str], None] = ignore,
) -> list[str]:
    """Return the image files of `paths` in the given order; folders are searched recursively, sorted by name.

    In folders, only files with a known image suffix are returned. Hidden files and folders are
    skipped, and links to folders are not followed. `on_error` receives the error of a folder that cannot be listed,
    `on_output` each image that is skipped because seewhy wrote it. Other paths are returned unchanged, including "-" and
    missing files, for which `load_image` reports the problem.

    Raises ImageError for a folder that has no images.

    >>> find_images(["cat.jpg", "-"])
    ['cat.jpg', '-']
    """
    images: list[str] = []
    for path in paths:
        images += find_images_in_folder(path, on_error, on_output) if os.path.isdir(path) else [path]
    return images


def find_images_in_folder(
    folder: str, on_error: Callable[[OSError], None], on_output: Callable[[str], None]
) -> list[str]:
    """Return all image files below `folder`; raise ImageError if there are none."""
    outputs: list[str] = []
    errors: list[OSError] = []
    images = list(walk_images(folder, errors.append, outputs.append))
    for error in errors:
        on_error(error)
    if not images and not errors:
        reason = f"no images in this folder ({READABLE}, by file name)"
        raise ImageError(folder, "contains only images that seewhy wrote" if outputs else reason)
    for output in outputs:
        on_output(output)
    return images


def walk_images(
    folder: str, on_error: Callable[[OSError], None], on_output: Callable[[str], None] = ignore
) -> Iterator[str]:
    """Yield the image files below `folder`, folder by folder, sorted.

    `on_error` is called if a folder cannot be listed, `on_output` for each image that is skipped because seewhy wrote it.
    """
    folders = [(folder, False)]
    while folders:  # not os.walk, which is recursive before Python 3.12
        parent, has_outputs = folders.pop()
        try:
            names, subfolders = list_folder(parent)
        except OSError as error:
            error.filename = error.filename or parent
            on_error(error)
            continue
        outputs = find_outputs(parent, names, has_outputs)
        for name in names:
            path = os.path.join(parent, name)
            if name in outputs:
                on_output(path)
            else:
                yield path
        folders += [
            (os.path.join(parent, name), has_outputs or name in OUTPUT_FOLDERS) for name in reversed(subfolders)
        ]


def list_folder(folder: str, *, with_links: bool = False) -> tuple[list[str], list[str]]:
    """Return the names of the images and of the folders in a folder, without hidden ones and, by default, links to folders."""
    names, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                folders += [entry.name] if with_links or not entry.is_symlink() else []
            elif os.path.splitext(entry.name)[1].lower() in image_suffixes():
                names.append(entry.name)
    return sorted(names), sorted(folders)


def is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def find_outputs(folder: str, names: Sequence[str], has_outputs: bool) -> set[str]:
    """Return which of the images `names` in `folder` seewhy wrote.

    Opening each image of a dataset would take long, so only the first image of a folder, and those with names of outputs, are
    opened. If one of them has the mark, or with `has_outputs`, all are.
    """
    names = [name for name in names if name.lower().endswith(storage.MARKED_SUFFIXES)]

    def marked(some: Iterable[str]) -> set[str]:
        return {name for name in some if storage.has_mark(os.path.join(folder, name))}

    likely = names[:1] + [name for name in names[1:] if name in OUTPUT_NAMES]
    return marked(names) if has_outputs or marked(likely) else set()


def describe_outputs(outputs: Sequence[str]) -> str:
    """Return a note about images that a search skipped.

    >>> describe_outputs(["cam/a.jpg", "cam/b.jpg"])
    'skipped 2 images that seewhy wrote (cam/a.jpg, ...)'
    """
    count = "1 image" if len(outputs) == 1 else f"{len(outputs):,} images"
    more = ", ..." if len(outputs) > 1 else ""
    return f"skipped {count} that seewhy wrote ({path_text(outputs[0])}{more})"


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


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the file suffixes of all supported formats, in lower case with the dot."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
