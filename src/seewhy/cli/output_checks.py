"""Checks that the outputs of a run overwrite neither its inputs nor other files, and that its folders can be created."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from seewhy import storage
from seewhy.cli.run_options import FEATURES_SHEET, METRICS_RECORD, METRICS_TABLE
from seewhy.engine.options import ModelOptions, Options
from seewhy.models.sources.uri_options import parse_options
from seewhy.storage.paths import check_folders, check_inside, check_overwrite, output_paths

IMAGE_FILES = (storage.REPORT, "overlay.jpg", "sheet.jpg")  # of the main command
DRAWING_FOLDERS = ("overlays", "sheets")
# Patterns of the names in cli/drawings: the names themselves depend on the layers, which are known when the model has run.
OVERLAYS = ("[0-9][0-9]*_*.jpg", "*_conv[0-9]*.jpg")
DRAWINGS = (*(f"overlays/{place}{name}" for name in OVERLAYS for place in ("", "*/*/")), "sheets/*.jpg")
COMPARED_IMAGE = re.compile(r"\s*like\s*:(.*)", re.IGNORECASE | re.DOTALL)


def check_outputs(
    out: Path,
    folders: Mapping[str, Path],
    options: Options,
    model_options: ModelOptions,
    *,
    has_index: bool,
    measures: bool = False,
) -> None:
    """Raise UsageError if a run would overwrite an input or a file of another program, or cannot create its folders.

    `folders` contains the output folder of each image. With `has_index`, the run also writes the page that lists its images;
    with `measures`, the tables of metrics.
    """
    names = (storage.RECORD, storage.MAPS, storage.PHOTO, *([FEATURES_SHEET] if options.channels else IMAGE_FILES))
    names += (METRICS_TABLE, METRICS_RECORD) if measures else ()
    fixed = [folder / name for folder in folders.values() for name in names]
    fixed += [out / storage.INDEX] if has_index else []
    others = (path for folder in folders.values() for path in other_outputs(folder))
    check_overwrite([*fixed, *others], [*folders, *other_inputs(options, model_options)])
    for path in fixed:
        storage.check_own(path)
    for folder in folders.values():
        check_inside(folder, out)
        check_folders([folder, *(folder / name for name in DRAWING_FOLDERS)])
        for pattern in () if options.channels else DRAWINGS:
            for path in folder.glob(pattern):
                if path.is_symlink():
                    storage.check_own(path)


def image_folders(out: Path, images: Sequence[str]) -> dict[str, Path]:
    """Return the output folder of each image that exists."""
    existing = [image for image in images if image == "-" or os.path.exists(image)]
    return dict(zip(existing, output_paths(out, existing), strict=True))


def has_index(count: int, options: Options) -> bool:
    """Return True if a run over `count` images writes the page that lists them."""
    return count > 1 and not options.channels


def other_outputs(folder: Path) -> list[Path]:
    """Return the folders of an image, and the files of an earlier run, which a run may replace or delete."""
    return [folder, *folder.parents, *(folder / name for name in storage.read_recorded_files(folder))]


def other_inputs(options: Options, model_options: ModelOptions) -> list[str]:
    """Return the files that a run reads in addition to its images: weights, labels, and images to compare with."""
    texts = [*as_texts(options.targets), *as_texts(options.versus)]
    compared = [match[1].strip().strip("\"'") for text in texts if (match := COMPARED_IMAGE.fullmatch(text))]
    return [*model_files(model_options.uri or "", model_options.labels), *compared]


def model_files(uri: str, labels: str | None) -> list[str]:
    """Return the files that a model URI may name: its weights and its labels."""
    weights, _, query = uri.partition("?")
    return [os.path.expanduser(path) for path in (weights, labels or "", *parse_options(query).values())]


def as_texts(targets: object) -> list[str]:
    """Return the targets of the command line, which are texts."""
    items: Iterable[object] = targets if isinstance(targets, tuple) else ()
    return [item for item in items if isinstance(item, str)]
