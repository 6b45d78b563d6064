"""A method that keeps what each channel adds to its map, for APIs that return channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from seewhy.methods.base import Method
from seewhy.signals.layer import Need, Signals


@final
@dataclass(frozen=True, eq=False)
class KeepTensor(Method):
    """Keep a tensor `(B, K, *size)` that is computed from a layer's signals; the map is its sum over the channels.

    Args:
        name: The name of the tensor in error messages.
        read: Returns the tensor.
        kept: The list that the tensor is appended to.
        needs: What `read` reads.
    """

    name: str
    read: Callable[[Signals], Tensor]
    kept: list[Tensor]
    needs: Need = Need.GRADIENTS  # a constant in other methods

    def __str__(self) -> str:
        return self.name

    def __call__(self, signals: Signals) -> Tensor:
        tensor = self.read(signals).detach()
        self.kept.append(tensor)
        return tensor.sum(1)
