"""Whether numbers that a model returns are probabilities: in [0, 1], and computed by a bounded function."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

# In the names of autograd nodes; "Exp" for a sigmoid or a kernel that is written out
BOUNDED = ("Sigmoid", "Softmax", "Hardsigmoid", "Tanh", "Clamp", "Hardtanh", "Exp", "Erf")
LOGARITHMS = ("Log", "Softplus")
LINEAR = ("Addmm", "Mm", "Bmm", "Convolution", "LinearBackward")  # the search for a bounded function ends at weights
TOLERANCE = 2e-3  # of a sum of half-precision numbers


def are_bounded(scores: Tensor) -> bool:
    """Return True if all values are finite and lie in [0, 1]."""
    return bool((scores >= 0).all() and (scores <= 1 + TOLERANCE).all())


def sum_to_one(scores: Tensor) -> bool:
    """Return True if each row of scores (B, K) sums to 1."""
    return scores.shape[1] > 1 and bool(((scores.float().sum(1) - 1).abs() < TOLERANCE).all())


def are_percentages(scores: Tensor) -> bool:
    """Return True if scores (B, K) are not negative, and each row sums to 100."""
    return bool((scores >= 0).all()) and sum_to_one(scores / 100)


def are_logarithms(scores: Tensor) -> bool:
    """Return True if no score (B, K) is positive, and the exponentials do not sum to 1, as after a log-softmax."""
    return bool((scores <= 0).all()) and not sum_to_one(scores.exp())


def ends_in_bounded_function(scores: Tensor, functions: Sequence[str] = BOUNDED) -> bool:
    """Return True if a sigmoid or a similar function comes after the last linear layer or convolution.

    A product of two values that depend on the input, such as a mixture of probabilities, is no layer.
    """
    visited, queue = set(), [scores.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        name = node.name()
        if any(part in name for part in functions):
            return True
        sources = [source for source, _ in node.next_functions if source is not None]
        if not name.startswith(LINEAR) or len(sources) > 1:
            queue += sources
    return False
