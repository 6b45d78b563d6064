"""Build a dataset from the inputs of a command: folders, lists, tables, tar files, single images."""

from __future__ import annotations

import glob
import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from seewhy.bulk.dataset import Dataset, Item, ListDataset, with_unique_ids
from seewhy.bulk.manifest import TABLES, read_table
from seewhy.bulk.tars import TarDataset, expand_braces, is_tar
from seewhy.errors import UsageError
from seewhy.images.discovery import describe_outputs, list_folder, walk_images
from seewhy.images.files import READABLE, describe_error, similar_file
from seewhy.storage import open_regular
from seewhy.storage.paths import path_text

LISTS = (".txt", ".lst")
MAX_LINE = 2**16  # bytes


def find_dataset(inputs: Sequence[str], part_size: int) -> Dataset:
    """Return the images of `inputs` in parts of `part_size`.

    Each input is a folder (searched recursively; if every image is in a subfolder, the names of the first-level subfolders are
    labels), a list (.txt: one path per line, relative to the list), a table (.csv, .tsv, .parquet: see `read_table`), an image,
    or tar files (WebDataset: a file, a folder of them, "train-{000..146}.tar", "*.tar"). Tar files cannot be combined with
    other inputs.

    Raises UsageError if there is nothing to explain.
    """
    paths = [path for text in inputs for path in expand(text)]
    if not paths:
        raise UsageError("no input. Give a folder, a list, a table or tar files: seewhy bulk photos/ --out run")
    tars = [tar for path in paths for tar in tars_in(path)]
    if tars:
        if others := [path for path in paths if not tars_in(path)]:
            raise UsageError(f"tar files cannot be combined with other inputs ({others[0]}). Use one job for each.")
        if missing := [tar for tar in tars if not os.path.exists(tar)]:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UsageError(f"{missing[0]}: no such file{more}.")
        return TarDataset([os.path.abspath(tar) for tar in tars])
    items: list[Item] = []
    notes: list[str] = []
    for path in paths:
        more_items, more_notes = items_of(path)
        items += more_items
        notes += more_notes
    if not items:
        raise no_images(inputs)
    return ListDataset(with_unique_ids([with_absolute_paths(item) for item in items]), part_size, tuple(notes))


def check_inputs(inputs: Sequence[str]) -> None:
    """Raise UsageError for an input that does not exist, and for folders without images.

    Called before the model is loaded: it reads no list and no table, and stops at the first image of a folder.
    """
    paths = [path for text in inputs for path in expand(text)]
    for path in paths:
        if not os.path.lexists(path) and not is_tar(path):
            raise UsageError(f"{path}: no such file or folder{similar_file(path)}.")
    if paths and all(os.path.isdir(path) and is_empty_folder(path) for path in paths):
        raise no_images(inputs)


def is_empty_folder(folder: str) -> bool:
    """Return True if a folder contains neither images nor tar files, and every folder below it can be listed."""
    errors: list[OSError] = []
    return not tars_in(folder) and next(walk_images(folder, errors.append), None) is None and not errors


def no_images(inputs: Sequence[str]) -> UsageError:
    return UsageError(f"{', '.join(inputs)}: contains no images (recognized by file name: {READABLE}).")


def with_absolute_paths(item: Item) -> Item:
    """Return the item with absolute paths: other processes may have another current directory."""
    mask = item.mask and os.path.abspath(item.mask)
    return replace(item, path=item.path and os.path.abspath(item.path), mask=mask)


def expand(text: str) -> list[str]:
    """Return the paths of one argument: expand braces and wildcards, which not every shell does."""
    paths: list[str] = []
    for path in expand_braces(text):
        if not os.path.lexists(path) and glob.has_magic(path):
            paths += sorted(match_wildcards(path)) or [path]
        else:
            paths.append(path)
    return paths


