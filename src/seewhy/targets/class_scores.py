"""Class scores in a model's output, and their probabilities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seewhy.errors import TargetError
from seewhy.nested import first_tensor, first_values, tensor_under, tensors_in

# Keys of the class scores in models with several outputs
NAMED = ("logits", "logits_per_image", "logits_per_video", "logits_per_audio", "out")


def find_scores(output: object) -> Tensor | None:
    """Return the tensor of an output that holds the class scores: its `logits`, or its first tensor.

    A loss or class indices in front of a table of numbers are skipped, and so is an embedding next to class scores.

    >>> import torch
    >>> find_scores((torch.tensor(0.5), torch.zeros(2, 5))).shape
    torch.Size([2, 5])
    """
    named = tensor_under(output, NAMED)
    first = first_tensor(output) if named is None else named
    is_embedding = isinstance(output, Mapping) and "embedding" in output and named is None
    if first is None or (first.is_floating_point() and first.dim() and not is_embedding):
        return first
    others = [value for key, value in output.items() if key != "embedding"] if isinstance(output, Mapping) else output
    tables = (tensor for tensor in tensors_in(others) if tensor.dim() == 2 and tensor.is_floating_point())
    return next(tables, first_values(output))


def logits(output: object, target: object = None) -> Tensor:
    """Return the class scores in a model's output: the tensor itself, its `logits`, or its first tensor.

    Args:
        output: The model's output: a tensor, or any nesting of tensors.
        target: What the error names as the target.

    Returns:
        Class scores `(B, K)` with their graph. A model with one number per image, `(B,)`, has one class; `(B, K, 1, 1)`
        are class scores too.

    Raises:
        TargetError: The output contains no class scores.

    Example:
        >>> import torch
        >>> logits({"logits": torch.zeros(2, 5), "hidden": torch.ones(2, 9)}).shape
        torch.Size([2, 5])
    """
    scores = find_scores(output)
    if isinstance(output, Mapping) and scores is not None and scores is output.get("embedding"):
        raise TargetError(
            target,
            "the model returns an embedding and no class scores; pass labels=[TEXT, ...], or a TextScore as target.",
        )
    if isinstance(scores, Tensor) and scores.is_floating_point():
        if scores.dim() == 1:
            scores = scores[:, None]
        elif scores.dim() > 2 and scores.shape[2:].numel() == 1:  # of a fully convolutional network
            scores = scores.flatten(1)
    if not isinstance(scores, Tensor) or scores.dim() != 2 or not scores.is_floating_point():
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(output).__name__
        raise TargetError(
            target,
            f"the model's output is {shape}, not class scores (B, K); pass 'value:mean' for values such as depth or features, "
            "a RegionScore, a BoxScore, or a function of the output as the target.",
        )
    return scores


def class_scores(output: object) -> Tensor | None:
    """Return the class scores `(B, K)` of an output; None if it has none."""
    try:
        return logits(output)
    except TargetError:
        return None


def probabilities(scores: Tensor, multilabel: bool = False, *, normalized: bool = False) -> Tensor:
    """Convert class scores to probabilities.

    Args:
        scores: Class scores `(N, K)`.
        multilabel: True: sigmoids, because each class has an independent probability. A single logit has a sigmoid too.
        normalized: True: the scores are probabilities already.

    Returns:
        Probabilities `(N, K)` in [0, 1]; softmax by default.

    Example:
        >>> import torch
        >>> probabilities(torch.tensor([[0.0, 0.0]]))
        tensor([[0.5000, 0.5000]])
    """
    if normalized:
        return scores
    return scores.sigmoid() if multilabel or scores.shape[1] == 1 else scores.softmax(1)


def log_probabilities(scores: Tensor, multilabel: bool = False, *, normalized: bool = False) -> Tensor:
    """Return the logarithms of `probabilities`, accurate where those round to 0 or 1.

    Args:
        scores: Class scores `(N, K)`.
        multilabel, normalized: As for `probabilities`.

    Returns:
        Log probabilities `(N, K)`, at most 0.

    Example:
        >>> import torch
        >>> log_probabilities(torch.tensor([[0.0, 0.0]]))
        tensor([[-0.6931, -0.6931]])
    """
    if normalized:
        return scores.clamp(min=torch.finfo(scores.dtype).tiny).log()
    return nn.functional.logsigmoid(scores) if multilabel or scores.shape[1] == 1 else scores.log_softmax(1)


def ambiguity_notes(output: object) -> tuple[str, ...]:
    """Return a note if several tensors of the output could be the class scores."""
    candidates = [tensor for tensor in tensors_in(output) if tensor.dim() == 2 and tensor.is_floating_point()]
    is_named = isinstance(output, Mapping) and set(NAMED) & set(output)
    used = find_scores(output)
    if len(candidates) < 2 or is_named or used is None:
        return ()
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in candidates)
    number = next((place for place, tensor in enumerate(candidates) if tensor is used), 0)
    which = "the first" if number == 0 else f"number {number + 1}"
    return (
        f"the model returns tensors of {shapes}: {which} is used as the class scores; for another, pass a function of the "
        "output as the target",
    )
