"""The four contracts of methods. To write a method, read this file and `Signals` in signals/layer.py.

* `Method`: one layer's signals to one map per image. Nearly all methods.
* `VariantMethod`: a `Method` that reads a layer for changed inputs too (noise, flips, a path), as a generator.
* `MultiMapMethod`: one layer's signals to several maps per image (concepts of a factorization).
* `NetworkMethod`: the full model to one map that belongs to no single layer (FullGrad, rollout, fusions of layers).

A method is a frozen, final dataclass: its fields are its settings. Its file needs a line in methods/catalog.py, and
`seewhy.testing.check_method` tests it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from seewhy.errors import MethodError
from seewhy.methods.catalog import name_of_class
from seewhy.signals.layer import Need, Signals, Variant
from seewhy.signals.recorded import signals_for_variant
from seewhy.signals.scoring import Scoring, TargetScore
from seewhy.tensors.map_functions import broadcast_over_grid

if TYPE_CHECKING:
    from seewhy.signals.model import ModelSignals


@dataclass(frozen=True)
class MethodCard:
    """Facts about a method for `seewhy methods` and docs/methods.md."""

    paper: str  # or "no paper: " and where the method is known from
    formula: str
    expect: str  # one sentence
    cost: str = "shared: 1 forward + 1 backward for all methods and layers"
    works_on: str = "any model"
    source: str = ""  # which source the code follows where paper, authors' code and libraries differ
    pitfalls: str = ""


@dataclass(frozen=True)
class BaseMethod:
    """What all contracts share: settings as fields, a `card`, and the `needs` in addition to activations."""

    card: ClassVar[MethodCard] = MethodCard("", "", "")
    needs = Need.GRADIENTS

    @property
    def scoring(self) -> Scoring:
        """The score whose gradient is computed. Default: the target's own."""
        return TargetScore()

    def forwards(self, channels: int, cells: int) -> int:
        """Return an estimate of the extra rows that one image sends through the model, for the progress bar.

        Args:
            channels: Number of channels of the layer.
            cells: Number of cells of its grid.
        """
        return 0

    def check(self, condition: bool, reason: str) -> None:
        """Check a condition on the settings, in `__post_init__`.

        Args:
            condition: True if the settings are valid.
            reason: What is invalid, and what to use instead: "samples=0: must be at least 1."

        Raises:
            MethodError: The condition is false.
        """
        if not condition:
            raise MethodError(name_of_class(type(self)), reason)

    def __str__(self) -> str:
        """The name as users type it, with the settings that are not defaults: "scorecam(batch_size=64)"."""
        settings = []
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
            if value != default:
                settings.append(str(value) if isinstance(value, BaseMethod) else f"{item.name}={value}")
        name = name_of_class(type(self))
        return f"{name}({','.join(settings)})" if settings else name


@dataclass(frozen=True)
class Method(BaseMethod, ABC):
    """A method that maps one layer's signals to one signed map per image.

    A method treats each image separately and never changes the model. It does not rectify, resize or rescale its maps:
    rendering does. To vary a method, wrap it; do not subclass it.

    Example:
        >>> @dataclass(frozen=True)
        ... class SignCAM(Method):
        ...     def __call__(self, signals: Signals) -> Tensor:
        ...         return (signals.gradients.sign() * signals.activations).sum(1)
        >>> str(SignCAM())
        'signcam'
    """

    @abstractmethod
    def __call__(self, signals: Signals) -> Tensor:
        """Return the signed maps `(B, *grid)`. Raises MethodError if the model, layer or target is not supported."""


@dataclass(frozen=True)
class Weighted(Method):
    """A method with one weight per channel: the map is sum_k w_k A_k."""

    @abstractmethod
    def weights(self, signals: Signals) -> Tensor:
        """Return the weight of each channel `(B, K)`."""

    def terms(self, signals: Signals) -> Tensor:
        """Return what each channel adds to the map `(B, K, *grid)`."""
        return broadcast_over_grid(self.weights(signals), signals.activations) * signals.activations

    def __call__(self, signals: Signals) -> Tensor:
        return signals.weighted_sum(self.weights(signals))


@dataclass(frozen=True)
class Elementwise(Method):
    """A method with one term per cell and channel: the map is the sum of the terms over the channels."""

    @abstractmethod
    def terms(self, signals: Signals) -> Tensor:
        """Return what each channel adds to the map `(B, K, *grid)`."""

    def __call__(self, signals: Signals) -> Tensor:
        return self.terms(signals).sum(1)


@dataclass(frozen=True)
class VariantMethod(Method):
    """A method that reads a layer for several variants of the inputs.

    Equal variants of different methods and layers share one forward and backward pass.
    """

    @abstractmethod
    def passes(self, signals: Signals) -> Generator[Variant, Signals, Tensor]:
        """Yield variants, receive this layer's signals for each, and return the signed maps `(B, *grid)`.

        Args:
            signals: The signals of the original inputs at the layer.
        """

    def __call__(self, signals: Signals) -> Tensor:
        passes = self.passes(signals)
        try:
            variant = next(passes)
            while True:
                variant = passes.send(signals_for_variant(signals, variant))
        except StopIteration as end:
            maps: Tensor = end.value
            return maps


@dataclass(frozen=True)
class MultiMapMethod(BaseMethod, ABC):
    """A method that maps one layer's signals to several signed maps per image."""

    @abstractmethod
    def __call__(self, signals: Signals) -> Tensor:
        """Return the signed maps `(B, count, *grid)`."""


@dataclass(frozen=True)
class NetworkMethod(BaseMethod, ABC):
    """A method that maps the full model to one signed map per image, on a grid of its choice."""

    needs = Need.NOTHING

    @property
    def base_method(self) -> Method | None:
        """The method whose maps of the selected layers `signals.maps` contains, if any. They share the common pass."""
        return None

    @property
    def keeps_layers(self) -> bool:
        """Whether `signals.layers` contains the activations of the selected layers."""
        return False

    @abstractmethod
    def __call__(self, signals: ModelSignals) -> Tensor:
        """Return the signed maps `(B, *grid)`."""


AnyMethod = Method | MultiMapMethod | NetworkMethod
