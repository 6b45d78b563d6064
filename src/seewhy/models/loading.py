"""Networks by name: from torchvision, timm, a file of weights, a module of your own, or the one inside the package."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seewhy.errors import ModelError, UnknownName, UsageError
from seewhy.images.preprocess import Preprocess
from seewhy.models.device import resolve_device
from seewhy.models.loaded import LoadedModel as LoadedModel
from seewhy.models.loaded import check_labels, count_classes, infer_input_layout, read_labels
from seewhy.models.sources.arch import RANDOM, Architecture, a_few, misfit, seeded
from seewhy.models.sources.embedded import EMBEDDED, load_embedded
from seewhy.models.sources.factory import FACTORY, call_factory
from seewhy.models.sources.openclip import PREFIX as OPEN_CLIP
from seewhy.models.sources.openclip import load_openclip, load_openclip_folder
from seewhy.models.sources.repository import Repository, find_repository, is_repository
from seewhy.models.sources.timm import from_folder, imagenet_labels, named_labels, timm_names, timm_preprocess
from seewhy.models.sources.torchvision import torchvision_names
from seewhy.models.sources.transformers import load_transformers
from seewhy.models.sources.uri_options import (
    CLIP_OPTIONS,
    FILE_EXAMPLE,
    FILE_OPTIONS,
    NAME_OPTIONS,
    check_head,
    check_options,
    given_labels,
    parse,
    whole_number,
    yes_or_no,
)
from seewhy.models.sources.zeroshot import PROMPT, ZeroShot, prompts
from seewhy.models.weights import SUFFIXES, WEIGHTS_SUFFIXES, Log, Weights, read_weights
from seewhy.models.zoo import EMBEDDED_NAMES, find_architecture

EMBEDDED_OPTIONS = ("labels",)


def silent(message: str) -> None:
    """The default `log`: progress goes nowhere."""


def load_model(
    model: str | os.PathLike[str] | nn.Module | LoadedModel | None = None,
    *,
    preprocess: Preprocess | Callable[..., Any] | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    log: Log = silent,
    allow_code: bool = False,
) -> LoadedModel:
    """A network in eval mode with its preprocessing and labels. Runs no code that comes with a model.

    `model` is one of: None, the embedded network; `torchvision/NAME[@WEIGHTS]`; `timm/NAME`; a bare `NAME`, looked for
    in torchvision first; `hf/ORG/NAME[@REVISION]` or `hf-hub:...`, of timm, transformers or open_clip, and the same in a
    folder: `local-dir:FOLDER`; `open_clip/NAME@WEIGHTS`, whose classes are its labels;
    `weights.safetensors?arch=timm/resnet18[&num_classes=7][&labels=labels.txt]` (or `.pth`, `.pt`, `.th`, `.bin`,
    `.ckpt`); `package.module:function[?key=value]`, only with `allow_code=True`; an `nn.Module`, which is wrapped and not
    changed (not even to eval mode); a `LoadedModel`. Behind a name, `?pretrained=false` gives random weights, and
    `?labels=cat,dog` (or a file) other labels.
    `preprocess` and `labels` (a sequence, or a text file with one a line) go before what the model says of itself.
    `device`: see `resolve_device`; None is the CPU, and for a module the device it is on. `log` is told, in one line,
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
        loaded = load_named(EMBEDDED if model is None else os.fspath(model), names, log, allow_code)
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
        notes = tuple(note for note in loaded.notes if not note.startswith("preprocessing"))
        loaded = dataclasses.replace(loaded, preprocess=preprocess, notes=notes)
    return loaded if names is None else with_labels(loaded, names)


