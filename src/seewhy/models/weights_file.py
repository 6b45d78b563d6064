"""Load a model from a local weights file and the name of its architecture."""

from __future__ import annotations

import os
from pathlib import Path

from seewhy.errors import ModelError
from seewhy.models.labels import check_labels, labels_option_file, parse_labels_option
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.local_files import local_path
from seewhy.models.sources.architecture import Architecture, join_first
from seewhy.models.sources.uri_options import FILE_OPTIONS, check_options, parse_num_classes, parse_options
from seewhy.models.weights import Weights, read_weights
from seewhy.models.zoo import find_architecture

MAX_INFERRED_CLASSES = 200_000  # a file of 10 MB can have a head of 10 million rows, and the network one of gigabytes


def load_weights_file(path: Path, query: str, labels: tuple[str, ...] | None, file: str = "") -> LoadedModel:
    """Load weights into the architecture in `query` ("arch=...&num_classes=...").

    `labels`, which may be from `file`, override those in `query`.
    """
    options = parse_options(query)
    check_options(str(path), options, FILE_OPTIONS)
    weights, file_notes = read_weights(path)
    if "arch" not in options:
        raise ModelError(
            str(path),
            f"contains weights, but not their architecture; add its name: '{path}?arch=timm/resnet18' "
            "(list names: seewhy models)",
        )
    architecture, notes = find_architecture(options["arch"])
    num_classes, note = infer_num_classes(path, options.get("num_classes"), architecture, weights)
    notes = [*notes, *file_notes, *([note] if note else [])]
    if labels is None and "labels" in options:
        text = str(locate_labels_file(path, options["labels"]))
        labels, file = parse_labels_option(text), labels_option_file(text)
    if labels is not None:
        check_labels(labels, num_classes, file)
    elif num_classes == architecture.num_classes and (labels := architecture.labels()):
        notes.append(f"labels taken from {architecture.uri}, which also has {num_classes} classes")
    module = architecture.build(weights, num_classes, str(path))
    if others := [name for name in module.state_dict() if name not in weights]:
        # A few networks of timm load without checking names, so this note may be the only sign of a mismatch.
        notes.append(f"not in the file under these names, so renamed or not loaded: {join_first(others)}")
    notes += [f"preprocessing taken from {architecture.uri}", *architecture.notes()]
    return LoadedModel(module, architecture.preprocess(), labels, f"{path}?{query}", tuple(notes))


def infer_num_classes(path: Path, option: str | None, architecture: Architecture, weights: Weights) -> tuple[int, str]:
    """Return the number of classes from the option, the classifier's shape or the architecture, and a note on it."""
    if option is not None:
        return parse_num_classes(str(path), option), ""
    count = architecture.count_classes(weights)
    if count is None:
        default = architecture.num_classes
        return default, f"no classifier recognized in the file: assumed the {default} classes of {architecture.uri}"
    if count > MAX_INFERRED_CLASSES:
        raise ModelError(
            str(path), f"its classifier has {count:,} classes; if that is correct, add '&num_classes={count}'"
        )
    return count, f"{count} classes, inferred from the classifier's shape"


def locate_labels_file(path: Path, labels: str) -> Path:
    """Return a labels file relative to the current folder or, if it is not there, to the weights file."""
    local = local_path(labels)
    return local if os.path.exists(local) or not os.path.exists(path.parent / local) else path.parent / local
