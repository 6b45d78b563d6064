"""Whether a model returns features instead of class scores: an embedding, or a network without its classifier.

The shape `(B, 512)` does not show which. Two observations do: vectors that have length 1 for any input, and a model whose
last operation with weights is a normalization layer. Both give a note; the numbers are still explained like classes.
"""

from __future__ import annotations

import weakref
from typing import Literal

import torch
from torch import Tensor, nn

from seewhy.engine.output_kind import scores_of_random_inputs
from seewhy.errors import INPUT_ERRORS
from seewhy.targets.class_scores import class_scores
from seewhy.targets.probability_checks import LINEAR, sum_to_one
from seewhy.tensors.random_state import preserve_rng
from seewhy.tracing.model_properties import model_of
from seewhy.tracing.single_input import for_image
from seewhy.tracing.twin import make_twin

NORMALIZATION = (
    "NativeBatchNorm",
    "CudnnBatchNorm",
    "MiopenBatchNorm",
    "NativeLayerNorm",
    "NativeGroupNorm",
    "FusedRmsNorm",
)
POOLING = ("Mean", "Pool", "Max", "Sum", "Select", "Index")
WEIGHTED = (*LINEAR, "Cdist", "EuclideanDist")
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1e-2}  # of a length
TOLERANCE_FLOAT = 1e-4
SATURATED = 0.99  # a probability that is nearly 1 leaves none for the others, so they have length 1 as well
ADVICE = "For all of them at once, use targets=Similarity(IMAGE) or 'like:IMAGE'."

_has_unit_length: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
_ends_in_normalization: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def length_note(module: nn.Module, inputs: Tensor, scores: Tensor | None) -> str:
    """Return a note if the class scores `(B, K)` of a model have length 1, as an embedding, else "".

    The model runs on random inputs, once, and only if the scores have length 1.

    Args:
        module: The model.
        inputs: Its inputs `(B, C, *size)`.
        scores: Its class scores; None if it has none.
    """
    if scores is None or not has_unit_length(scores) or sum_to_one(scores):
        return ""
    owner = model_of(module)
    if owner not in _has_unit_length:
        tables = [own for own in scores_of_random_inputs(module, inputs) if own.abs().max() < SATURATED]
        _has_unit_length[owner] = len(tables) > 1 and all(map(has_unit_length, tables))
    if not _has_unit_length[owner]:
        return ""
    return (
        f"the output has length 1 for these and for random inputs, like an embedding: its {scores.shape[1]} numbers are "
        f"explained as if they were classes. {ADVICE}"
    )


def classifier_note(module: nn.Module, inputs: Tensor, scores: Tensor | None) -> str:
    """Return a note if a model seems to have no classifier, else "". Arguments as for `length_note`, `scores` with their graph.

    The model runs again, once, if no layer with weights comes after the recorded ones.
    """
    if scores is None or scores.shape[1] < 2:
        return ""
    owner, last = model_of(module), last_layer(scores)
    if last is None:  # the recorded graph does not contain it
        if owner not in _ends_in_normalization:
            _ends_in_normalization[owner] = last_layer(scores_with_graph(module, inputs[:1])) == "normalization"
        last = "normalization" if _ends_in_normalization[owner] else "linear"
    if last == "linear":
        return ""
    return (
        f"no linear layer or convolution follows the last pooled normalization layer, so the {scores.shape[1]} numbers of the "
        f"output may be features: they are explained as if they were classes. {ADVICE} If they are class scores, pass "
        "labels=, or scores='logits'."
    )


def has_unit_length(scores: Tensor) -> bool:
    """Return True if each row of scores (B, K) has length 1."""
    allowed = TOLERANCE.get(scores.dtype, TOLERANCE_FLOAT)
    return scores.shape[1] > 2 and bool(((scores.detach().float().norm(dim=1) - 1).abs() < allowed).all())


def last_layer(scores: Tensor | None) -> Literal["linear", "normalization"] | None:
    """Return the kind of the last layers with weights in a graph; None without layers.

    A normalization layer counts if its output is pooled, or a token is selected: behind a linear layer it belongs to that one.
    """
    if scores is None:
        return None
    visited, queue = set[object](), [(scores.grad_fn, False)]
    found: Literal["linear"] | None = None
    while queue:
        node, is_pooled = queue.pop()
        if node is None or (node, is_pooled) in visited:
            continue
        visited.add((node, is_pooled))
        if node.name().startswith(NORMALIZATION) and is_pooled:
            return "normalization"
        if node.name().startswith(WEIGHTED):
            found = "linear"
            continue
        is_pooled = is_pooled or any(name in node.name() for name in POOLING)
        queue += [(source, is_pooled) for source, _ in node.next_functions]
    return found


def scores_with_graph(module: nn.Module, inputs: Tensor) -> Tensor | None:
    """Return the class scores for one input (1, C, *size), with a graph from the input."""
    twin = make_twin(for_image(module, 0))
    with torch.inference_mode(False), torch.enable_grad(), preserve_rng(inputs.device):
        try:
            return class_scores(twin(inputs.detach().clone().requires_grad_().clone()))
        except torch.OutOfMemoryError:
            raise
        except INPUT_ERRORS:  # an in-place operation that gradients do not allow
            return None
