"""Targets of one call: bound to its images, resolved against the model's output, with the methods that suit them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from torch import Tensor

from seewhy.engine.inputs import Inputs, output_for
from seewhy.engine.options import Options
from seewhy.explanation.components import TargetResult
from seewhy.methods.base import AnyMethod, Weighted
from seewhy.methods.catalog import LINEAR
from seewhy.methods.gradient import GradCAM, HiResCAM
from seewhy.models.loaded_model import LoadedModel
from seewhy.targets import ResolvedTarget, Target, TargetContext, TopScore
from seewhy.targets.class_scores import probabilities
from seewhy.tracing.trace import Trace


def bind_targets(
    targets: Sequence[Target],
    inputs: Inputs,
    loaded: LoadedModel,
    *,
    multilabel: bool = False,
    normalized: bool = False,
) -> list[Target]:
    """Translate photo coordinates, texts and other images of targets into terms of the model."""
    context = TargetContext(
        size=tuple(inputs.tensor.shape[2:]),
        views=[image.view for image in inputs.images] if inputs.images else None,
        embed_text=loaded.embed_text,
        multilabel=multilabel,
        normalized=normalized,
        output_for=partial(output_for, loaded=loaded) if loaded.preprocess is not None else None,
    )
    return [target.bind(context) for target in targets]


def resolve_targets(
    targets: Sequence[Target],
    trace: Trace,
    labels: Sequence[str] | None,
    *,
    requested: Sequence[Target],
    multilabel: bool = False,
    normalized: bool = False,
) -> list[ResolvedTarget]:
    """Resolve each target against the output. Duplicates ("minibus" after 654) are merged; equal keys are numbered.

    `requested` are the same targets as the user passed them, before `bind_targets`.
    """
    resolved: list[ResolvedTarget] = []
    for target, request in zip(targets, requested, strict=True):
        new = resolve_target(target, request, trace.output, labels, multilabel=multilabel, normalized=normalized)
        same_key = [other for other in resolved if other.key.partition("#")[0] == new.key]
        duplicate = next((other for other in same_key if new.is_same_target(other)), None)
        if duplicate is not None:
            merged = dataclasses.replace(duplicate, requested=(*duplicate.requested, request))
            resolved[resolved.index(duplicate)] = merged
            continue
        if same_key:  # for example, two functions with the same name
            number = len(same_key) + 1
            new = dataclasses.replace(new, key=f"{new.key}#{number}", name=f"{new.name}#{number}")
        resolved.append(new)
    return resolved


def resolve_target(
    target: Target,
    requested: Target,
    output: object,
    labels: Sequence[str] | None,
    *,
    multilabel: bool = False,
    normalized: bool = False,
) -> ResolvedTarget:
    """Resolve one target against an output. `requested` is the target before `bind_targets`."""
    new = target.resolve(output, labels)
    return dataclasses.replace(
        new,
        multilabel=multilabel,
        normalized=normalized,
        key=new.key.replace("|", "/"),  # "|" separates method, target and layer in saved files
        requested=(*new.requested, requested),
    )


def other_targets(
    options: Options, methods: Iterable[str], main: Sequence[ResolvedTarget], scores: Tensor | None
) -> list[Target]:
    """Return the next most likely classes, which are explained so that they can be compared with the predicted class.

    There are none unless the user left the target open, the predicted class is one of several, and the map of a difference
    of classes is the difference of their maps.
    """
    if options.targets is not None or options.versus is not None or scores is None or main[0].classes is None:
        return []
    if not all(method.partition("(")[0] in LINEAR for method in methods):
        return []
    return [TopScore(rank) for rank in range(2, 2 + min(options.other_classes, scores.shape[1] - 1))]


def default_methods(targets: Sequence[ResolvedTarget]) -> dict[str, AnyMethod]:
    """Return Grad-CAM; HiResCAM, which keeps locations apart, if a target has a location."""
    method = HiResCAM() if any(target.has_location for target in targets) else GradCAM()
    return {str(method): method}


def target_notes(
    targets: Sequence[ResolvedTarget], methods: Mapping[str, AnyMethod], *, are_default: bool
) -> list[str]:
    """Return what was inferred about the targets, and which methods do not suit them."""
    notes = list(dict.fromkeys(note for target in targets for note in target.notes))
    if any(target.has_location for target in targets):
        coarse = [name for name, method in methods.items() if weights_channels(method)]
        if coarse:
            verb = "gives" if len(coarse) == 1 else "give"
            notes.append(
                f"{', '.join(coarse)} {verb} each channel a single weight, so other places with similar activations are "
                "highlighted as well; hirescam and layercam separate them"
            )
        elif are_default:
            notes.append(
                "method: hirescam, because the target has a location; gradcam gives each channel a single weight and mixes "
                "locations"
            )
    return notes


def target_result(target: ResolvedTarget, scores: Tensor | None, *, for_comparison: bool = False) -> TargetResult:
    """Return the key, name, score and, for a class, the probability of a target."""
    chosen = None
    if target.classes is not None and scores is not None:
        chosen = probabilities(scores.float(), target.multilabel, normalized=target.normalized).gather(
            1, target.classes[:, None]
        )[:, 0]
    return TargetResult(
        target.key,
        target.name,
        target.scores.detach(),
        target.classes,
        chosen,
        requested=target.requested,
        for_comparison=for_comparison,
    )


def weights_channels(method: AnyMethod) -> bool:
    """Return True if a method, or its base, gives each channel one weight, so that it cannot separate places."""
    return isinstance(getattr(method, "base", method), Weighted)
