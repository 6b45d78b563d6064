"""Checks that a model's output has one row for each row of its input, which depends on this row only.

If another reading of the input or output is right, a check raises an exception that `input_groups` handles.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from seewhy.errors import INPUT_ERRORS, ModelError, TargetError
from seewhy.targets import ResolvedTarget
from seewhy.targets.class_scores import NAMED, find_scores
from seewhy.targets.detections import is_detections
from seewhy.targets.values import channel_axis
from seewhy.tensors.map_functions import nearly_equal
from seewhy.tensors.nested import first_tensor, tensor_under, tensors_in
from seewhy.tensors.random_state import preserve_rng
from seewhy.tracing.model_properties import input_key, model_of
from seewhy.tracing.single_input import SingleInputModel, are_rows, for_image
from seewhy.tracing.twin import make_twin

# Relative difference of one output in batches of other sizes, by the coarsest type of the model, its input and output
SAME_ROW = {torch.float16: 3e-2, torch.bfloat16: 1e-1, torch.float64: 1e-8}
SAME_ROW_FLOAT = 1e-4

_are_heads: weakref.WeakKeyDictionary[nn.Module, set[Hashable]] = weakref.WeakKeyDictionary()
_independent: weakref.WeakKeyDictionary[nn.Module, set[Hashable]] = weakref.WeakKeyDictionary()


class OtherRows(Exception):
    """The output has other rows than the input: `size` rows of the input belong to one of the output."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class OtherBatchAxis(Exception):
    """The rows of the output belong to the positions on another `axis` of the input than the first."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis


class NextToken(Exception):
    """The output has class scores for each of `count` tokens of a text."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count


class ListOfRows(Exception):
    """The output is a list with the output of each input."""


class SharedArguments(Exception):
    """The other arguments of the model are the same for all images, although they have as many rows."""


def check_rows(module: nn.Module, inputs: Tensor, output: object) -> None:
    """Check that a model returns one row for each row of its input, which depends on this row only.

    Raises:
        ListOfRows: It returns a list with one output per row.
        OtherRows: It has fewer rows.
        OtherBatchAxis: It has one row for each position on another axis.
        NextToken: It has class scores for each token of a text.
        ModelError: It has more rows, or the first row depends on others.
    """
    check_text(module, inputs, output)
    check_list(module, inputs, output)
    check_number_of_rows(module, inputs, output)
    check_independence(module, inputs, output)


def check_text(module: nn.Module, inputs: Tensor, output: object) -> None:
    """Raise NextToken if the output has class scores for each token of a text that the model was given.

    Tokens of an image may come before those of the text. Other outputs with three axes are masks, as of CLIPSeg.
    """
    if not isinstance(output, Mapping) or "logits" not in output or is_detections(output):
        return
    scores = output["logits"]
    if not isinstance(module, SingleInputModel) or not isinstance(scores, Tensor) or scores.dim() != 3:
        return
    lengths = module.text_lengths()
    if lengths and scores.shape[1] >= min(lengths) and channel_axis(scores, tuple(inputs.shape[2:])) is not None:
        raise NextToken(scores.shape[1])


def check_list(module: nn.Module, inputs: Tensor, output: object) -> None:
    """Raise ListOfRows if the output is a list with one output per input (not per head), unless these contain boxes.

    For as many entries as inputs, only another number of inputs distinguishes both. It runs once per model and shape.
    """
    if not are_rows(output, len(inputs)):
        return
    assert isinstance(output, (list, tuple))
    if isinstance(output[0], Mapping) and any("box" in str(key) for key in output[0]):
        return
    if len(inputs) == 1 and not isinstance(output[0], Mapping) and has_batch_axis(output[0]):
        return  # the output of one head
    cached, key = _are_heads.setdefault(model_of(module), set()), (len(inputs), *input_key(module, inputs))
    if key in cached:
        return
    others = inputs[:1] if len(inputs) > 1 else torch.cat([inputs, inputs])
    other = run(for_image(module, 0), others)
    if is_list_of_images(other, others) or (other is None and len(inputs) == 1):
        raise ListOfRows
    cached.add(key)


def has_batch_axis(output: object) -> bool:
    """Return True if all tensors of the output for one input have a batch axis."""
    return all(tensor.dim() and len(tensor) == 1 for tensor in tensors_in(output))


def check_number_of_rows(module: nn.Module, inputs: Tensor, output: object) -> None:
    """Raise OtherRows or OtherBatchAxis for fewer rows than inputs, and ModelError for more."""
    size = group_size(output, inputs)
    if len(inputs) > 1 and count_scores(output) not in (0, len(inputs)):
        check_batch_axis(module, inputs, output)
    if size > 1 or (len(inputs) == 1 and lacks_row_axis(output)):
        raise OtherRows(size)
    if isinstance(output, Tensor) and output.dim() > 1 and len(output) > len(inputs):
        raise other_rows(module, inputs, output)


def check_targets(module: nn.Module, inputs: Tensor, output: object, targets: Sequence[ResolvedTarget]) -> None:
    """Raise ModelError or TargetError if a target has not one score for each input."""
    for target in targets:
        if len(target.scores) == len(inputs):
            continue
        scores = find_scores(output)
        if target.classes is not None and scores is not None:
            raise other_rows(module, inputs, scores, ", or pass a function of the output as the target")
        raise TargetError(
            target.name, f"it has {len(target.scores)} scores for {len(inputs)} inputs; use another target."
        )


def other_rows(module: nn.Module, inputs: Tensor, output: Tensor, advice: str = "") -> ModelError:
    return ModelError(
        type(model_of(module)).__name__,
        f"its output {tuple(output.shape)} has {len(output)} rows for {len(inputs)} inputs: return one row per input, "
        f"(B, ...), in a wrapper{advice}.",
    )


