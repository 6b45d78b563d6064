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
from seewhy.random_state import preserve_rng
from seewhy.targets.class_scores import class_scores
from seewhy.targets.probabilities import LINEAR, sum_to_one
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
WEIGHTED = (*LINEAR, "Cdist", "EuclideanDist")
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1e-2}  # of a length
TOLERANCE_FLOAT = 1e-4
SATURATED = 0.99  # a probability that is nearly 1 leaves none for the others, so they have length 1 as well
ADVICE = "For all of them at once, use targets=Similarity(IMAGE) or 'like:IMAGE'."

_has_unit_length: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
_ends_in_normalization: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def feature_note(module: nn.Module, inputs: Tensor, scores: Tensor | None) -> str:
    """Return a note if the class scores `(B, K)` of a model look like features, else "".

    The model runs again, once, if the scores have length 1, or if no layer with weights comes after the recorded ones.

    Args:
        module: The model.
        inputs: Its inputs `(B, C, *size)`.
        scores: Its class scores, with their graph; None if it has none.
    """
    if scores is None:
        return ""
    owner, count = model_of(module), scores.shape[1]
    if has_unit_length(scores) and not sum_to_one(scores):
        if owner not in _has_unit_length:
            tables = [own for own in scores_of_random_inputs(module, inputs) if own.abs().max() < SATURATED]
            _has_unit_length[owner] = len(tables) > 1 and all(map(has_unit_length, tables))
        if _has_unit_length[owner]:
            return (
                f"the output has length 1 for any input, as an embedding: its {count} numbers are explained as if they "
                f"were classes. {ADVICE}"
            )
    last = last_layer(scores)
    if last is None:  # the recorded graph does not contain it
        if owner not in _ends_in_normalization:
            _ends_in_normalization[owner] = last_layer(scores_with_graph(module, inputs[:1])) == "normalization"
        last = "normalization" if _ends_in_normalization[owner] else "linear"
    if last == "normalization":
        return (
            f"no linear layer or convolution follows the last normalization layer, as in a model without its classifier: its "
            f"{count} numbers are explained as if they were classes. {ADVICE}"
        )
    return ""


def has_unit_length(scores: Tensor) -> bool:
    """Return True if each row of scores (B, K) has length 1."""
    allowed = TOLERANCE.get(scores.dtype, TOLERANCE_FLOAT)
    return scores.shape[1] > 2 and bool(((scores.detach().float().norm(dim=1) - 1).abs() < allowed).all())


def last_layer(scores: Tensor | None) -> Literal["linear", "normalization"] | None:
    """Return the kind of the last layers with weights in a graph: normalization if there is one. None without layers."""
    if scores is None:
        return None
    visited, queue = set[object](), [scores.grad_fn]
    found: Literal["linear"] | None = None
    while queue:
        node = queue.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if node.name().startswith(NORMALIZATION):
            return "normalization"
        if node.name().startswith(WEIGHTED):
            found = "linear"
        else:
            queue += [source for source, _ in node.next_functions]
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
