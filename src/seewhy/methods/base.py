"""The contracts of methods. Three of them, because there are three shapes of answer:

* `Method`: one layer's signals, one map for each picture. Nearly all methods.
* `MultiMapMethod`: one layer's signals, several maps (concepts found by a factorization).
* `NetworkMethod`: the whole network, one map that belongs to no single layer (FullGrad, rollout, fusions of layers).

`VariantMethod` is how a `Method` is written that looks at changed inputs (noise, flips, a path): a generator.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from seewhy.errors import MethodError
from seewhy.methods.catalog import name_of_class
from seewhy.signals.layer import Need, Signals, Variant
from seewhy.signals.scoring import Scoring, TargetScore
from seewhy.tensors import broadcast_over_grid, weighted_sum

if TYPE_CHECKING:
    from seewhy.signals.model import ModelSignals


@dataclass(frozen=True)
class MethodCard:
    """A method's card, from which the lists and docs/methods.md are made."""

    paper: str
    formula: str
    expect: str  # one sentence
    cost: str = "shared: 1 forward + 1 backward for all methods and layers"
    works_on: str = "any network"
    source: str = ""  # what decided where paper, authors' code and libraries differ
    pitfalls: str = ""


@dataclass(frozen=True)
class Settings:
    """Fields are settings, instances are values. What all three contracts share."""

    about = MethodCard("", "", "")
    needs = Need.GRADIENTS

    @property
    def scoring(self) -> Scoring:
        """Which number of the answer is followed back: by default the target's own score."""
        return TargetScore()

    def forwards(self, channels: int, cells: int) -> int:
        """About how many rows are sent through (the rest of) the network for one picture, beside the shared pass."""
        return 0

    def check(self, right: bool, reason: str) -> None:
        """Raise MethodError with `reason` unless a setting is `right`; for `__post_init__`."""
        if not right:
            raise MethodError(name_of_class(type(self)), reason)

    def check_batch(self, size: int | None) -> None:
        """Raise MethodError unless `size` is a number of rows, or None."""
        self.check(size is None or size >= 1, f"batch_size={size}: give at least 1, or None.")

    def check_base(self, base: object) -> None:
        """Raise MethodError unless `base` makes one map of each layer."""
        self.check(
            isinstance(base, Method), f"base={base}: give a method that makes one map of a layer, such as gradcam."
        )

    def __str__(self) -> str:
        """The name as one may type it: "scorecam(batch_size=64)"; settings at their defaults are left out."""
        given = []
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
            if value != default:
                given.append(str(value) if isinstance(value, Settings) else f"{item.name}={value}")
        name = name_of_class(type(self))
        return f"{name}({','.join(given)})" if given else name


@dataclass(frozen=True)
class Method(Settings, ABC):
    """One layer's signals in, one signed map for each picture out: (B, *grid), in the paper's own units.

    Subclasses are frozen and final dataclasses. A method looks at each picture alone, never touches the model, and leaves
    rectifying, resizing and rescaling to others. `needs` says what it reads beside the activations. The first line of its
    docstring says what it does, the second names the paper and equation. To vary a method, wrap it; never subclass it.

    Raises MethodError from `__call__` where it does not fit the model, the layer or the target.
    """

    @abstractmethod
    def __call__(self, at: Signals) -> Tensor:
        """The signed map (B, *grid) of `at`."""


@dataclass(frozen=True)
class Weighted(Method):
    """A method that gives each channel one weight: the map is sum_k w_k A_k."""

    @abstractmethod
    def weights(self, at: Signals) -> Tensor:
        """The weight of each channel (B, K)."""

    def terms(self, at: Signals) -> Tensor:
        """What each channel adds to the map (B, K, *grid)."""
        return broadcast_over_grid(self.weights(at), at.activations) * at.activations

    def __call__(self, at: Signals) -> Tensor:
        return weighted_sum(self.weights(at), at.activations)


@dataclass(frozen=True)
class Elementwise(Method):
    """A method that weights every cell of every channel: the map is the sum of its terms over the channels."""

    @abstractmethod
    def terms(self, at: Signals) -> Tensor:
        """What each channel adds to the map (B, K, *grid)."""

    def __call__(self, at: Signals) -> Tensor:
        return self.terms(at).sum(1)


@dataclass(frozen=True)
class VariantMethod(Method):
    """A method that looks at several variants of the inputs: written as a generator, so that all layers share each pass.

    `passes` yields the variants it wants to see, gets this layer's signals for each, and returns the map. Variants are
    values: where several layers or methods ask for an equal one, the network runs once.
    """

    @abstractmethod
    def passes(self, at: Signals) -> Generator[Variant, Signals, Tensor]:
        """Yield variants, receive their signals, return the signed map (B, *grid)."""

    def __call__(self, at: Signals) -> Tensor:
        passes = self.passes(at)
        try:
            variant = next(passes)
            while True:
                variant = passes.send(at.for_variant(variant))
        except StopIteration as end:
            found: Tensor = end.value
            return found


@dataclass(frozen=True)
class MultiMapMethod(Settings, ABC):
    """One layer's signals in, several signed maps for each picture out: (B, count, *grid)."""

    @abstractmethod
    def __call__(self, at: Signals) -> Tensor:
        """The signed maps (B, count, *grid) of `at`."""


@dataclass(frozen=True)
class NetworkMethod(Settings, ABC):
    """The whole network in, one signed map for each picture out: (B, *grid) on a grid of its own choice.

    `base`, where there is one, is evaluated at every chosen layer in the shared pass; its maps are `whole.maps`.
    """

    needs = Need.NOTHING

    @property
    def base_method(self) -> Method | None:
        """The method whose maps at the chosen layers are wanted."""
        return None

    @property
    def keeps_layers(self) -> bool:
        """Whether the activations of the chosen layers are wanted, as `whole.layers`."""
        return False

    @abstractmethod
    def __call__(self, whole: ModelSignals) -> Tensor:
        """The signed map (B, *grid)."""


AnyMethod = Method | MultiMapMethod | NetworkMethod


def weights_channels(method: AnyMethod) -> bool:
    """Whether a method (or the one inside a wrapper) gives whole channels one weight each: it cannot tell places apart."""
    return isinstance(getattr(method, "base", method), Weighted)