def check_independence(module: nn.Module, inputs: Tensor, output: object) -> None:
    """Raise ModelError if the first row of the output depends on other rows of the input. Runs once per model and shape."""
    cached = _independent.setdefault(model_of(module), set())
    key = input_key(module, inputs)
    if len(inputs) < 2 or key in cached:
        return
    alone = run(for_image(module, 0), inputs[:1])
    if lacks_row_axis(alone):  # a network that ends in squeeze() has one for several inputs
        raise OtherRows(
            len(inputs) if lacks_row_axis(output) and len(scores_in(alone)) == len(scores_in(output)) else 1
        )
    if depends_on_others(module, inputs, output, alone):
        check_batch_axis(module, inputs, output)
        if isinstance(module, SingleInputModel) and module.per_image_arguments():
            shared = run(module.with_shared_arguments(), inputs[:1])
            is_same = shared is not None and is_same_row(output, shared, len(inputs), precision(module, inputs))
            if is_same and tensors_match(output, shared):
                raise SharedArguments
        raise ModelError(
            type(model_of(module)).__name__,
            "its output for an input depends on the other inputs of the batch: explain them one at a time, x[:1].",
        )
    cached.add(key)


def check_batch_axis(module: nn.Module, inputs: Tensor, output: object) -> None:
    """Raise OtherBatchAxis if each row of the output belongs to one position on another axis, as for clips (T, B, C, H, W)."""
    rows = count_scores(output)
    for axis in range(2, inputs.dim()):
        # An axis of length 1 counts for clips (T, 1, C, H, W) only: any other input has such an axis by chance.
        if inputs.shape[axis] == rows > (inputs.dim() < 5):
            alone = run(for_image(module, 0), inputs.narrow(axis, 0, 1))
            if count_scores(alone) == 1 and is_same_row(output, alone, rows, precision(module, inputs)):
                raise OtherBatchAxis(axis)


def count_scores(output: object) -> int:
    """Return the number of rows of the class scores (B, K); 0 if there are none."""
    scores = find_scores(output)
    return 0 if scores is None or scores.dim() < 2 else len(scores)


def lacks_row_axis(output: object) -> bool:
    """Return True if the output for one input is the class scores (K,) without a batch axis."""
    scores = find_scores(output)
    is_scores = (
        isinstance(output, Tensor) or scores is not first_tensor(output) or tensor_under(output, NAMED) is scores
    )
    if not is_scores or scores is None or not scores.is_floating_point():
        return False
    return scores.dim() == 0 or (scores.dim() == 1 and len(scores) > 1)


def scores_in(output: object) -> Tensor:
    scores = find_scores(output)
    assert scores is not None
    return scores.reshape(-1) if scores.dim() == 0 else scores


def depends_on_others(module: nn.Module, inputs: Tensor, output: object, alone: object) -> bool:
    """Return True if the first row of the output is another one than if the first input is passed `alone`."""
    accepted = precision(module, inputs)
    if alone is None or is_list_of_images(output, inputs) or is_same_row(output, alone, len(inputs), accepted):
        return False
    again = run(module, inputs)  # the output of a model with random numbers differs each time
    return all(
        nearly_equal(new, old.detach(), tolerance(old, accepted))
        for new, old in zip(tensors_in(again), tensors_in(output), strict=False)
    )


def is_same_row(output: object, alone: object, images: int, accepted: float) -> bool:
    if count_scores(output) == images and count_scores(alone) > 1:
        return False  # the rows are those of something else
    pairs = [
        (batch, own)
        for batch, own in zip(tensors_in(output), tensors_in(alone), strict=False)
        if own.is_floating_point() and own.dim() and len(own) == 1 and batch.dim() and len(batch) == images
    ]
    return all(
        batch.shape[1:] == own.shape[1:] and nearly_equal(batch[:1].detach(), own, tolerance(own, accepted))
        for batch, own in pairs
    )


def tensors_match(output: object, alone: object) -> bool:
    """Return True if the class scores of one image have the same classes as those of all."""
    scores, own = find_scores(output), find_scores(alone)
    return scores is not None and own is not None and scores.shape[1:] == own.shape[1:]


def precision(module: nn.Module, inputs: Tensor) -> float:
    """Return the largest relative difference that the types of a model's parameters and input explain."""
    types = {inputs.dtype, *(parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())}
    return max(SAME_ROW.get(one, SAME_ROW_FLOAT) for one in types)


def tolerance(tensor: Tensor, accepted: float) -> float:
    """Return the allowed difference of an output: `accepted` by the model, or by its type, if that is larger."""
    return max(SAME_ROW.get(tensor.dtype, SAME_ROW_FLOAT), accepted)


def group_size(output: object, inputs: Tensor) -> int:
    """Return how many rows of the input belong to one row of the output; 1 for an ordinary model."""
    first = find_scores(output)
    if first is None or not first.dim() or len(inputs) < 2 or is_list_of_images(output, inputs):
        return 1
    rows = 1 if first.dim() == 1 and len(first) != len(inputs) else len(first)
    return len(inputs) // rows if rows < len(inputs) and not len(inputs) % rows else 1


def is_list_of_images(output: object, inputs: Tensor) -> bool:
    """Return True if an output is a list with one entry per input, as of detectors."""
    return isinstance(output, (list, tuple)) and len(output) == len(inputs)


def run(module: nn.Module, inputs: Tensor) -> object:
    """Return the output of a model; None if it rejects the inputs."""
    with torch.inference_mode(False), torch.no_grad(), preserve_rng(inputs.device):
        try:
            return make_twin(module)(inputs.detach().clone())
        except torch.OutOfMemoryError:
            raise
        except INPUT_ERRORS:
            return None
