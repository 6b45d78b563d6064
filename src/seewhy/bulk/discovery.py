"""From what a user names as input to its pictures: a folder, a list, a table, tar files, single pictures."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from seewhy.bulk.dataset import Item, Dataset, ListDataset, path_text, with_own_ids
from seewhy.bulk.manifest import TABLES, read_table
from seewhy.bulk.tars import TarDataset, expand_braces, is_tar
from seewhy.errors import UsageError
from seewhy.images.discovery import walk
from seewhy.images.loading import READABLE, reason_of

LISTS = (".txt", ".lst")


def find_dataset(given: Sequence[str], size: int) -> Dataset:
    """The pictures that `given` stands for, in parts of `size`.

    Each is a folder (searched to the bottom; the folders right below it are the labels, if all pictures lie in such), a
    list (.txt: one path a line, relative to the list), a table (.csv, .tsv, .parquet: see `read_table`), a picture, or tar
    files (WebDataset: a file, a folder of them, "train-{000..146}.tar", "*.tar"); tar files stand alone.

    Raises UsageError where there is nothing to explain.
    """
    paths = [found for one in given for found in named(one)]
    if not paths:
        raise UsageError("no input. Give a folder, a list, a table or tar files: seewhy bulk photos/ --out run")
    tars = [tar for path in paths for tar in tars_in(path)]
    if tars:
        if others := [path for path in paths if not tars_in(path)]:
            raise UsageError(f"tar files and other input together ({others[0]}); give one job for each.")
        if gone := [tar for tar in tars if not os.path.exists(tar)]:
            raise UsageError(f"{gone[0]}: no such file{f' (and {len(gone) - 1} more)' if len(gone) > 1 else ''}.")
        return TarDataset([os.path.abspath(tar) for tar in tars])
    items: list[Item] = []
    notes: list[str] = []
    for path in paths:
        found, said = items_of(path)
        items += found
        notes += said
    if not items:
        raise UsageError(f"{', '.join(given)}: no pictures in there ({READABLE}, by file name).")
    return ListDataset(with_own_ids([absolute(item) for item in items]), size, tuple(notes))


def absolute(item: Item) -> Item:
    """The same with paths that hold wherever a process runs that reads it."""
    mask = item.mask and os.path.abspath(item.mask)
    return replace(item, path=item.path and os.path.abspath(item.path), mask=mask)


def named(text: str) -> list[str]:
    """The paths that one argument stands for: braces and stars are ours to expand where no shell did."""
    found: list[str] = []
    for path in expand_braces(text):
        if not os.path.lexists(path) and glob.has_magic(path):
            found += sorted(glob.glob(path, recursive=True)) or [path]
        else:
            found.append(path)
    return found


def tars_in(path: str) -> list[str]:
    """The tar files that a path stands for: itself, or those of a folder that holds nothing else to read."""
    if os.path.isdir(path):
        try:
            inside = sorted(name for name in os.listdir(path) if not name.startswith("."))
        except OSError:  # `in_folder` says so
            return []
        tars = [os.path.join(path, name) for name in inside if is_tar(name)]
        return tars if tars and next(walk(path, lambda error: None), None) is None else []
    return [path] if is_tar(path) else []


def items_of(path: str) -> tuple[list[Item], list[str]]:
    """The pictures of one path, and notes on what was inferred."""
    suffix = Path(path).suffix.lower()
    if os.path.isdir(path):
        return in_folder(path)
    if suffix in TABLES:
        return read_table(path)
    if suffix in LISTS:
        return list(in_list(path)), []
    if not os.path.lexists(path):
        raise UsageError(f"{path}: no such file or folder.")
    return [Item(path_text(path), path)], []


def in_folder(folder: str) -> tuple[list[Item], list[str]]:
    """The pictures below a folder; a folder that cannot be listed is one that fails."""
    bad: list[Item] = []

    def refuse(error: OSError) -> None:
        where = os.fsdecode(error.filename)
        bad.append(Item(name(where), where, error=f"cannot list this folder: {reason_of(error)}"))

    def name(path: str) -> str:
        return path_text(os.path.relpath(path, folder)).replace(os.sep, "/")

    ids = [(name(path), path) for path in walk(folder, refuse)]
    labelled = bool(ids) and all("/" in one for one, _ in ids)
    items = [Item(one, path, label=one.split("/")[0] if labelled else None, group=labelled) for one, path in ids]
    notes = [f"labels: the folders in {folder}"] if labelled else []
    return items + bad, notes


def in_list(path: str) -> Iterator[Item]:
    try:
        text = Path(path).read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UsageError(f"{path}: {reason_of(error)}.") from None
    home = os.path.dirname(path)
    for line in text.split("\n"):  # and not where Unicode sees the end of a line, which a name may hold
        where, label = (part.strip() for part in line.strip().partition("\t")[::2])
        if where and not where.startswith("#"):
            yield Item(path_text(where), os.path.join(home, where), label=path_text(label) or None)
