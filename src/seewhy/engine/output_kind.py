"""Whether the class scores of a model are probabilities already, because it ends in its own softmax or sigmoid.

A second softmax would turn 0.41 into 0.21. That scores are probabilities is observed, not read from module names: they must
lie in [0, 1] for the inputs at hand and for random inputs of several sizes. If they do not sum to 1, that could be chance (the
single logit of an untrained network), so the operations that computed them must include a bounded function as well.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from seewhy.errors import INPUT_ERRORS
from seewhy.random_state import preserve_rng
from seewhy.targets.class_scores import class_scores
from seewhy.targets.probabilities import are_bounded, ends_in_bounded_function, sum_to_one
from seewhy.tracing.model_properties import model_of
from seewhy.tracing.single_input import for_image
from seewhy.tracing.twin import make_twin

SCALES = (1.0, 30.0, 1000.0)  # of the random inputs: logits grow with the input, probabilities stay in [0, 1]

SOFTMAX_NOTE = "the class scores sum to 1 for any input, so they are shown as probabilities, without another softmax"
SIGMOID_NOTE = (
    "the class scores lie in [0, 1] for any input, so they are shown as probabilities, without another sigmoid"
)
OVERRIDE = " (scores='logits' or --scores logits if they are not)"
ONE_NUMBER_NOTE = (
    "the model returns one number per image, which is read as the logit of class 0: its sigmoid is shown as the probability "
    "(scores='logits' confirms that; for a regression, use targets='value:mean')"
)

_cache: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def probability_note(module: nn.Module, inputs: Tensor, scores: Tensor | None) -> str:
    """Return why the class scores `(B, K)` of a model are probabilities, as a note; "" if they are logits.

    Runs the model on random inputs, once per model, and only if its scores for `inputs` could be probabilities.

    Args:
        module: The model.
        inputs: Its inputs `(B, C, *size)`.
        scores: The class scores for `inputs`, with their graph; None if the model has none.
    """
    if scores is None or not are_bounded(scores):
        return ""
    owner = model_of(module)
    note = _cache.get(owner)
    if note is None:
        note = observe(module, inputs, scores)
        if note is None:
            return ""
        _cache[owner] = note
    return "" if note == SIGMOID_NOTE + OVERRIDE and not ends_in_bounded_function(scores) else note


def number_note(scores: Tensor | None) -> str:
    """Return a note if logits (B, 1) are read as one class: the number could also be the result of a regression."""
    return ONE_NUMBER_NOTE if scores is not None and scores.shape[1] == 1 else ""


def observe(module: nn.Module, inputs: Tensor, scores: Tensor) -> str | None:
    """Return the note for a model whose scores for `inputs` lie in [0, 1]; None if random inputs do not show it."""
    tables: list[Tensor] = []
    for table in scores_of_random_inputs(module, inputs):
        if not are_bounded(table):
            return ""
        tables.append(table)
    is_constant = all(torch.allclose(table[:1], scores[:1]) for table in tables)
    if is_constant:  # of no tables too
        return None
    return (SOFTMAX_NOTE if all(map(sum_to_one, [scores, *tables])) else SIGMOID_NOTE) + OVERRIDE


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
