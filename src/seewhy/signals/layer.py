"""Signals: what a method can read about one layer and one target. To write a method, read this file and methods/base.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Flag, auto
from functools import cached_property

import torch
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.signals.evaluator import Build, CallSite, Evaluator, Rows
from seewhy.signals.layer_tensors import LayerTensors
from seewhy.signals.scoring import Scoring, TargetScore
from seewhy.targets import ResolvedTarget


class Need(Flag):
    """What a method requires in addition to a layer's activations. The engine computes only what some method needs."""

    NOTHING = 0
    GRADIENTS = auto()  # one backward pass, shared by all methods and layers
    CURVATURE = auto()  # a second derivative at each layer
    HEAD = auto()  # the linear layer behind the pooling
    EVALUATOR = auto()  # extra forward passes: score_inputs, score_activations, guided_gradients


class Variant(ABC):
    """A change of the inputs. Instances are frozen values: equal variants run once for all methods and layers."""

    moves_content = False  # whether the content gets other positions, as after a flip

    @abstractmethod
    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the changed inputs `(B, C, *size)`. The size may differ."""


@dataclass(frozen=True, eq=False)
class TargetSignals:
    """The inputs and scores of one target, and the scores of changed inputs.

    Attributes:
        evaluator: Runs the model on changed inputs. Prefer the methods below.
        target: The explained target and its scores.
        scoring: The function of the output whose gradient is computed.
    """

    evaluator: Evaluator
    target: ResolvedTarget
    scoring: Scoring

    @property
    def inputs(self) -> Tensor:
        """The model's inputs `(B, C, *size)`."""
        return self.evaluator.inputs

    @property
    def scores(self) -> Tensor:
        """The target's score of each image `(B,)`."""
        return self.target.scores.detach()

    @property
    def classes(self) -> Tensor:
        """The class of each image `(B,)`. Raises MethodError if the target is not a class."""
        if self.target.classes is None:
            raise MethodError("", "it needs a class as its target.")
        return self.target.classes

    def score_of(self, scoring: Scoring) -> Tensor:
        """Return another score `(B,)` of the same output, such as its probability."""
        with torch.no_grad():
            return scoring(self.target, self.evaluator.output).detach()

    def score_inputs(
        self, image: int, count: int, build: Build, *,
        scoring: Scoring | None = None, batch_size: int | None = None, shared: Hashable = None,
    ) -> Tensor:  # fmt: skip
        """Return the scores `(count,)` of changed versions of one image of the batch.

        Args:
            build: Returns the inputs `(n, C, *size)` of a slice of the `count` versions.
            scoring: The score to compute. Default: the target's own.
            batch_size: Versions per forward pass. Default: as many as fit in the memory budget.
            shared: Usually the method itself, if the versions do not depend on the target. Several targets then share the
                forward passes.
        """
        rows = Rows(image, count, build, scoring or TargetScore(), batch_size, self._cache_key(shared))
        return self.evaluator.scores(self.target, self._in_model(rows))

    def differentiable_scores(self, image: int, inputs: Tensor, scoring: Scoring | None = None) -> Tensor:
        """Return the scores `(N,)` of versions `(N, C, *size)` of one image, differentiable with respect to them."""
        return self.evaluator.differentiable_scores(self.target, inputs, image, scoring or TargetScore())

    def _cache_key(self, shared: Hashable) -> Hashable:
        return shared

    def _in_model(self, rows: Rows) -> Rows:
        """Return rows of changed `inputs` or `activations` as the model sees them."""
        return rows


@dataclass(frozen=True, eq=False)
class Signals(TargetSignals):
    """One layer's signals for one target, channels first, in float32 or float64.

    Values that several methods need are cached. Reading one that the method's `needs` do not declare raises MethodError.

    Attributes:
        layer: The layer's name, with "#2" for the second call of its module.
        site: Which call of which module it is, and the grid of its output.
        tensors: The recorded output and its derivatives.
    """

    layer: str
    site: CallSite
    tensors: LayerTensors

    @property
    def activations(self) -> Tensor:
        """A `(B, K, *grid)`: the output of the layer."""
        return self.tensors.activations

    @property
    def gradients(self) -> Tensor:
        """G `(B, K, *grid)`: the gradient of each image's score with respect to the activations."""
        return self.tensors.given_gradient(self.tensors.gradients)

    @property
    def curvature(self) -> Tensor:
        """HA `(B, K, *grid)`: the Hessian of the score at the activations, times the activations."""
        if self.tensors.curvature is None:
            raise MethodError("", "it reads the curvature, so it must declare needs = Need.CURVATURE.")
        return self.tensors.curvature

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Return the map `(B, *grid)` of `weights` `(B, K)`: sum_k w_k A_k."""
        return self.tensors.weighted_sum(weights)

    @cached_property
    def mean_gradients(self) -> Tensor:
        """The mean of G over the grid `(B, K)`."""
        return self.tensors.mean_gradients()

    @cached_property
    def contributions(self) -> Tensor:
        """G * A, elementwise `(B, K, *grid)`: to first order, what each cell of each channel adds to the score."""
        return self.tensors.contributions()

    @cached_property
    def positive_gradients(self) -> Tensor:
        """The gradients with negative values set to zero `(B, K, *grid)`."""
        return self.gradients.clamp(min=0)

    @cached_property
    def activation_sums(self) -> Tensor:
        """S_k `(B, K)`: the activations of each channel, summed over the grid."""
        return self.tensors.activation_sums()

    @cached_property
    def head_table(self) -> tuple[Tensor, Tensor]:
        """The weights `(classes, K)` and the bias `(classes,)` of the linear layer behind mean pooling.

        Raises MethodError if anything else lies between this layer and the class scores.
        """
        head = self.evaluator.linear_head(self.target, self.activations, self.site)
        weight = head.weight.to(self.activations.dtype)
        return weight, weight.new_zeros(len(weight)) if head.bias is None else head.bias.to(weight.dtype)

    @cached_property
    def head_weights(self) -> Tensor:
        """The rows `(B, K)` of that layer's weights for each image's class."""
        return self.head_table[0][self.classes]

    @property
    def guided_gradients(self) -> Tensor:
        """Guided backpropagation of the scores to the inputs `(B, C, *size)`."""
        return self.evaluator.guided_gradients(self.target)

    def score_activations(
        self, image: int, count: int, build: Build, *,
        scoring: Scoring | None = None, batch_size: int | None = None, shared: Hashable = None,
    ) -> Tensor:  # fmt: skip
        """Return the scores `(count,)` of one image with other activations at this layer. See `score_inputs`.

        `build` returns the activations `(n, K, *grid)`. Only what follows the layer is computed again.
        """
        rows = Rows(image, count, build, scoring or TargetScore(), batch_size, self._cache_key(shared), self.site)
        return self.evaluator.scores(self.target, self._in_model(rows))

    def _cache_key(self, shared: Hashable) -> Hashable:
        # Rows are built from this layer's activations, so they are equal only at the same layer.
        return None if shared is None else (shared, self.layer)
