"""Adapt a model with several inputs to one input: the main input varies, the other arguments stay fixed.

Methods and targets call `model(inputs)`. `SingleInputModel` stores the other arguments and adds them to each call.
Arguments with one row per image follow the batch: `for_image` keeps the rows of one image, and `forward` expands them
to any batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.tensors.nested import first_tensor, map_tensors, outline, tensors_in

NO_BATCH = -1  # no tensor has so many rows


class SingleInputModel(nn.Module):
    """`model` with all arguments fixed except the main input.

    Args:
        model: The wrapped model. Its layers keep their names.
        args: The positional arguments. The value at the place of the main input is ignored.
        kwargs: The keyword arguments.
        main: The position of the main input in `args`, or its name in `kwargs`.
        batch: The number of images. Tensors whose first axis has this length have one row per image.
        restore: Returns the main input (B, C, *size) in the order of axes that the model takes. None: the same.
        reads_last_token: True if the logits of the last token are the output, as for the next word of a text.
        batch_axis: The axis on which the model takes the batch: `restore` moves it there.
        stacks_rows: True if the model returns a list with the output of each input, which becomes one output with rows.
        is_grouped: True if `restore` returns several rows per input, of which the model makes one output.

    >>> import torch
    >>> net = nn.Bilinear(2, 2, 1)
    >>> model = SingleInputModel(net, (None, torch.ones(3, 2)), {}, 0, batch=3)
    >>> model(torch.zeros(3, 2)).shape, model.for_image(1)(torch.zeros(5, 2)).shape
    (torch.Size([3, 1]), torch.Size([5, 1]))
    """

    def __init__(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        main: int | str,
        batch: int,
        restore: Callable[[Tensor], Tensor] | None = None,
        *,
        is_grouped: bool = False,
        reads_last_token: bool = False,
        batch_axis: int = 0,
        stacks_rows: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.args, self.kwargs, self.main, self.batch = args, dict(kwargs), main, batch
        self.restore, self.is_grouped, self.reads_last_token = restore, is_grouped, reads_last_token
        self.batch_axis, self.stacks_rows = batch_axis, stacks_rows

    def forward(self, inputs: Tensor) -> Any:
        count = len(inputs)

        def expand(tensor: Tensor) -> Tensor:
            if self.batch == 1 and count > 1 and has_batch_axis(tensor, 1):
                return tensor.expand(count, *tensor.shape[1:])
            return tensor

        args, kwargs = self.map_arguments(expand)

        def call(inputs: Tensor) -> Any:
            rows, inputs = len(inputs), inputs if self.restore is None else self.restore(inputs)
            if isinstance(self.main, str):
                output = self.model(*args, **{**kwargs, self.main: inputs})
            else:
                output = self.model(*args[: self.main], inputs, *args[self.main + 1 :], **kwargs)
            if self.stacks_rows and are_rows(output, rows):
                output = stack_rows(output)
            return {"logits": output["logits"][:, -1]} if self.reads_last_token else output

        if not self.is_grouped:
            return call(inputs)
        output = with_row_axis(call(inputs), count)
        if count_rows(output) == count:
            return output
        return concatenate_rows([with_row_axis(call(one), 1) for one in torch.split(inputs, 1)])

    def for_image(self, index: int) -> SingleInputModel:
        """Return the model with the other arguments of one image, for any number of variants of that image."""

        def select_row(tensor: Tensor) -> Tensor:
            return tensor[index : index + 1] if has_batch_axis(tensor, self.batch) else tensor

        args, kwargs = self.map_arguments(select_row)
        return self.copy(args=args, kwargs=kwargs, batch=1)

    def copy(self, **changes: Any) -> SingleInputModel:
        """Return the same model with other settings."""
        names = ("model", "args", "kwargs", "main", "batch", "restore", "is_grouped", "reads_last_token", "batch_axis")
        return SingleInputModel(**{name: getattr(self, name) for name in (*names, "stacks_rows")} | changes)

    def with_restore(self, restore: Callable[[Tensor], Tensor]) -> SingleInputModel:
        """Return the model with another order of the main input's axes."""
        return self.copy(restore=restore)

    def with_row_axis(self) -> SingleInputModel:
        """Return the model with a batch axis added to outputs without one."""
        return self.copy(is_grouped=True)

    def with_groups(self, count: int) -> SingleInputModel:
        """Return the model for `count` inputs (count, C, rows, *size), whose rows it takes as a batch."""
        own = self.restore

        def restore(inputs: Tensor) -> Tensor:
            rows = inputs.movedim(2, 1).flatten(0, 1)
            return rows if own is None else own(rows)

        return self.copy(batch=count, restore=restore, is_grouped=True)

    def with_batch_axis(self, axis: int, count: int) -> SingleInputModel:
        """Return the model for `count` inputs along the first axis, which the model takes on another `axis`."""
        own = self.restore

        def restore(inputs: Tensor) -> Tensor:
            moved = inputs.transpose(0, axis)
            return moved if own is None else own(moved)

        return self.copy(batch=count, restore=restore, batch_axis=axis)

    def with_shared_arguments(self) -> SingleInputModel:
        """Return the model with other arguments that are the same for all images."""
        return self.copy(batch=NO_BATCH)

    def with_last_token(self) -> SingleInputModel:
        """Return the model with the logits of the last token as its output."""
        return self.copy(reads_last_token=True)

    def with_stacked_rows(self) -> SingleInputModel:
        """Return the model with one output that has rows, for a model that returns a list with the output of each input."""
        return self.copy(stacks_rows=True)

    def text_lengths(self) -> set[int]:
        """Return the numbers of tokens N of the other arguments that are tables of token ids (B, N)."""
        tables = [tensor for tensor in tensors_in((list(self.args), self.kwargs)) if tensor.dim() == 2]
        return {table.shape[1] for table in tables if not table.is_floating_point() and table.dtype != torch.bool}

    def per_image_arguments(self) -> list[str]:
        """Return the names or positions of the other arguments that have one row per image, if there are several images."""
        if self.batch <= 1:
            return []
        return [
            str(key)
            for key, value in self.named_arguments().items()
            if key != self.main and any(has_batch_axis(tensor, self.batch) for tensor in tensors_in(value))
        ]

    @cached_property
    def argument_key(self) -> Hashable:
        """What the grids of layers can depend on, for the first image: its other arguments."""
        arguments = self.for_image(0).named_arguments()
        outlines = [outline(value) for place, value in arguments.items() if place != self.main]
        return (self.batch_axis, *outlines) if self.batch_axis else tuple(outlines)

    def named_arguments(self) -> dict[str | int, Any]:
        """Return all arguments by their names or positions."""
        return dict([*enumerate(self.args), *self.kwargs.items()])

    def map_arguments(self, function: Callable[[Tensor], Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with `function` applied to each tensor in them."""
        args, kwargs = map_tensors((list(self.args), self.kwargs), function)
        return tuple(args), kwargs


def count_rows(output: Any) -> int:
    first = first_tensor(output)
    return 0 if first is None or not first.dim() else len(first)


def with_row_axis(output: Any, rows: int) -> Any:
    """Return an output of one row with a row axis: class scores (K,) as (1, K)."""
    first = first_tensor(output)
    if rows > 1 or first is None or (first.dim() > 0 and len(first) == 1):
        return output
    return map_tensors(output, lambda tensor: tensor[None])


def concatenate_rows(outputs: list[Any]) -> Any:
    """Concatenate model outputs of one row each.

    >>> import torch
    >>> concatenate_rows([{"logits": torch.zeros(1, 2)}, {"logits": torch.ones(1, 2)}])["logits"].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    columns = zip(*map(tensors_in, outputs), strict=True)
    rows = iter([torch.cat(column) if column[0].dim() else column[0] for column in columns])
    return map_tensors(outputs[0], lambda _: next(rows))


def are_rows(output: Any, rows: int) -> bool:
    """Return True if an output is a list of `rows` outputs with the same tensors in them."""
    if not isinstance(output, (list, tuple)) or len(output) != rows:
        return False
    shapes = [[tensor.shape for tensor in tensors_in(row)] for row in output]
    return bool(shapes[0]) and all(own == shapes[0] for own in shapes)


def stack_rows(outputs: Sequence[Any]) -> Any:
    """Stack the outputs of single inputs; tensors that have a batch axis of length 1 already are concatenated.

    >>> import torch
    >>> stack_rows([torch.zeros(2), torch.ones(2)]).tolist(), stack_rows([torch.zeros(1, 2), torch.ones(1, 2)]).tolist()
    ([[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]])
    """
    columns = zip(*map(tensors_in, outputs), strict=True)
    rows = iter([torch.cat(one) if one[0].dim() > 1 and len(one[0]) == 1 else torch.stack(one) for one in columns])
    return map_tensors(outputs[0], lambda _: next(rows))


def for_image(module: nn.Module, index: int) -> nn.Module:
    """Return a `SingleInputModel` for one image of its batch; other modules unchanged."""
    return module.for_image(index) if isinstance(module, SingleInputModel) else module


def has_batch_axis(tensor: Tensor, batch: int) -> bool:
    """Return True if a tensor has one row per image.

    With a batch of one, a float tensor of a single number counts as a setting, not as a row.
    """
    if tensor.dim() == 0 or len(tensor) != batch:
        return False
    return batch > 1 or tensor.dim() > 1 or not tensor.is_floating_point()
