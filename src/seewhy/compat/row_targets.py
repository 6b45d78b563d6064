"""Targets of the other packages: one function per image, called with the output of that image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from seewhy.errors import TargetError
from seewhy.targets import ResolvedTarget, Target
from seewhy.targets.names import Labels

RowFunction = Callable[[Any], Tensor]


@final
@dataclass(frozen=True, eq=False)
class RowScore(Target):
    """A score for each image: a function of the output of that image alone.

    Args:
        functions: One function per image. Each takes a row of the output, or an entry of a list of outputs, and returns a
            tensor with one element.

    Raises:
        TargetError: From `resolve`: the number of functions is not that of the images, the output has no rows, or a function
            does not return one number.

    Example:
        >>> target = RowScore((lambda row: row[0], lambda row: row[1] - row[0]))
        >>> target.resolve(torch.tensor([[4.0, 3.0], [1.0, 7.0]]), None).scores
        tensor([4., 6.])
    """

    functions: Sequence[RowFunction]

    @property
    def name(self) -> str:
        return " and ".join(dict.fromkeys(name_of(function) for function in self.functions))

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        rows = rows_of(output)
        if len(rows) != len(self.functions):
            raise TargetError(
                self.name, f"{len(self.functions)} targets for {len(rows)} images; give one for each image."
            )
        scores = torch.stack([self.score(function, row) for function, row in zip(self.functions, rows, strict=True)])
        return ResolvedTarget(self.name, self.name, scores, self.rescore, target=self)

    def rescore(self, output: object, images: Tensor) -> Tensor:
        functions = [self.functions[int(image)] for image in images]
        return torch.stack([self.score(one, row) for one, row in zip(functions, rows_of(output), strict=True)])

    def score(self, function: RowFunction, row: object) -> Tensor:
        """Return what a function computes for one row, as a tensor without axes."""
        value = function(row)
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
            raise TargetError(
                name_of(function), f"returned a value of {shape}; it must return a tensor with one element."
            )
        return value.reshape(())


def rows_of(output: object) -> Sequence[Any]:
    """Return the outputs of the images: the rows of a tensor, or the entries of a list."""
    if isinstance(output, Tensor) and output.dim():
        return output.unbind(0)
    if isinstance(output, list):
        return output
    raise TargetError(
        "targets",
        f"the model returns {type(output).__name__}; a target needs a tensor or a list with one entry per image. Wrap the "
        "model in a module that returns that.",
    )


def name_of(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__).strip("<>")
