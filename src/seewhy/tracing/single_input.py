"""A model of several inputs as a model of one: the picture varies, the other arguments come along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from seewhy.nested import map_tensors, tensors_in


class SingleInputModel(nn.Module):
    """`model` with its other arguments: called with the main input alone, it passes the rest on.

    `place` is the main input's position among `args`, or its name among `kwargs`. Tensors with a row for each of `batch`
    pictures follow the rows: `of(picture)` keeps one picture's, which then serve any number of variants. The layers of
    `model` keep their names.

    >>> import torch
    >>> net = nn.Bilinear(2, 2, 1)
    >>> fed = SingleInputModel(net, (None, torch.ones(3, 2)), {}, 0, batch=3)
    >>> fed(torch.zeros(3, 2)).shape, fed.for_image(1)(torch.zeros(5, 2)).shape
    (torch.Size([3, 1]), torch.Size([5, 1]))
    """

    def __init__(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int | str, batch: int
    ) -> None:
        super().__init__()
        self.model = model
        self.args, self.kwargs, self.place, self.batch = args, dict(kwargs), place, batch

    def for_image(self, picture: int) -> SingleInputModel:
        """The same for one picture of the batch."""

        def row(tensor: Tensor) -> Tensor:
            return tensor[picture : picture + 1] if has_batch_axis(tensor, self.batch) else tensor

        args, kwargs = self.each(row)
        return SingleInputModel(self.model, args, kwargs, self.place, 1)

    def per_image_arguments(self) -> list[str]:
        """The other arguments of which each of several pictures gets its own row."""
        others = [
            (place, value) for place, value in [*enumerate(self.args), *self.kwargs.items()] if place != self.place
        ]
        return [
            str(place)
            for place, value in others
            if self.batch > 1 and any(has_batch_axis(tensor, self.batch) for tensor in tensors_in(value))
        ]

    def each(self, function: Callable[[Tensor], Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The other arguments with `function` applied to each tensor in them."""
        args, kwargs = map_tensors((list(self.args), self.kwargs), function)
        return tuple(args), kwargs

    def forward(self, inputs: Tensor) -> Any:
        rows = len(inputs)

        def fitting(tensor: Tensor) -> Tensor:
            if self.batch == 1 and rows > 1 and has_batch_axis(tensor, 1):
                return tensor.expand(rows, *tensor.shape[1:])
            return tensor

        args, kwargs = self.each(fitting)
        if isinstance(self.place, str):
            return self.model(*args, **{**kwargs, self.place: inputs})
        return self.model(*args[: self.place], inputs, *args[self.place + 1 :], **kwargs)


def has_batch_axis(tensor: Tensor, batch: int) -> bool:
    """Whether a tensor has a row for each picture; a single number for one picture may as well be a setting."""
    if tensor.dim() == 0 or len(tensor) != batch:
        return False
    return batch > 1 or tensor.dim() > 1 or not tensor.is_floating_point()


def for_image(module: nn.Module, picture: int) -> nn.Module:
    """A module for one picture of the batch: itself, unless it is fed other arguments."""
    return module.for_image(picture) if isinstance(module, SingleInputModel) else module
