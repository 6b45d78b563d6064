"""Class labels: reading, checking and replacing them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seewhy.errors import UsageError
from seewhy.models.inspection import count_classes
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.local_files import UnreadableFile, local_path, read_text
from seewhy.models.sources.zeroshot import PROMPT, ZeroShot, build_prompts


def read_labels(labels: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """Return labels from a sequence, a comma-separated text, or a text file with one label per line.

    Raises `UsageError` if the file cannot be read.

    >>> read_labels(["cat", "dog"])
    ('cat', 'dog')
    >>> read_labels("cat,dog")
    ('cat', 'dog')
    """
    if not isinstance(labels, str | os.PathLike):
        return tuple(str(label) for label in labels)
    if isinstance(labels, str) and "," in labels and not os.path.exists(local_path(labels)):
        return tuple(label.strip() for label in labels.split(","))
    try:
        lines = read_text(local_path(labels)).rstrip().splitlines()
        if not lines:
            raise UnreadableFile("the file is empty")
    except UnreadableFile as error:
        raise UsageError(
            f"labels {os.fspath(labels) or repr(labels)}: {error}; give a text file with one label per line, or 'cat,dog'"
        ) from None
    return tuple(line.strip() for line in lines)


def labels_file(labels: object) -> str:
    """Return the file that `read_labels` reads, for messages; "" if the labels are not in a file.

    >>> labels_file("cat,dog"), labels_file(Path("labels.txt"))
    ('', 'labels.txt')
    """
    if isinstance(labels, str) and "," in labels and not os.path.exists(local_path(labels)):
        return ""
    return os.fspath(labels) if isinstance(labels, str | os.PathLike) else ""


def parse_labels_option(text: str) -> tuple[str, ...]:
    """Return the labels in the `labels=` option of a model URI: a file name, or comma-separated labels.

    >>> parse_labels_option("cat, dog"), parse_labels_option("cat")
    (('cat', 'dog'), ('cat',))
    """
    return read_labels(text) if is_labels_file(text) else tuple(label.strip() for label in text.split(","))


def labels_option_file(text: str) -> str:
    """Return the file that `parse_labels_option` reads, for messages; "" for comma-separated labels."""
    return text if is_labels_file(text) else ""


def is_labels_file(text: str) -> bool:
    path = local_path(text)
    return os.path.isfile(path) or ("," not in text and bool(Path(text).suffix or os.path.exists(path)))


def check_labels(labels: tuple[str, ...], num_classes: int | None, file: str = "") -> None:
    """Raise `UsageError` if the number of labels differs from the number of classes, where that is known.

    `file` contains the labels, if they are in a file.
    """
    if num_classes and len(labels) != num_classes:
        raise UsageError(
            f"{f'labels {file}: ' if file else ''}{len(labels)} labels for a model with {num_classes} classes; give one label "
            f"per {'line' if file else 'class'}, in class order"
        )


def replace_labels(loaded: LoadedModel, labels: tuple[str, ...], file: str = "") -> LoadedModel:
    """Return the model with these labels. For CLIP they define the classes, as texts "a photo of a LABEL".

    `file` contains the labels, if they are in a file.
    """
    if isinstance(loaded.module, ZeroShot) and loaded.embed_text is not None:
        if loaded.labels == labels and loaded.module.text is not None:
            return loaded
        module = loaded.module.with_text(loaded.embed_text(build_prompts(labels)))
        note = f"classes are texts: {PROMPT.format('LABEL')!r}"
        notes = loaded.notes if note in loaded.notes else (*loaded.notes, note)
        return replace(loaded, module=module, labels=labels, notes=notes)
    check_labels(labels, len(loaded.labels) if loaded.labels else count_classes(loaded.module), file)
    return replace(loaded, labels=labels)
