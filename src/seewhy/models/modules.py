"""Wrap the user's own modules: an `nn.Module`, or the result of a factory function."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import nn

from seewhy.errors import ModelError, UsageError
from seewhy.images.preprocess import Preprocess
from seewhy.models.imagenet import imagenet_labels
from seewhy.models.inspection import count_classes, infer_input_layout
from seewhy.models.labels import labels_option_file, parse_labels_option, replace_labels
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.sources.factory import call_factory
from seewhy.models.sources.timm import preprocess_from_timm


def wrap_module(module: nn.Module) -> LoadedModel:
    """Wrap a module without changing it. Preprocessing and labels come from timm's `pretrained_cfg`, if it has one."""
    config = getattr(module, "pretrained_cfg", None)
    notes, preprocess, labels = [], None, None
    if isinstance(config, Mapping) and "input_size" in config:
        try:
            preprocess = preprocess_from_timm(dict(config))
            notes.append("preprocessing taken from the module's pretrained_cfg")
        except UsageError as error:
            notes.append(f"no preprocessing: the module's pretrained_cfg cannot be used ({error})")
        num_classes = count_classes(module)
        if num_classes and num_classes == config.get("num_classes") and (labels := imagenet_labels(num_classes)):
            notes.append(f"labels taken from ImageNet, which also has {num_classes} classes")
    kind = type(module)
    return LoadedModel(module, preprocess, labels, f"{kind.__module__}.{kind.__qualname__}", tuple(notes))


def load_from_factory(name: str, uri: str, options: dict[str, str], allow_code: bool) -> LoadedModel:
    """Load a model from a function `package.module:function` of the user."""
    labels = options.pop("labels", None)
    model = call_factory(name, options, allow_code=allow_code)
    if not isinstance(model, nn.Module | LoadedModel):
        advice = (
            "; load the weights into the model (load_state_dict) and return it" if isinstance(model, Mapping) else ""
        )
        raise ModelError(
            name, f"returned {type(model).__name__}; it must return an nn.Module or a seewhy.LoadedModel{advice}"
        )
    loaded = model if isinstance(model, LoadedModel) else wrap_module(model)
    notes = loaded.notes
    if loaded.preprocess is None:
        preprocess, note = assume_preprocess(loaded.module)
        loaded, notes = dataclasses.replace(loaded, preprocess=preprocess), (*notes, note)
    loaded = dataclasses.replace(loaded, uri=uri, notes=notes)
    if labels is None:
        return loaded
    return replace_labels(loaded, parse_labels_option(labels), labels_option_file(labels))


def assume_preprocess(module: nn.Module) -> tuple[Preprocess | None, str]:
    """Return ImageNet's preprocessing for a network that has none, and a note; None if it does not take images."""
    channels, axes = infer_input_layout(module) or (3, 2)
    if axes != 2 or channels > 3 or channels == 2:
        layout = f"its first convolution takes {channels} channels and {axes} spatial ax{'i' if axes == 1 else 'e'}s"
        return None, f"preprocessing is unknown, and {layout}, not an image: in Python, pass preprocess= or a tensor"
    preprocess, kind = Preprocess.imagenet(224), ""
    if channels == 1:
        mean, std = sum(preprocess.mean) / 3, sum(preprocess.std) / 3
        preprocess, kind = dataclasses.replace(preprocess, mean=(mean,), std=(std,)), " in grayscale"
    return preprocess, (
        f"preprocessing is unknown: ImageNet's at 224x224{kind} is assumed; in Python, pass preprocess= to change it"
    )
