"""The main function: a model and pictures in, an Explanation out."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.errors import LayerError, UsageError
from seewhy.explanation import Explanation, Key
from seewhy.images import load_image, name_of
from seewhy.layers import Selection, select
from seewhy.methods import Method, as_methods
from seewhy.models import LoadedModel, load_model
from seewhy.parts import Answer, LayerInfo, Picture
from seewhy.preprocess import Fit, Preprocess
from seewhy.record import Call, Trace, recording
from seewhy.signals import Signals, differentiate
from seewhy.suggestion import Suggestion, suggest
from seewhy.targets import Asked, Target, as_targets, logits

SUGGESTED = "suggested"


def explain(
    model: nn.Module | LoadedModel,
    inputs: Any,
    *,
    methods: Any = None,
    layers: Any = None,
    targets: Any = None,
    preprocess: Any = None,
    labels: Any = None,
    fit: Fit | None = None,
    suggested: bool = False,
) -> Explanation:
    """Why the model answers as it does: maps for every method, target and layer from one forward and one backward a target.

    `model` is an nn.Module or what `load_model` gives; it is not touched. `inputs` is a tensor (B, C, *size), ready for the
    model, or a picture (path, PIL image, array, bytes), or a list of pictures; a picture needs a `preprocess`, which a
    loaded model brings. `methods` are names or Method values (Grad-CAM), `layers` as in `seewhy.layers.select` or
    "suggested" (the default), `targets` as in `seewhy.targets.as_targets` (the predicted class). `fit` "crop" (the model's
    own), "squash" or "pad" says how pictures meet the input size. `suggested` explains the suggested layer as well, and
    names it in the result.

    Raises UsageError and its kinds for a call that cannot be carried out, ImageError for a picture that cannot be read.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> explain(net, torch.rand(1, 3, 8, 8), methods=["gradcam", "hirescam"], layers="every", targets=[0, 1])
    <Explanation of 1 picture: gradcam, hirescam, 2 targets, layer 0>
    """
    loaded = load_model(model, preprocess=preprocess, labels=labels)
    if fit is not None:
        loaded = with_fit(loaded, fit)
    chosen, questions = as_methods(methods), as_targets(targets)
    tensor, pictures, single = read_inputs(inputs, loaded)
    entries = layers if isinstance(layers, Sequence) and not isinstance(layers, str) else [layers]
    named = [entry is None or (isinstance(entry, str) and entry == SUGGESTED) for entry in entries]
    hint, doubt = find_hint(loaded.module, tensor, asked=any(named), extra=suggested)
    picked = select(
        [hint.layer if hint and is_it else entry for entry, is_it in zip(entries, named, strict=True)], loaded.module
    )
    selection = picked if hint is None else picked.plus(hint.layer)
    with recording(loaded.module, tensor, selection.wanted) as trace:
        calls = selection.pick(trace)
        unasked = {call.name for call in calls} - {call.name for call in picked.pick(trace)}
        trace.calls = calls  # the others' outputs are free to go
        asked = ask(questions, trace, loaded.labels)
        classes = class_logits(trace)
        infos = {call: info(call, trace, asked=call.name not in unasked) for call in calls}
        maps, reached, silent = make_maps(chosen, asked, trace, calls, picked)
    return Explanation(
        maps={key: maps[key] for key in ordered(chosen, asked, calls) if key in maps},
        answers=tuple(answer(item, classes) for item in asked),
        layer_info={call.name: infos[call] for call in calls if call not in silent},
        reached=reached,
        size=tuple(tensor.shape[2:]),
        logits=classes,
        labels=loaded.labels,
        inputs=tensor,
        pictures=pictures,
        suggested=hint.layer if hint and hint.layer not in {call.name for call in silent} else None,
        single=single,
        notes=(*loaded.notes, *filter(None, [doubt]), *silent_notes(silent)),
        about=provenance(loaded, hashed=isinstance(model, LoadedModel)),
    )


def find_hint(module: nn.Module, inputs: Tensor, *, asked: bool, extra: bool) -> tuple[Suggestion | None, str]:
    """The suggested layer, and what to say about it; only where it was `asked` for is it an error that there is none."""
    if not (asked or extra):
        return None, ""
    try:
        hint = suggest(module, inputs)
        return hint, hint.note
    except LayerError as error:
        if asked:
            raise
        return None, f"no layer is suggested: {error.reason}"


def ask(questions: Sequence[Target], trace: Trace, labels: Sequence[str] | None) -> list[Asked]:
    """Each question asked of the output; one that asks the same as an earlier one ("minibus" after 654) is left out."""
    asked = [question.ask(trace.output, labels) for question in questions]
    return list({item.key: item for item in reversed(asked)}.values())[::-1]


def make_maps(
    methods: dict[str, Method], asked: Sequence[Asked], trace: Trace, calls: Sequence[Call], selection: Selection
) -> tuple[dict[Key, Tensor], dict[tuple[str, str], Tensor], list[Call]]:
    """All maps; where one is blank, whether a gradient came there (B,); and the layers no target depends on."""
    maps: dict[Key, Tensor] = {}
    reached: dict[tuple[str, str], Tensor] = {}
    silent = dict.fromkeys(calls)
    for number, item in enumerate(asked, 1):

        def consume(call: Call, at: Signals, target: str = item.key) -> None:
            blank = False
            for name, method in methods.items():
                maps[name, target, call.name] = made = method(at)
                blank = blank or not (made.any() if len(made) == 1 else made.flatten(1).any(1).all())
            if blank:  # only then are all its gradients worth a look
                reached[target, call.name] = at.gradients.flatten(1).any(1)
            silent.pop(call, None)

        missed = differentiate(trace, item.scores, calls, consume, again=number < len(asked))
        for call in missed:
            if selection.insists_on(call) or len(missed) == len(calls):
                raise LayerError(
                    call.name, f"target {item.name!r} does not depend on it: no gradient reaches this layer."
                )
    return maps, reached, list(silent)


def silent_notes(silent: Sequence[Call]) -> list[str]:
    return [f"left out, as no target depends on them: {', '.join(call.name for call in silent)}"] if silent else []


def ordered(methods: dict[str, Method], asked: Sequence[Asked], calls: Sequence[Call]) -> list[Key]:
    return [(method, item.key, call.name) for method in methods for item in asked for call in calls]


def class_logits(trace: Trace) -> Tensor | None:
    try:
        return logits(trace.output).detach()
    except UsageError:
        return None


def answer(item: Asked, scores: Tensor | None) -> Answer:
    chances = None
    if item.classes is not None and scores is not None:
        chances = scores.float().softmax(1).gather(1, item.classes[:, None])[:, 0]
    return Answer(item.key, item.name, item.scores.detach(), item.classes, chances)


def info(call: Call, trace: Trace, *, asked: bool) -> LayerInfo:
    assert call.grid is not None
    notes = []
    if not call.grid.confirmed:
        notes.append("its axes were taken to be channels first; no convolution confirms that")
    if call.grid.prefix:
        notes.append(f"the first {call.grid.prefix} of its tokens stand for no place")
    if (times := trace.counts[call.module]) > 1:
        notes.append(f"call {call.index} of {times}")
    channels = call.grid.channels_first(call.output).shape[1]
    return LayerInfo(call.kind.__name__, call.grid.shape, channels, "; ".join(notes), asked)


# Inputs


def read_inputs(inputs: Any, loaded: LoadedModel) -> tuple[Tensor, tuple[Picture, ...] | None, bool]:
    """The tensor for the network, the pictures it was made from, and whether a single picture was given."""
    if isinstance(inputs, Tensor):
        if inputs.dim() < 3 or not inputs.is_floating_point():
            raise UsageError(
                f"inputs of shape {tuple(inputs.shape)}, {inputs.dtype}: give floats (B, C, height, width)."
            )
        return inputs, None, False
    single = not isinstance(inputs, (list, tuple))
    sources = [inputs] if single else list(inputs)
    if not sources:
        raise UsageError("no pictures: the list is empty.")
    if loaded.preprocess is None:
        raise UsageError(
            f"{loaded.uri} brings no preprocessing for pictures: pass preprocess=seewhy.Preprocess.imagenet(224), or a tensor."
        )
    pairs = [read_picture(source, loaded.preprocess) for source in sources]
    tensor = torch.cat([pair[0] for pair in pairs])
    like = next(loaded.module.parameters(), tensor)
    pictures = tuple(pair[1] for pair in pairs if pair[1] is not None)
    return tensor.to(like.device, like.dtype), pictures if len(pictures) == len(pairs) else None, single


def read_picture(source: Any, preprocess: Any) -> tuple[Tensor, Picture | None]:
    image = load_image(source)
    if isinstance(preprocess, Preprocess):
        tensor, view = preprocess(image)
        return tensor, Picture(name_of(source), image, view)
    tensor = preprocess(Image.fromarray(image))  # any other function tells nothing about where things went
    if not isinstance(tensor, Tensor) or tensor.dim() not in (3, 4):
        raise UsageError(f"the preprocess gave {type(tensor).__name__}; it must give a tensor (C, H, W).")
    return tensor if tensor.dim() == 4 else tensor[None], None


def with_fit(loaded: LoadedModel, fit: Fit) -> LoadedModel:
    if not isinstance(loaded.preprocess, Preprocess):
        raise UsageError(f"fit={fit!r}: only a seewhy.Preprocess can change how a picture meets the input size.")
    return replace(loaded, preprocess=loaded.preprocess.with_fit(fit))


# Provenance


def provenance(loaded: LoadedModel, *, hashed: bool) -> dict[str, Any]:
    """What made the maps, for results that should be made again: model, weights, preprocessing, versions."""
    preprocess = loaded.preprocess.to_dict() if isinstance(loaded.preprocess, Preprocess) else None
    kind = type(loaded.module)
    return {
        "model": loaded.uri,
        "class": f"{kind.__module__}.{kind.__qualname__}",
        # A bare module may be in the middle of training: its hash would cost more than the maps, and tell less.
        "weights": loaded.weights_hash if hashed else None,
        "preprocess": preprocess,
        "versions": versions(),
    }


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    for package in ("seewhy", "torchvision", "timm", "pillow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
