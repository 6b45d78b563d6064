"""Models whose output does not have one row for each row of the input batch.

A network may take the patches of a bag, or the frames of a clip, as its batch (N, C, H, W), and return one row of scores. The
batch is then one input with N parts: the model gets inputs (B, C, N, H, W), so that everything else sees one row per input.

A model can also mix the rows of a batch and still return one output per row. Its answer to an image depends on the other
images then, and so would the map: `row_checks` raises an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from seewhy.engine.inputs import ONE_ROW_PER_IMAGE, Inputs
from seewhy.engine.row_checks import ListOfRows, NextToken, OtherBatchAxis, OtherRows, SharedArguments, group_size, run
from seewhy.errors import ModelError
from seewhy.tracing.single_input import SingleInputModel

Result = TypeVar("Result")


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
