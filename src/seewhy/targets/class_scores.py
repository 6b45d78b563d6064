"""Class scores in a model's output, and their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from seewhy.errors import TargetError
from seewhy.tensors.nested import first_tensor, first_values, tensor_under, tensors_in, tensors_with_places

# Keys of the class scores in models with several outputs
NAMED = ("logits", "logits_per_image", "logits_per_video", "logits_per_audio", "out")
FEATURES = ("embedding", "embeddings", "features", "feature_map")  # keys of what is not class scores
LISTED = 6  # tensors that a note lists


def find_scores(output: object) -> Tensor | None:
    """Return the tensor of an output that holds the class scores: its `logits`, or its first tensor.

    A loss or class indices in front of a table of numbers are skipped, and so are named features next to class scores.

    >>> import torch
    >>> find_scores((torch.tensor(0.5), torch.zeros(2, 5))).shape
    torch.Size([2, 5])
    """
    named = tensor_under(output, NAMED)
    first = first_tensor(output) if named is None else named
    features = [tensor_under(output, [name]) for name in FEATURES] if named is None else []
    is_features = any(first is one for one in features)
    if first is None or (first.is_floating_point() and first.dim() and not is_features):
        return first
    tables = (tensor for tensor in tensors_in(output) if tensor.dim() == 2 and tensor.is_floating_point())
    return next((table for table in tables if not any(table is one for one in features)), first_values(output))


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
        check_output(output, target)
        shape = describe_tensor(scores) if isinstance(scores, Tensor) else type(output).__name__
        if isinstance(scores, Tensor) and not scores.is_floating_point():
            raise TargetError(
                target,
                f"the model's output is {shape}, not class scores (B, K); explain a model that returns the scores before "
                f"argmax or rounding{other_tensors(output, scores)}.",
            )
        raise TargetError(
            target,
            f"the model's output is {shape}, not class scores (B, K); pass 'value:mean' for values such as depth or features, "
            f"a RegionScore, a BoxScore, or a function of the output as the target{other_tensors(output, scores)}.",
        )
    return scores


def describe_tensor(tensor: Tensor) -> str:
    """Return the shape of a tensor, and its type if it has no gradients."""
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"


def check_output(output: object, target: object) -> None:
    """Raise TargetError if the output of a model contains no tensor, so that no target can be computed from it."""
    if next(iter(tensors_in(output)), None) is None:
        kind = "None" if output is None else f"{type(output).__name__} without a tensor"
        raise TargetError(
            target, f"the model's output is {kind}, not class scores (B, K); its forward must return them as a tensor."
        )


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


def candidate_notes(output: object, used: Tensor | None, names: Sequence[str] = NAMED) -> tuple[str, ...]:
    """Return a note if several tensors of the output could be explained, and none of `names` identifies `used`.

    Args:
        output: The model's output.
        used: The tensor of it that is explained.
        names: The keys that identify such a tensor.
    """
    if used is None or not used.dim() or tensor_under(output, names) is used:
        return ()
    candidates: dict[int, tuple[str, Tensor]] = {}
    for place, tensor in tensors_with_places(output):
        if tensor.is_floating_point() and tensor.dim() and len(tensor) == len(used):
            candidates.setdefault(id(tensor), (place, tensor))
    if len(candidates) < 2 or id(used) not in candidates:
        return ()
    place, _ = candidates.pop(id(used))
    others = sorted(candidates.values(), key=lambda pair: pair[1].dim() != 2)  # tables first
    listed = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in others[:LISTED])
    name, tensor = others[0]
    example = name + ("" if tensor.dim() == 1 else "[:, 0]" if tensor.dim() == 2 else ".flatten(1).mean(1)")
    return (
        f"the model returns several tensors: {place} {tuple(used.shape)} is explained, and not {listed}"
        f"{', ...' if len(others) > LISTED else ''}; for another, pass a function of the output, such as "
        f"targets=lambda output: {example}",
    )


def order_notes(output: object) -> tuple[str, ...]:
    """Return a note if unnamed class scores come with an integer for each, as the classes that `topk` returns."""
    used = find_scores(output)
    if used is None or used.dim() != 2 or tensor_under(output, NAMED) is used:
        return ()
    return tuple(
        f"{place} has an integer for each score: if these are the classes, as of topk, 'class 0' is the first of that list; "
        "for class numbers, pass a model that returns the scores of all classes in their order"
        for place, tensor in tensors_with_places(output)
        if tensor.shape == used.shape and not tensor.is_floating_point() and tensor.dtype != torch.bool
    )[:1]


def other_tensors(output: object, used: object) -> str:
    """Return the note about other tensors of the output as a part of a sentence; "" without one."""
    return "".join(f"; {note}" for note in candidate_notes(output, used if isinstance(used, Tensor) else None))
