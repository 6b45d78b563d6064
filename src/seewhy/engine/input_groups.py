"""Models whose output does not have one row for each row of the input batch.

A network may take the patches of a bag, or the frames of a clip, as its batch (N, C, H, W), and return one row of scores. The
batch is then one input with N parts: the model gets inputs (B, C, N, H, W), so that everything else sees one row per input.

A model can also mix the rows of a batch and still return one output per row. Its answer to an image depends on the other
images then, and so would the map: `check_rows` raises an error.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from seewhy.engine.inputs import ONE_ROW_PER_IMAGE, Inputs
from seewhy.errors import INPUT_ERRORS, ModelError
from seewhy.nested import first_tensor, tensors_in
from seewhy.random_state import preserve_rng
from seewhy.targets.class_scores import find_scores
from seewhy.targets.detections import is_detections
from seewhy.tensors import nearly_equal
from seewhy.tracing.model_properties import input_key, model_of
from seewhy.tracing.single_input import SingleInputModel, are_rows, for_image
from seewhy.tracing.twin import make_twin

# Relative difference of one output in batches of other sizes, by the coarsest type of the model, its input and output
SAME_ROW = {torch.float16: 3e-2, torch.bfloat16: 1e-1, torch.float64: 1e-8}
SAME_ROW_FLOAT = 1e-4

_are_heads: weakref.WeakKeyDictionary[nn.Module, set[Hashable]] = weakref.WeakKeyDictionary()
_independent: weakref.WeakKeyDictionary[nn.Module, set[Hashable]] = weakref.WeakKeyDictionary()

Result = TypeVar("Result")


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


def with_row_groups(function: Callable[[Inputs], Result], given: Inputs) -> Result:
    """Return `function(given)`; if the model combines rows of its input, with these rows as one input."""
    try:
        return function(given)
    except OtherRows as rows:
        return function(as_groups(given, rows.size))
    except OtherBatchAxis as other:
        return with_row_groups(function, with_batch_axis(given, other.axis))
    except NextToken as text:
        assert isinstance(given.module, SingleInputModel)
        note = (
            f"the output has class scores for each of {text.count} tokens: those of the last one are explained, which predict "
            "the next token"
        )
        return function(replace(given, module=given.module.with_last_token(), notes=(*given.notes, note)))
    except ListOfRows:
        note = "the model returns a list with one output per input; targets get one output, stacked along a batch axis"
        module = as_single_input(given).with_stacked_rows()
        return with_row_groups(function, replace(given, module=module, notes=(*given.notes, note)))
    except SharedArguments:
        assert isinstance(given.module, SingleInputModel)
        names = ", ".join(given.module.per_image_arguments())
        notes = [note for note in given.notes if not note.startswith(ONE_ROW_PER_IMAGE)]
        notes.append(f"the rows of these arguments do not belong to one image each: {names}")
        return function(replace(given, module=given.module.with_shared_arguments(), notes=tuple(notes)))
    except ModelError:  # a model that takes several rows only may reject the first one alone
        size = group_size(run(given.module, given.tensor), given.tensor)
        if size < 2:
            raise
        return function(as_groups(given, size))


def check_rows(module: nn.Module, inputs: Tensor, output: object) -> None:
    """Check that a model returns one row for each row of its input, which depends on this row only.

    Raises:
        ListOfRows: It returns a list with one output per row.
        OtherRows: It has fewer rows.
        OtherBatchAxis: It has one row for each position on another axis.
        NextToken: It has class scores for each token of a text.
        ModelError: It has more rows, or the first row depends on others.
    """
    check_text(module, output)
    check_list(module, inputs, output)
    check_number_of_rows(module, inputs, output)
    check_independence(module, inputs, output)


def check_text(module: nn.Module, output: object) -> None:
    """Raise NextToken if the output has class scores for each token of a text that the model was given."""
    if not isinstance(output, Mapping) or "logits" not in output or is_detections(output):
        return
    scores = output["logits"]
    if isinstance(module, SingleInputModel) and module.has_text() and isinstance(scores, Tensor) and scores.dim() == 3:
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
        raise ModelError(
            type(model_of(module)).__name__,
            f"its output {tuple(output.shape)} has {len(output)} rows for {len(inputs)} inputs: return one row per input, "
            "(B, ...), in a wrapper.",
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
        if inputs.shape[axis] == rows > 0:
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
    is_scores = isinstance(output, Tensor) or scores is not first_tensor(output)
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
    """Return the allowed difference of an output: `accepted` by the model, or that of its own type, if it is larger."""
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


def as_single_input(given: Inputs) -> SingleInputModel:
    """Return the module of the inputs as a `SingleInputModel`."""
    if isinstance(given.module, SingleInputModel):
        return given.module
    return SingleInputModel(given.module, (None,), {}, 0, len(given.tensor))


def with_batch_axis(given: Inputs, axis: int) -> Inputs:
    """Return inputs with the batch on the first axis, which the model takes on another one."""
    tensor, module = given.tensor.transpose(0, axis).contiguous(), as_single_input(given)
    note = (
        f"the output has one row for each position on axis {axis} of {tuple(given.tensor.shape)}, so this axis is the batch: "
        f"the inputs are {tuple(tensor.shape)}"
    )
    module = module.with_batch_axis(axis, len(tensor))
    return replace(given, tensor=tensor, module=module, images=None, notes=(*given.notes, note))


def as_groups(given: Inputs, size: int) -> Inputs:
    """Return inputs (B / size, C, size, *input size), one for each row of the output."""
    tensor, module, note = given.tensor, as_single_input(given), "the output has no batch axis; one was added"
    if size == 1:
        return replace(given, module=module.with_row_axis(), notes=(*given.notes, note))
    note = (
        f"the model returns one output for {size} rows of its input {tuple(tensor.shape)}: they are explained together, as "
        "parts of one input"
    )
    groups = tensor.reshape(-1, size, *tensor.shape[1:]).movedim(1, 2)
    return replace(
        given, tensor=groups, module=module.with_groups(len(groups)), images=None, notes=(*given.notes, note)
    )
