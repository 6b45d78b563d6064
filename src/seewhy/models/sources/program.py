"""Files that contain a network with its weights: ONNX files, and programs of torch.export."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from seewhy.errors import ModelError, shorten_error
from seewhy.models.labels import labels_option_file, parse_labels_option, replace_labels
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.local_files import UnreadableFile, check_regular
from seewhy.models.modules import assume_preprocess
from seewhy.models.sources.onnx_file import load_onnx, read_labels, read_preprocess
from seewhy.models.sources.program_modules import restore_layers
from seewhy.models.sources.uri_options import PROGRAM_OPTIONS, check_options
from seewhy.models.weights_file import locate_labels_file

PROGRAM_SUFFIXES = (".onnx", ".pt2")
METADATA = ("seewhy.preprocess", "seewhy.labels")


def load_program(
    path: Path, uri: str, options: Mapping[str, str], labels: tuple[str, ...] | None, file: str, *, allow_code: bool
) -> LoadedModel:
    """Load a network from an ONNX file or a program of torch.export. `labels`, which may be from `file`, override others.

    Raises:
        ModelError: The file is missing or damaged, may run code, or cannot be converted.
    """
    check_options(str(path), options, PROGRAM_OPTIONS)
    if not os.path.lexists(path):
        raise ModelError(str(path), "no such file; check the path")
    is_onnx = path.suffix.lower() == ".onnx"
    loaded = load_onnx(path, uri) if is_onnx else load_exported(path, uri, allow_code=allow_code)
    if labels is None and "labels" in options:
        text = str(locate_labels_file(path, options["labels"]))
        return replace_labels(loaded, parse_labels_option(text), labels_option_file(text))
    return loaded if labels is None else replace_labels(loaded, labels, file)


def load_exported(path: Path, uri: str, *, allow_code: bool) -> LoadedModel:
    """Load a program of torch.export as a network whose modules have their names."""
    try:
        check_regular(path)
    except UnreadableFile as error:
        raise ModelError(str(path), f"{error}; check the path") from None
    if not allow_code:
        raise ModelError(
            str(path), "PyTorch can run code while it loads a .pt2 file; if you trust it, pass --allow-code, or "
            "allow_code=True",
        )  # fmt: skip
    metadata = dict.fromkeys(METADATA, "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = torch.export.unflatten(torch.export.load(path, extra_files=metadata))
            restore_layers(module)
    except Exception as error:  # of PyTorch, for damaged files and other versions
        raise ModelError(
            str(path), f"PyTorch cannot load it ({shorten_error(error)}); export it again with this version of PyTorch"
        ) from None
    preprocess, note = read_preprocess(metadata), ""
    if preprocess is None:
        preprocess, note = assume_preprocess(module)
    loaded = LoadedModel(module, preprocess, read_labels(metadata), uri)
    return dataclasses.replace(loaded, notes=tuple(filter(None, ("loaded from a program of torch.export", note))))