def load_named(model: str, labels: tuple[str, ...] | None, log: Log, allow_code: bool) -> LoadedModel:
    """What a string names, on the CPU. `labels` are the caller's own, which go before those of a file."""
    name, _, text = model.partition("?")
    if FACTORY.fullmatch(name):
        return load_factory(name, model, parse(text), allow_code)
    if name.startswith(("http://", "https://")):
        raise ModelError(name, f"is not fetched from just anywhere; download it, and give the file: '{FILE_EXAMPLE}'")
    options = parse(text)
    if "arch" in options or name.lower().endswith(SUFFIXES):
        return load_file(Path(name).expanduser(), text, labels)
    clip, embedded = name.startswith(OPEN_CLIP), name in EMBEDDED_NAMES
    known = CLIP_OPTIONS if clip else EMBEDDED_OPTIONS if embedded else NAME_OPTIONS
    check_options(name, options, known)
    pretrained = yes_or_no(name, options.get("pretrained", "true"))
    if embedded:
        loaded = load_embedded()
    elif is_repository(name):
        loaded = load_repository(find_repository(name, log), pretrained, options.get("num_classes"))
    elif clip:
        loaded = load_openclip(name, log, pretrained=pretrained)
    else:
        loaded = load_arch(name, log, pretrained, options.get("num_classes"))
    if not pretrained:
        kept = {key: value for key, value in options.items() if key != "labels"}
        loaded = dataclasses.replace(loaded, uri=f"{loaded.uri}?{'&'.join(f'{k}={v}' for k, v in kept.items())}")
    if labels is None and "labels" in options:
        separator = "?" if pretrained else "&"
        loaded = dataclasses.replace(loaded, uri=f"{loaded.uri}{separator}labels={options['labels']}")
        loaded = with_labels(loaded, read_labels(given_labels(options["labels"])))
    return loaded


def load_arch(name: str, log: Log, pretrained: bool, given: str | None) -> LoadedModel:
    """A network of torchvision or timm with its published weights, or with random ones."""
    try:
        arch, notes = find_architecture(name)
    except UnknownName:
        if not name or not (path := Path(name).expanduser()).exists():
            raise
        folder = f"; a folder with a config.json is given as 'local-dir:{name}'" if path.is_dir() else ""
        reason = f"not a file of weights; their names end in {', '.join(WEIGHTS_SUFFIXES)}{folder}"
        raise ModelError(name, reason) from None
    classes = whole_number(name, given) if given else arch.classes
    if pretrained:
        check_head(arch.uri, classes, arch.classes)
        module = arch.build(arch.fetch(log), classes, arch.uri)
    else:
        notes = [*notes, RANDOM]
        module = arch.random(classes)
    names = arch.labels() if classes == arch.classes else None
    return LoadedModel(module, arch.preprocess(), names, arch.uri, (*notes, *arch.notes()))


def load_repository(place: Repository, pretrained: bool, given: str | None) -> LoadedModel:
    """What a folder or a repository of the Hugging Face hub holds: a network of timm, transformers or open_clip."""
    place, path, config = place.read_config()
    if given is not None:
        raise ModelError(place.uri, "num_classes is what its config says; for another head give weights of your own")
    if path.name == "open_clip_config.json":
        return load_openclip_folder(place, path, pretrained=pretrained)
    if "architecture" in config:
        return load_timm_folder(place, path, config, pretrained)
    if "model_type" in config:
        return load_transformers(place, path, pretrained=pretrained)
    raise ModelError(place.uri, f"{path} names no architecture (timm) and no model_type (transformers); check the file")


def load_timm_folder(place: Repository, path: Path, config: dict[str, Any], pretrained: bool) -> LoadedModel:
    weights = read_weights(place.weights())[0] if pretrained else None
    try:
        with seeded():
            module = from_folder(path.parent, weights).eval()
    except Exception as error:  # an unknown architecture, other weights
        raise ModelError(place.uri, f"timm cannot build it from {path}: {misfit(error)}; check the files") from None
    record = dict(getattr(module, "pretrained_cfg", {}))
    names = named_labels({**config, **record}, count_classes(module) or 0)
    notes = () if pretrained else (RANDOM,)
    return LoadedModel(module, timm_preprocess(record), names, place.uri, notes)


