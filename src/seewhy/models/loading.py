"""`load_model` and `list_models`: models from torchvision, timm, Hugging Face, open_clip, files and modules."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import ModelError, UnknownName, UsageError, describe_argument
from seewhy.images.other_formats import is_image_start, read_start
from seewhy.images.preprocess import Preprocess
from seewhy.models.device import check_device, resolve_device
from seewhy.models.downloads import Log
from seewhy.models.inspection import count_classes
from seewhy.models.labels import labels_file, labels_option_file, parse_labels_option, read_labels, replace_labels
from seewhy.models.loaded_model import LoadedModel, PreprocessFunction
from seewhy.models.local_files import local_path
from seewhy.models.modules import load_from_factory, wrap_module
from seewhy.models.sources.architecture import RANDOM_NOTE, describe_mismatch, fixed_seed
from seewhy.models.sources.embedded import EMBEDDED, load_embedded
from seewhy.models.sources.factory import FACTORY_PATTERN
from seewhy.models.sources.openclip import PREFIX as OPEN_CLIP
from seewhy.models.sources.openclip import load_openclip, load_openclip_folder
from seewhy.models.sources.program import PROGRAM_SUFFIXES, load_program
from seewhy.models.sources.repository import Repository, is_repository, parse_repository
from seewhy.models.sources.timm import build_from_folder, labels_from_config, list_timm_names, preprocess_from_timm
from seewhy.models.sources.torchvision import list_torchvision_names
from seewhy.models.sources.transformers import load_transformers
from seewhy.models.sources.uri_options import (
    CLIP_OPTIONS,
    EMBEDDED_OPTIONS,
    FILE_EXAMPLE,
    NAME_OPTIONS,
    check_num_classes,
    check_options,
    parse_boolean,
    parse_num_classes,
    parse_options,
)
from seewhy.models.weights import SUFFIXES, WEIGHTS_SUFFIXES, read_weights
from seewhy.models.weights_file import load_weights_file
from seewhy.models.zoo import EMBEDDED_NAMES, find_architecture


def discard_message(message: str) -> None:
    """Default of `log`: no output."""


def load_model(
    model: nn.Module | LoadedModel | str | os.PathLike[str] | None = None,
    *,
    preprocess: Preprocess | PreprocessFunction | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    log: Log = discard_message,
    allow_code: bool = False,
) -> LoadedModel:
    """Load a model with its preprocessing and labels, in eval mode.

    Code that comes with a model is never executed, except with `allow_code=True`. Weights are downloaded into the
    caches of PyTorch and Hugging Face. `model` is one of:

    * None: the embedded model, EfficientNet-Lite0; needs no download.
    * "torchvision/NAME", "torchvision/NAME@WEIGHTS", "timm/NAME", or "NAME" (searched in torchvision, then in timm).
    * "hf/ORG/NAME", "hf/ORG/NAME@REVISION" or "hf-hub:...": a repository of timm, transformers or open_clip.
    * "local-dir:FOLDER": the same files in a local folder.
    * "open_clip/NAME@WEIGHTS": a CLIP model; its classes are its labels.
    * "weights.safetensors?arch=timm/resnet18": a file (`.safetensors`, `.pth`, `.pt`, `.th`, `.bin`, `.ckpt`) for an
      architecture of torchvision or timm; with options "&num_classes=7" and "&labels=labels.txt".
    * "network.onnx" (needs onnx2torch), or "network.pt2" from `torch.export.save`, which needs `allow_code=True`.
    * "package.module:function?key=value": a function that returns the model; needs `allow_code=True`.
    * An `nn.Module`: wrapped, not modified (not even set to eval mode). A `LoadedModel`: returned, with the other
      arguments applied.

    Names accept options: "?pretrained=false" (random weights; then also "&num_classes=7"), and "?labels=cat,dog" or
    "?labels=FILE".

    Args:
        model: The model, as listed above.
        preprocess: Replaces the model's own preprocessing: a `Preprocess`, or a function from a PIL image to a tensor
            `(C, height, width)`.
        labels: Replaces the model's own labels: a sequence, "cat,dog", or a text file with one label per line.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" or a `torch.device`. None: the CPU; for a module, the device
            that it is on.
        log: Called with one line before each download.
        allow_code: Allow "package.module:function", which runs code of that module, and ".pt2" files, which can run code.

    Returns:
        The model. Its `notes` list everything that was inferred.

    Raises:
        UnknownName: No model, weights, option or device has this name.
        OfflineError: A download is needed and not possible.
        ModelError: The weights are missing, corrupt, unsafe or do not fit the architecture.
        UsageError: The number of labels is wrong, the labels cannot be read, or the device is not available.

    Example:
        >>> loaded = load_model()
        >>> loaded.uri, len(loaded.labels), loaded.module(torch.zeros(1, 3, 224, 224)).shape
        ('embedded', 1000, torch.Size([1, 1000]))
    """
    names = None if labels is None else read_labels(labels)
    if model is None or isinstance(model, str | os.PathLike):
        target_device = resolve_device(device)
        loaded = load_from_uri(
            EMBEDDED if model is None else os.fspath(model), names, log, allow_code, labels_file(labels)
        )
        loaded.module.to(target_device)
    elif isinstance(model, nn.Module | LoadedModel):
        loaded = model if isinstance(model, LoadedModel) else wrap_module(model)
        if device is not None:
            check_device(loaded.module, resolve_device(device))
    else:
        raise not_a_model(model)
    if preprocess is not None:
        check_preprocess(preprocess)
        notes = tuple(note for note in loaded.notes if not note.startswith("preprocessing"))
        loaded = dataclasses.replace(loaded, preprocess=preprocess, notes=notes)
    return loaded if names is None else replace_labels(loaded, names, labels_file(labels))


def check_preprocess(preprocess: object) -> None:
    if not callable(preprocess):
        raise UsageError(
            f"preprocess={describe_argument(preprocess)}: pass a seewhy.Preprocess, such as Preprocess.imagenet(224), or a "
            "function from a PIL image to a tensor (C, H, W)."
        )


def not_a_model(model: object) -> UsageError:
    advice = module_advice(model)
    return UsageError(f"model={describe_argument(model)}: pass a name, a weights file or an nn.Module.{advice}")


def module_advice(model: object) -> str:
    """Return how to make a module of an object that is none; "" if that is unknown."""
    if isinstance(model, type):
        return f" This is the class: pass an instance, {model.__name__}(...)."
    if isinstance(model, torch.export.ExportedProgram):
        return " For an exported program, pass torch.export.unflatten(program)."
    if isinstance(model, Mapping):
        return " A state dict has weights and no layers: build the module, and call its load_state_dict."
    if isinstance(model, Tensor):
        return " The model is the first argument, and the inputs are the second."
    if callable(model):
        return " For a function, pass the module that it calls."
    return ""


def load_from_uri(uri: str, labels: tuple[str, ...] | None, log: Log, allow_code: bool, file: str = "") -> LoadedModel:
    """Load the model of a URI on the CPU. `labels`, which may be from `file`, override those in the URI."""
    name, _, query = uri.partition("?")
    if FACTORY_PATTERN.fullmatch(name):
        return load_from_factory(name, uri, parse_options(query), allow_code)
    if name.startswith(("http://", "https://")):
        raise ModelError(
            name, f"models are not loaded from web addresses; download it and pass the file: '{FILE_EXAMPLE}'"
        )
    options = parse_options(query)
    if name.lower().endswith(PROGRAM_SUFFIXES):
        return load_program(local_path(name), uri, options, labels, file, allow_code=allow_code)
    if "arch" in options or name.lower().endswith(SUFFIXES):
        return load_weights_file(local_path(name), query, labels, file)
    is_clip, is_embedded = name.startswith(OPEN_CLIP), name in EMBEDDED_NAMES
    check_options(name, options, CLIP_OPTIONS if is_clip else EMBEDDED_OPTIONS if is_embedded else NAME_OPTIONS)
    pretrained = parse_boolean(name, options.get("pretrained", "true"))
    if is_embedded:
        loaded = load_embedded()
    elif is_repository(name):
        loaded = load_repository(parse_repository(name, log), pretrained, options.get("num_classes"))
    elif is_clip:
        loaded = load_openclip(name, log, pretrained=pretrained)
    else:
        loaded = load_from_library(name, log, pretrained, options.get("num_classes"))
    if not pretrained:
        kept = "&".join(f"{key}={value}" for key, value in options.items() if key != "labels")
        loaded = dataclasses.replace(loaded, uri=f"{loaded.uri}?{kept}")
    if labels is None and "labels" in options:
        separator = "?" if pretrained else "&"
        loaded = dataclasses.replace(loaded, uri=f"{loaded.uri}{separator}labels={options['labels']}")
        text = options["labels"]
        loaded = replace_labels(loaded, parse_labels_option(text), labels_option_file(text))
    return loaded


def load_from_library(name: str, log: Log, pretrained: bool, num_classes_option: str | None) -> LoadedModel:
    """Load a network of torchvision or timm with its published weights, or with random ones."""
    try:
        architecture, notes = find_architecture(name)
    except UnknownName:
        if reason := describe_local_path(name):
            raise ModelError(name, reason) from None
        raise
    published = architecture.num_classes
    num_classes = parse_num_classes(name, num_classes_option) if num_classes_option else published
    if pretrained:
        check_num_classes(architecture.uri, num_classes, published)
        module = architecture.build(architecture.load_weights(log), num_classes, architecture.uri)
    else:
        notes = [*notes, RANDOM_NOTE]
        module = architecture.build_random(num_classes)
    labels = architecture.labels() if num_classes == published else None
    return LoadedModel(module, architecture.preprocess(), labels, architecture.uri, (*notes, *architecture.notes()))


def describe_local_path(name: str) -> str:
    """Return why a file or folder of this name is no model; "" if there is none."""
    path = local_path(name)
    script = next((one for one in (path, Path(f"{path}.py")) if one.suffix == ".py" and os.path.isfile(one)), None)
    if name and script is not None:
        start = "is" if script == path else f"{script} is"
        return f"{start} Python code; name its function that returns the model, and allow its code: {factory_example(script)}"
    if not name or not os.path.exists(path):
        return ""
    if os.path.isdir(path):
        return (
            f"is a folder; if it contains a config.json, use 'local-dir:{name}', otherwise name the weights file in it"
        )
    if is_image_start(read_start(path)):
        return "is an image, not a model; images come first, and the model after --model"
    return f"not a weights file (the name must end in {', '.join(WEIGHTS_SUFFIXES)})"


def factory_example(script: Path) -> str:
    """Return how to pass a function of a script as the model."""
    code = read_start(script).decode("utf-8", "replace")
    names = re.findall(r"^(?:def|class) ([A-Za-z]\w*)", code, re.MULTILINE)
    return f"'{script.stem}:{names[0] if names else 'build'}' with --allow-code (in Python: allow_code=True)"


def load_repository(repository: Repository, pretrained: bool, num_classes_option: str | None) -> LoadedModel:
    """Load the model in a folder or hub repository: of timm, transformers or open_clip, depending on its config."""
    repository, path, config = repository.read_config()
    if num_classes_option is not None:
        raise ModelError(
            repository.uri, "num_classes is defined by its config; for another head, pass your own weights"
        )
    if path.name == "open_clip_config.json":
        return load_openclip_folder(repository, path, pretrained=pretrained)
    if "architecture" in config:
        return load_timm_folder(repository, path, config, pretrained)
    if "model_type" in config:
        return load_transformers(repository, path, pretrained=pretrained)
    raise ModelError(
        repository.uri, f"{path} has neither an architecture (timm) nor a model_type (transformers); check the file"
    )


def load_timm_folder(repository: Repository, path: Path, config: dict[str, Any], pretrained: bool) -> LoadedModel:
    weights = read_weights(repository.get_weights_file())[0] if pretrained else None
    try:
        with fixed_seed():
            module = build_from_folder(path.parent, weights).eval()
    except Exception as error:  # an unknown architecture, or weights of another network
        mismatch = describe_mismatch(error)
        raise ModelError(repository.uri, f"timm cannot build it from {path}: {mismatch}; check the files") from None
    settings = dict(getattr(module, "pretrained_cfg", {}))
    labels = labels_from_config({**config, **settings}, count_classes(module) or 0)
    notes = () if pretrained else (RANDOM_NOTE,)
    return LoadedModel(module, preprocess_from_timm(settings), labels, repository.uri, notes)


def list_models(pattern: str = "*") -> list[str]:
    """List model URIs: the embedded model, then all models of torchvision and timm with published weights.

    Args:
        pattern: A glob for the URI or for the name after its first slash, such as "resnet18*". Without `*`, `?` or
            `[`: a part of the URI. Case is ignored.

    Returns:
        Model URIs for `load_model`; empty if none matches.

    Example:
        >>> list_models("resnet18*")[:2]
        ['torchvision/resnet18', 'timm/resnet18.a1_in1k']
        >>> list_models("tf_*_lite0*")
        ['timm/tf_efficientnet_lite0.in1k']
    """
    uris = [
        EMBEDDED,
        *(f"torchvision/{name}" for name in list_torchvision_names()),
        *(f"timm/{name}" for name in list_timm_names()),
    ]
    pattern = pattern.lower()
    if not any(sign in pattern for sign in "*?["):
        return [uri for uri in uris if pattern in uri.lower()]
    return [
        uri for uri in uris if any(fnmatch.fnmatchcase(name.lower(), pattern) for name in (uri, uri.partition("/")[2]))
    ]
