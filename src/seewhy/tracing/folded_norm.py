"""A BatchNorm that was folded into the convolution before it, in the twin of a prepared model.

The convolution then returns the output of the BatchNorm. Its layer keeps the meaning that it has in the model, so code that
reads its output undoes the normalization, and code that replaces it applies the normalization.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from seewhy.tensors.map_functions import broadcast_over_grid

FOLDED_NORM = "_folded_norm"  # the entry in the `__dict__` of modules whose output is normalized already
PASSES_ON = "_passes_on"  # the entry in that of the norms that return their input


@dataclass(frozen=True, eq=False)
class FoldedNorm:
    """The normalization scale * A + shift of the output A of a convolution. Both are `(K,)`; no scale is 0."""

    scale: Tensor
    shift: Tensor

    @cached_property
    def inverse(self) -> Tensor:
        """1 / scale `(K,)`."""
        return 1 / self.scale

    @cached_property
    def offset(self) -> Tensor:
        """-shift / scale `(K, 1)`: the value that the norm maps to 0, negated."""
        return (-self.shift / self.scale)[:, None]

    def apply(self, values: Tensor) -> Tensor:
        """Return scale * A + shift for A `(B, K, *grid)`."""
        scale, shift = (broadcast_over_grid(part[None], values) for part in (self.scale, self.shift))
        return values * scale + shift

    def undo(self, output: Tensor) -> Tensor:
        """Return A `(B, K, *grid)` for an output scale * A + shift."""
        scale, shift = (broadcast_over_grid(part[None], output) for part in (self.scale, self.shift))
        return (output - shift).div_(scale)


def folded_norm(module: nn.Module) -> FoldedNorm | None:
    """Return the norm that the output of `module` contains although the model applies it later, or None."""
    norm: FoldedNorm | None = module.__dict__.get(FOLDED_NORM)
    return norm
