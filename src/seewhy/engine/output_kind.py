"""Whether the class scores of a model are probabilities already, because it ends in its own softmax or sigmoid.

A second softmax would turn 0.41 into 0.21. That scores are probabilities is observed, not read from module names: they must
lie in [0, 1] for the inputs at hand and for random inputs of several sizes. If they do not sum to 1, that could be chance (the
single logit of an untrained network), so the operations that computed them must include a bounded function as well.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from seewhy.random_state import preserve_rng
from seewhy.targets.class_scores import class_scores
from seewhy.tracing.model_properties import model_of
from seewhy.tracing.single_input import for_image
from seewhy.tracing.twin import make_twin

SCALES = (1.0, 30.0, 1000.0)  # of the random inputs: logits grow with the input, probabilities stay in [0, 1]
BOUNDED = ("Sigmoid", "Softmax", "Hardsigmoid", "Tanh", "Clamp", "Hardtanh")  # in the names of autograd nodes
LINEAR = ("Addmm", "Mm", "Bmm", "Convolution", "LinearBackward")  # the search for a bounded function ends here
TOLERANCE = 2e-3  # of a sum of half-precision numbers

SOFTMAX_NOTE = "the class scores sum to 1 for any input, so they are shown as probabilities, without another softmax"
SIGMOID_NOTE = (
    "the class scores lie in [0, 1] for any input, so they are shown as probabilities, without another sigmoid"
)
OVERRIDE = " (scores='logits' or --scores logits if they are not)"

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
    if owner not in _cache:
        _cache[owner] = observe(module, inputs, scores)
    note = _cache[owner]
    return "" if note == SIGMOID_NOTE + OVERRIDE and not ends_in_bounded_function(scores) else note


def ends_in_bounded_function(scores: Tensor) -> bool:
    """Return True if a sigmoid or a similar function comes after the last linear layer or convolution."""
    visited, queue = set(), [scores.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        name = node.name()
        if any(part in name for part in BOUNDED):
            return True
        if not name.startswith(LINEAR):
            queue += [source for source, _ in node.next_functions]
    return False


def observe(module: nn.Module, inputs: Tensor, scores: Tensor) -> str:
    """Return the note for a model whose scores for `inputs` lie in [0, 1]."""
    tables = [scores.detach()]
    twin = make_twin(for_image(module, 0))
    with torch.inference_mode(False), torch.no_grad(), preserve_rng(inputs.device):
        for seed, scale in enumerate(SCALES):
            noise = torch.randn(inputs[:1].shape, generator=torch.Generator().manual_seed(seed)) * scale
            try:
                table = class_scores(twin(noise.to(inputs)))
            except (RuntimeError, ValueError, TypeError, IndexError):  # a model that rejects such values
                continue
            if table is None or not are_bounded(table):
                return ""
            tables.append(table)
    is_constant = all(torch.allclose(table[:1], tables[0][:1]) for table in tables[1:])
    if len(tables) == 1 or is_constant:
        return ""
    return (SOFTMAX_NOTE if all(map(sum_to_one, tables)) else SIGMOID_NOTE) + OVERRIDE


def are_bounded(scores: Tensor) -> bool:
    return bool((scores >= 0).all() and (scores <= 1 + TOLERANCE).all())


def sum_to_one(scores: Tensor) -> bool:
    return scores.shape[1] > 1 and bool(((scores.float().sum(1) - 1).abs() < TOLERANCE).all())
