"""Questions brought to a model: bound to its photos, asked of its output, and the method that fits them by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor

from seewhy.engine.inputs import Given, output_for
from seewhy.errors import UsageError
from seewhy.explanation.components import TargetResult
from seewhy.methods.base import AnyMethod, weights_channels
from seewhy.methods.gradient import GradCAM, HiResCAM
from seewhy.models.loading import LoadedModel
from seewhy.targets import ResolvedTarget, Target, TargetContext, logits, probabilities
from seewhy.tracing.trace import Trace


def bound(questions: Sequence[Target], given: Given, loaded: LoadedModel, *, multilabel: bool = False) -> list[Target]:
    """The questions with what they say about photos, texts and other pictures brought to the network's terms."""
    around = TargetContext(
        size=tuple(given.tensor.shape[2:]),
        views=[picture.view for picture in given.pictures] if given.pictures else None,
        embed_text=loaded.embed_text,
        multilabel=multilabel,
        output_for=partial(output_for, loaded=loaded) if loaded.preprocess is not None else None,
    )
    return [origin.bind(around) for origin in questions]


def resolve(
    questions: Sequence[Target], trace: Trace, labels: Sequence[str] | None, *, multilabel: bool = False
) -> list[ResolvedTarget]:
    """Each question asked of the output; one that asks the same as an earlier one ("minibus" after 654) is left out."""
    asked: list[ResolvedTarget] = []
    for item in (origin.resolve(trace.output, labels) for origin in questions):
        item.multilabel = multilabel
        item.key = item.key.replace("|", "/")  # which stands between method, target and layer in files
        is_equal = [other for other in asked if other.key.partition("#")[0] == item.key]
        if any(item.is_same_target(other) for other in is_equal):
            continue
        if is_equal:  # two functions of one name, or two tensors of classes
            item.name = f"{item.name}#{len(is_equal) + 1}"
            item.key = f"{item.key}#{len(is_equal) + 1}"
        asked.append(item)
    return asked


def default_methods(asked: Sequence[ResolvedTarget]) -> dict[str, AnyMethod]:
    """Grad-CAM; where a question is about a place HiResCAM, which keeps places apart."""
    method = HiResCAM() if any(item.dense for item in asked) else GradCAM()
    return {str(method): method}


def notes_on(asked: Sequence[ResolvedTarget], methods: Mapping[str, AnyMethod], *, chosen: bool) -> list[str]:
    """What was inferred about the questions, and which methods do not fit them."""
    notes = list(dict.fromkeys(note for item in asked for note in item.notes))
    if any(item.dense for item in asked):
        coarse = [name for name, method in methods.items() if weights_channels(method)]
        if coarse:
            notes.append(
                f"{', '.join(coarse)} weigh{'s' if len(coarse) == 1 else ''} whole channels, so a place and others that "
                "look like it light up alike; hirescam and layercam keep them apart"
            )
        elif not chosen:
            notes.append(
                "hirescam, as the question is about a place: gradcam weighs whole channels and mixes places up"
            )
    return notes


def class_logits(trace: Trace) -> Tensor | None:
    """The class scores (B, K) of the output, where it has any."""
    try:
        return logits(trace.output).detach()
    except UsageError:
        return None


def answer(item: ResolvedTarget, scores: Tensor | None, multilabel: bool) -> TargetResult:
    chances = None
    if item.classes is not None and scores is not None:
        chances = probabilities(scores.float(), multilabel).gather(1, item.classes[:, None])[:, 0]
    return TargetResult(item.key, item.name, item.scores.detach(), item.classes, chances)
