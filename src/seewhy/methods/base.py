"""The contract of a method: settings and one formula."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from seewhy.signals import Signals


@dataclass(frozen=True)
class Method(ABC):
    """One layer's signals in, one signed map for each picture out: (B, *grid), in the paper's own units.

    Subclasses are frozen and final dataclasses: fields are settings, instances are values. A method looks at each picture
    alone, never touches the model, and leaves rectifying, resizing and rescaling to others. The first line of its docstring
    says what it does, the second names the paper and equation. To vary a method, wrap it; never subclass it.
    """

    @abstractmethod
    def __call__(self, at: Signals) -> Tensor:
        """The signed map (B, *grid) of `at`."""

    def __str__(self) -> str:
        return type(self).__name__.lower()
