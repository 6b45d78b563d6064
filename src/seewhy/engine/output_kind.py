"""Whether the class scores of a model are probabilities already, because it ends in its own softmax or sigmoid.

A second softmax would turn 0.41 into 0.21. That scores are probabilities is observed, not read from module names: they must
lie in [0, 1] for the inputs at hand and for random inputs of several sizes. If they do not sum to 1, that could be chance (the
single logit of an untrained network), so the operations that computed them must include a bounded function as well; without
a known one, a note states that they may be probabilities. So does a note for percentages, and for the logarithms of the
probabilities of independent labels, which a sigmoid does not turn back into probabilities.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seewhy.errors import INPUT_ERRORS
from seewhy.targets.class_scores import class_scores
from seewhy.targets.probability_checks import (
    LOGARITHMS,
    are_bounded,
    are_logarithms,
    are_percentages,
    ends_in_bounded_function,
    sum_to_one,
)
from seewhy.tensors.random_state import preserve_rng
from seewhy.tracing.model_properties import model_of
from seewhy.tracing.single_input import for_image
from seewhy.tracing.twin import make_twin

SCALES = (1.0, 30.0, 1000.0)  # of the random inputs: logits grow with the input, probabilities stay in [0, 1]

SOFTMAX_NOTE = (
    "the class scores sum to 1 for these and for random inputs, so they are shown as probabilities, without another "
    "softmax"
)
SIGMOID_NOTE = (
    "the class scores lie in [0, 1] for these and for random inputs, so they are shown as probabilities, without another "
    "sigmoid"
)
OVERRIDE = " (scores='logits' or --scores logits if they are not)"
MAYBE_NOTE = (
    "the class scores lie in [0, 1] for these and for random inputs: if they are probabilities, pass scores='probabilities' "
    "(--scores probabilities); without it, they are read as logits, with a softmax or sigmoid"
)
PERCENT_NOTE = (
    "the class scores sum to 100 for these and for random inputs, like percentages, but are read as logits, with a softmax: "
    "pass a model that returns output / 100"
)
LOGARITHM_NOTE = (
    "the class scores are at most 0 for these and for random inputs, like logarithms of the probabilities of independent "
    "labels, but are read as logits, with a softmax or sigmoid: pass a model that returns output.exp(), or the logits"
)
ONE_NUMBER_NOTE = (
    "the model returns one number per image, which is read as the logit of class 0: its sigmoid is shown as the probability "
    "(scores='logits' or --scores logits confirms that; for a regression, use targets='value:mean')"
)


class OutputKind(NamedTuple):
    """What class scores are: probabilities already, or logits. The note states what was inferred."""

    note: str = ""
    is_probability: bool = False


# What class scores (B, K) can be, if they look like it for any input
KINDS: dict[OutputKind, Callable[[Tensor], bool]] = {
    OutputKind(SOFTMAX_NOTE + OVERRIDE, True): lambda scores: are_bounded(scores) and sum_to_one(scores),
    OutputKind(SIGMOID_NOTE + OVERRIDE, True): are_bounded,
    OutputKind(PERCENT_NOTE): are_percentages,
    OutputKind(LOGARITHM_NOTE): are_logarithms,
}
LOGITS, SIGMOID, LOGARITHM = OutputKind(), OutputKind(SIGMOID_NOTE + OVERRIDE, True), OutputKind(LOGARITHM_NOTE)

_cache: weakref.WeakKeyDictionary[nn.Module, dict[tuple[OutputKind, ...], OutputKind]] = weakref.WeakKeyDictionary()


def find_output_kind(module: nn.Module, inputs: Tensor, scores: Tensor | None) -> OutputKind:
    """Return whether the class scores `(B, K)` of a model are probabilities or logits.

    Runs the model on random inputs, once per model, and only if its scores for `inputs` look like something else than logits.

    Args:
        module: The model.
        inputs: Its inputs `(B, C, *size)`.
        scores: The class scores for `inputs`, with their graph; None if the model has none.
    """
    if scores is None:
        return LOGITS
    possible = tuple(kind for kind, fits in KINDS.items() if fits(scores))
    if LOGARITHM in possible and not ends_in_bounded_function(scores, LOGARITHMS):
        possible = tuple(kind for kind in possible if kind != LOGARITHM)
    if not possible:
        return LOGITS
    cached = _cache.setdefault(model_of(module), {})
    kind = cached.get(possible)
    if kind is None:
        kind = observe(module, inputs, scores, possible)
        if kind is None:
            return LOGITS
        cached[possible] = kind
    return OutputKind(MAYBE_NOTE) if kind == SIGMOID and not ends_in_bounded_function(scores) else kind


def number_note(scores: Tensor | None, multilabel: bool) -> str:
    """Return a note if logits (B, 1) are read as one class, unless the user stated it: they could be those of a regression."""
    return ONE_NUMBER_NOTE if scores is not None and scores.shape[1] == 1 and not multilabel else ""


def observe(module: nn.Module, inputs: Tensor, scores: Tensor, possible: tuple[OutputKind, ...]) -> OutputKind | None:
    """Return which of the possible kinds the scores have for random inputs, too; None if these do not show it."""
    is_constant = True
    for table in scores_of_random_inputs(module, inputs):
        possible = tuple(kind for kind in possible if KINDS[kind](table))
        if not possible:
            return LOGITS
        is_constant &= torch.allclose(table[:1], scores[:1])
    return None if is_constant else possible[0]


def scores_of_random_inputs(module: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
    """Yield the class scores `(1, K)` for random inputs with larger and larger values, unless the model rejects them."""
    for seed, scale in enumerate(SCALES):
        noise = torch.randn(inputs[:1].shape, generator=torch.Generator().manual_seed(seed)) * scale
        table = run(module, noise.to(inputs))
        if table is None:  # a logarithm or a square root accepts positive values only
            table = run(module, noise.abs().to(inputs))
        if table is not None:
            yield table


def run(module: nn.Module, inputs: Tensor) -> Tensor | None:
    """Return the class scores for one input; None if the model rejects such values, or has no finite scores for them."""
    twin = make_twin(for_image(module, 0))
    with torch.inference_mode(False), torch.no_grad(), preserve_rng(inputs.device):
        try:
            scores = class_scores(twin(inputs))
        except torch.OutOfMemoryError:
            raise
        except INPUT_ERRORS:
            return None
    return scores if scores is not None and bool(scores.isfinite().all()) else None
