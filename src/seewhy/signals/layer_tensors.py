"""The tensors of one layer that methods read, and the sums over them that most methods share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from torch import Tensor

from seewhy.errors import MethodError
from seewhy.tensors.map_functions import to_float32, weighted_sum


@dataclass(frozen=True, eq=False)
class LayerTensors:
    """Activations, gradients and curvature of one layer for one target, channels first, as the recorder stored them.

    Attributes:
        output: What the layer returned `(B, K, *grid)`.
        output_gradient: The gradient of each image's score with respect to `output`; None if it was not computed.
        output_curvature: The Hessian of the score at `output`, times the activations; None likewise.
    """

    output: Tensor
    output_gradient: Tensor | None = None
    output_curvature: Tensor | None = None

    @cached_property
    def activations(self) -> Tensor:
        """A `(B, K, *grid)`, in float32 or float64."""
        return to_float32(self.output)

    @cached_property
    def gradients(self) -> Tensor | None:
        """G `(B, K, *grid)`, or None."""
        return None if self.output_gradient is None else to_float32(self.output_gradient)

    @cached_property
    def curvature(self) -> Tensor | None:
        """HA `(B, K, *grid)`, or None."""
        return None if self.output_curvature is None else to_float32(self.output_curvature)

    def with_derivatives(self, gradient: Tensor, curvature: Tensor | None) -> Self:
        """Return the same tensors with a gradient and curvature with respect to `output`."""
        return type(self)(self.output, gradient, curvature)

    def without_derivatives(self) -> Self:
        """Return the same tensors without gradient and curvature, so that their memory can be freed."""
        return replace(self, output_gradient=None, output_curvature=None)

    def given_gradient(self, gradient: Tensor | None) -> Tensor:
        """Return a gradient. Raises MethodError if none was computed."""
        if gradient is None:
            raise MethodError("", "it reads gradients, so it must declare needs = Need.GRADIENTS.")
        return gradient

    def contributions(self) -> Tensor:
        """Return G * A `(B, K, *grid)`."""
        return self.given_gradient(self.gradients) * self.activations

    def mean_gradients(self) -> Tensor:
        """Return the mean of G over the grid `(B, K)`."""
        return self.given_gradient(self.gradients).flatten(2).mean(2)

    def activation_sums(self) -> Tensor:
        """Return the sum of A over the grid `(B, K)`."""
        return self.activations.flatten(2).sum(2)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Return the sum over channels of `weights` `(B, K)` times A: a map `(B, *grid)`."""
        return weighted_sum(weights, self.activations)
