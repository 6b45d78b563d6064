"""Checks that the outputs of a run do not overwrite its inputs, and that its folders can be written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from seewhy import storage
from seewhy.cli.drawings import FEATURES_SHEET
from seewhy.engine.options import ModelOptions, Options
from seewhy.errors import UsageError
from seewhy.models.sources.uri_options import parse_options
from seewhy.paths import check_folders, check_overwrite

FIXED_FILES = (
    storage.RECORD, storage.MAPS, storage.PHOTO, storage.INPUT, storage.REPORT, "overlay.jpg", "sheet.jpg", FEATURES_SHEET,
)  # fmt: skip
DRAWING_FOLDERS = ("overlays", "sheets")
COMPARED_IMAGE = re.compile(r"\s*like\s*:(.*)", re.IGNORECASE | re.DOTALL)


def check_outputs(
    out: Path, folders: Mapping[str, Path], options: Options, model_options: ModelOptions, model: str
) -> None:
    """Raise UsageError if a run would overwrite one of its inputs, or cannot create the folders of its images.

    `folders` contains the output folder of each image, `model` is the URI of the loaded model.
    """
    outputs = [out / storage.INDEX, *(path for folder in folders.values() for path in output_files(folder))]
    check_overwrite(outputs, [*folders, *other_inputs(options, model_options, model)])
    check_folders(
        path for folder in folders.values() for path in (folder, *(folder / name for name in DRAWING_FOLDERS))
    )


def output_files(folder: Path) -> list[Path]:
    """Return what a run may write or delete for one image: its files, the folders above them, and all files of drawings."""
    names = {*FIXED_FILES, *storage.read_recorded_files(folder)}
    drawings = (path for name in DRAWING_FOLDERS for path in (folder / name).glob("**/*"))
    return [folder, *folder.parents, *(folder / name for name in names), *drawings]


def other_inputs(options: Options, model_options: ModelOptions, model: str) -> list[str]:
    """Return the files that a run reads in addition to its images: weights, labels, and images to compare with."""
    texts = [*as_texts(options.targets), *as_texts(options.versus)]
    compared = [match[1].strip().strip("\"'") for text in texts if (match := COMPARED_IMAGE.fullmatch(text))]
    return [*model_files(model, model_options.labels), *compared]


def model_files(uri: str, labels: str | None) -> list[str]:
    """Return the files that a model URI may name: its weights and its labels."""
    weights, _, query = uri.partition("?")
    return [os.path.expanduser(path) for path in (weights, labels or "", *parse_options(query).values())]


def as_texts(targets: object) -> list[str]:
    """Return the targets of the command line, which are texts."""
    items: Iterable[object] = targets if isinstance(targets, tuple) else ()
    return [item for item in items if isinstance(item, str)]


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Convert a file system error, such as a full disk or a missing permission, to a UsageError about `path`."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: cannot be written ({reason}). Choose another --out.") from None