def load_factory(name: str, uri: str, options: dict[str, str], allow_code: bool) -> LoadedModel:
    labels = options.pop("labels", None)
    made = call_factory(name, options, allowed=allow_code)
    if not isinstance(made, nn.Module | LoadedModel):
        raise ModelError(name, f"gave {type(made).__name__}; it must give an nn.Module or a seewhy.LoadedModel")
    loaded = made if isinstance(made, LoadedModel) else wrap(made)
    notes = loaded.notes
    if loaded.preprocess is None:
        preprocess, said = assumed(loaded.module)
        loaded, notes = dataclasses.replace(loaded, preprocess=preprocess), (*notes, said)
    loaded = dataclasses.replace(loaded, uri=uri, notes=notes)
    return loaded if labels is None else with_labels(loaded, read_labels(given_labels(labels)))


def assumed(module: nn.Module) -> tuple[Preprocess | None, str]:
    """The preprocessing of a network that brings none, and what to say about it."""
    channels, axes = infer_input_layout(module) or (3, 2)
    if axes != 2 or channels > 3 or channels == 2:
        takes = f"its first convolution takes {channels} channels on {axes} ax{'i' if axes == 1 else 'e'}s"
        return None, f"preprocessing is not known, and {takes}, no picture: pass preprocess=, or a tensor, from Python"
    usual, kind = Preprocess.imagenet(224), ""
    if channels == 1:
        grey = sum(usual.mean) / 3, sum(usual.std) / 3
        usual, kind = dataclasses.replace(usual, mean=grey[:1], std=grey[1:]), ", in grey,"
    return usual, (
        f"preprocessing is not known: ImageNet's at 224x224{kind} is assumed; pass preprocess= for another, from Python"
    )


def with_labels(loaded: LoadedModel, names: tuple[str, ...]) -> LoadedModel:
    """The same with these labels. For CLIP they are the classes: a picture is compared with "a photo of a LABEL"."""
    if isinstance(loaded.module, ZeroShot) and loaded.embed_text is not None:
        if loaded.labels == names and loaded.module.text is not None:
            return loaded
        module = loaded.module.with_text(loaded.embed_text(prompts(names)))
        note = f"classes are texts: {PROMPT.format('LABEL')!r}"
        notes = loaded.notes if note in loaded.notes else (*loaded.notes, note)
        return dataclasses.replace(loaded, module=module, labels=names, notes=notes)
    check_labels(names, len(loaded.labels) if loaded.labels else count_classes(loaded.module))
    return dataclasses.replace(loaded, labels=names)


def load_file(path: Path, options: str, labels: tuple[str, ...] | None) -> LoadedModel:
    """A file of weights in the architecture that `options` ("arch=...&num_classes=...") names."""
    chosen = parse(options)
    check_options(str(path), chosen, FILE_OPTIONS)
    weights, notes = read_weights(path)
    if "arch" not in chosen:
        raise ModelError(
            str(path), f"weights alone do not say which network they belong to; add it: '{path}?arch=timm/resnet18'"
        )
    arch, found = find_architecture(chosen["arch"])
    notes = [*found, *notes]
    classes, reason = choose_classes(path, chosen.get("num_classes"), arch, weights)
    notes += [reason] if reason else []
    if labels is None and "labels" in chosen:
        labels = read_labels(given_labels(str(beside(path, chosen["labels"]))))
    if labels is not None:
        check_labels(labels, classes)
    elif classes == arch.classes and (labels := arch.labels()):
        notes.append(f"labels taken from {arch.uri}, which has {classes} classes too")
    module = arch.build(weights, classes, str(path))
    if others := [name for name in module.state_dict() if name not in weights]:
        # a few of timm's networks load without checking, so this may be all that tells
        notes.append(f"not in the file by these names, so renamed or never loaded: {a_few(others)}")
    notes += [f"preprocessing taken from {arch.uri}", *arch.notes()]
    return LoadedModel(module, arch.preprocess(), labels, f"{path}?{options}", tuple(notes))


def choose_classes(path: Path, given: str | None, arch: Architecture, weights: Weights) -> tuple[int, str]:
    """How many classes, and why where it was not given."""
    if given is not None:
        return whole_number(str(path), given), ""
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
