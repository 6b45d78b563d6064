"""The tensors of a convolution that returns its values normalized, because the BatchNorm after it was folded into it.

Such a convolution returns A' = scale A + shift, and receives the gradient G' = G / scale. Methods get A and G, the values of
the model's own convolution. Where a sum over A or G is enough, it is computed from A' and G' directly: converting the tensors
would cost as much as the BatchNorm that was saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from torch import Tensor

from seewhy.signals.layer_tensors import LayerTensors
from seewhy.tensors.map_functions import broadcast_over_grid, to_float32, weighted_sum
from seewhy.tracing.folded_norm import FoldedNorm


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldedTensors(LayerTensors):
    """The tensors of a convolution with a folded `norm`. `output_curvature` is the Hessian at A' times scale A."""

    norm: FoldedNorm

    @cached_property
    def activations(self) -> Tensor:
        """A `(B, K, *grid)`: what the convolution returns without the norm."""
        return self.norm.undo(to_float32(self.output))

    @cached_property
    def gradients(self) -> Tensor | None:
        """G `(B, K, *grid)`: the gradient with respect to A, or None."""
        return None if self.output_gradient is None else self._scaled(to_float32(self.output_gradient))

    @cached_property
    def curvature(self) -> Tensor | None:
        """HA `(B, K, *grid)` at A, or None."""
        return None if self.output_curvature is None else self._scaled(to_float32(self.output_curvature))

    def with_derivatives(self, gradient: Tensor, curvature: Tensor | None) -> Self:
        return type(self)(self.output, gradient, curvature, norm=self.norm)

    def contributions(self) -> Tensor:
        """Return G * A `(B, K, *grid)` as G' * (A' - shift), in which the scale cancels."""
        gradient, output = to_float32(self.given_gradient(self.output_gradient)), to_float32(self.output)
        return (output - broadcast_over_grid(self.norm.shift[None], output)).mul_(gradient)

    def mean_gradients(self) -> Tensor:
        """Return the mean of G over the grid `(B, K)`."""
        gradient = to_float32(self.given_gradient(self.output_gradient))
        return gradient.flatten(2).mean(2) * self.norm.scale

    def activation_sums(self) -> Tensor:
        """Return the sum of A over the grid `(B, K)`."""
        output = to_float32(self.output).flatten(2)
        return (output.sum(2) - output.shape[2] * self.norm.shift) / self.norm.scale

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Return the sum over channels of `weights` `(B, K)` times A: a map `(B, *grid)`."""
        return weighted_sum(weights * self.norm.inverse, to_float32(self.output), weights @ self.norm.offset)

    def _scaled(self, gradient: Tensor) -> Tensor:
        return gradient * broadcast_over_grid(self.norm.scale[None], gradient)