def match_wildcards(pattern: str) -> list[str]:
    """Return the paths that match a pattern; "**" is any number of folders, without hidden ones.

    Links to folders are followed once: with `glob`, two links to a folder above them have 2**40 paths.
    """
    parts = re.split(r"[/\\]" if os.sep == "\\" else "/", pattern)
    if "**" not in parts:
        return glob.glob(pattern)
    place = parts.index("**")
    before, after = os.sep.join(parts[:place]), parts[place + 1 :]
    starts = glob.glob(before) if before else [os.sep if place else ""]
    if not after:
        return [start or "." for start in starts]
    folders = (folder for start in starts for folder in walk_folders(start))
    patterns = (os.path.join(glob.escape(folder), *after) for folder in folders)
    return list(dict.fromkeys(path for pattern in patterns for path in match_wildcards(pattern)))


def walk_folders(folder: str) -> Iterator[str]:
    """Yield a folder and all folders below it, without hidden ones. A folder that links reach several times is listed once."""
    folders = [folder]
    visited: set[str] = set()
    while folders:
        parent = folders.pop()
        real = os.path.realpath(parent or ".")
        if real in visited:
            continue
        visited.add(real)
        yield parent
        with suppress(OSError):
            folders += [os.path.join(parent, name) for name in list_folder(parent or ".", with_links=True)[1]]


def tars_in(path: str) -> list[str]:
    """Return the tar files of a path: itself, or those of a folder that contains no images."""
    if os.path.isdir(path):
        try:
            names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        except OSError:  # `items_in_folder` reports it
            return []
        tars = [os.path.join(path, name) for name in names if is_tar(name)]
        return tars if tars and next(walk_images(path, lambda error: None), None) is None else []
    return [path] if is_tar(path) else []


def items_of(path: str) -> tuple[list[Item], list[str]]:
    """Return the items of one path, and notes on inferred settings."""
    suffix = Path(path).suffix.lower()
    if os.path.isdir(path):
        return items_in_folder(path)
    if suffix in TABLES or suffix in LISTS:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device may never end
            raise UsageError(f"{path}: is a pipe, socket or device, not a regular file.")
        return read_table(path) if suffix in TABLES else (list(items_in_list(path)), [])
    if not os.path.lexists(path):
        raise UsageError(f"{path}: no such file or folder.")
    return [Item(path_text(path), path)], []


def items_in_folder(folder: str) -> tuple[list[Item], list[str]]:
    """Return the images below a folder, without those that seewhy wrote, and notes.

    A subfolder that cannot be listed becomes an item with an error.
    """
    unlistable: list[Item] = []
    outputs: list[str] = []

    def relative_name(path: str) -> str:
        return path_text(os.path.relpath(path, folder)).replace(os.sep, "/")

    def on_error(error: OSError) -> None:
        path = os.fsdecode(error.filename)
        unlistable.append(Item(relative_name(path), path, error=f"cannot list this folder: {describe_error(error)}"))

    names = [(relative_name(path), path) for path in walk_images(folder, on_error, outputs.append)]
    labelled = bool(names) and all("/" in name for name, _ in names)
    items = [
        Item(name, path, label=name.split("/")[0] if labelled else None, has_folder_label=labelled)
        for name, path in names
    ]
    notes = [f"labels: the folder names in {folder}"] if labelled else []
    notes += [describe_outputs(outputs)] if outputs else []
    return items + unlistable, notes


def items_in_list(path: str) -> Iterator[Item]:
    folder = os.path.dirname(path)
    for line in lines(path):
        name, label = (part.strip() for part in line.strip().partition("\t")[::2])
        if name and not name.startswith("#"):
            yield Item(path_text(name), os.path.join(folder, name), label=path_text(label) or None)


def lines(path: str) -> Iterator[str]:
    """Yield the lines of a text file. Raises UsageError if it cannot be read, or is not a list of paths."""
    try:
        with open_regular(path) as file:
            start = file.read(len(BOM_UTF8))
            file.seek(len(BOM_UTF8) if start == BOM_UTF8 else 0)
            while line := file.readline(MAX_LINE):
                if len(line) == MAX_LINE:
                    raise UsageError(
                        f"{path}: a line has more than {MAX_LINE:,} bytes. Give a text file with one path per line."
                    )
                yield line.decode("utf-8", "surrogateescape")
    except OSError as error:
        raise UsageError(f"{path}: {describe_error(error)}.") from None
