"""The maps of one call of `explain`, and the reasons why a method has no map at a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from torch import Tensor

from seewhy.errors import LayerError, MethodError, UsageError
from seewhy.methods.base import Method, MultiMapMethod, Weighted
from seewhy.signals.layer import Need
from seewhy.targets import ResolvedTarget
from seewhy.tracing.trace import LayerCall

Key = tuple[str, str, str]  # method, target, layer
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Job:
    """One method and one target, to run at every layer.

    `is_base`: the maps are not results themselves, they are the input of a network method.
    """

    name: str
    method: Method | MultiMapMethod
    target: ResolvedTarget  # without its graph
    is_base: bool = False

    @cached_property
    def is_weighted(self) -> bool:
        """Whether the map is a weighted sum of channels, whose weights need a single backward pass."""
        return isinstance(self.method, Weighted) and not self.method.needs & Need.EVALUATOR


@dataclass(eq=False)
class MapCollector:
    """Collects maps. With `skip_unsupported`, a method that does not fit is skipped and never an error.

    Attributes:
        size: The size of the input.
        maps: The maps `(B, *grid)`, or `(B, parts, *grid)` at a layer with several rows per input.
        base_maps: The maps of base methods, by network method and target, then by layer.
        has_gradient: For blank maps, by target and layer: whether any gradient reached the layer, per image `(B,)`.
        unsupported: By method and layer, why there is no map.
    """

    skip_unsupported: bool
    size: tuple[int, ...] = ()
    maps: dict[Key, Tensor] = field(default_factory=dict)
    base_maps: dict[tuple[str, str], dict[str, Tensor]] = field(default_factory=dict)
    has_gradient: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    unsupported: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, job: Job, call: LayerCall, maps: Tensor) -> None:
        """Store the maps of a job: `(B, *grid)`, or `(B, count, *grid)` for a method with several maps.

        At a layer with several rows per input, maps are `(B * parts, ...)`; they are stored as `(B, parts, *grid)`.
        """
        assert call.grid is not None
        layer, maps = call.name, call.grid.split_parts(maps)
        if job.is_base:
            self.base_maps.setdefault((job.name, job.target.key), {})[layer] = call.grid.place(maps, self.size)
        elif isinstance(job.method, MultiMapMethod):
            axis = 2 if call.grid.has_part_axis else 1
            for index in range(maps.shape[axis]):
                self.maps[f"{job.name}#{index + 1}", job.target.key, layer] = maps.select(axis, index)
        else:
            self.maps[job.name, job.target.key, layer] = maps

    def attempt(
        self, name: str, layer: str, function: Callable[[], Value], is_required: Callable[[], bool] = lambda: True
    ) -> Value | None:
        """Return what `function` returns; None, with the reason stored, if the method does not fit and need not."""
        try:
            return function()
        except MethodError as error:
            reason = error.reason
        except LayerError as error:
            reason = f"layer '{error.layer}': {error.reason}"
        except UsageError as error:  # the output cannot be scored like this
            reason = str(error)
        if not self.skip_unsupported and is_required():
            raise MethodError(name, reason) from None
        self.unsupported.setdefault(name, {})[layer] = reason
        return None

    def raise_if_unsupported(self) -> None:
        """Raise MethodError for a method without any map, with the reason at its last layer."""
        for name, reasons in self.unsupported.items():
            if not self.skip_unsupported and not any(key[0].partition("#")[0] == name for key in self.maps):
                raise MethodError(name, list(reasons.values())[-1])


def in_order(
    maps: Iterable[Key], methods: Sequence[str], targets: Sequence[ResolvedTarget], layers: Sequence[str]
) -> list[Key]:
    """Return the keys sorted by method (in the user's order), then target, then layer in execution order."""
    keys = list(maps)
    # "dff#2" is the second map of "dff"; "#10" sorts after "#9".
    names = sorted(
        {method for method, _, _ in keys}, key=lambda name: (methods.index(name.partition("#")[0]), len(name), name)
    )
    method_rank = {name: rank for rank, name in enumerate(names)}
    target_rank = {target.key: rank for rank, target in enumerate(targets)}
    layer_rank = {name: rank for rank, name in enumerate(layers)}
    return sorted(keys, key=lambda key: (method_rank[key[0]], target_rank[key[1]], layer_rank[key[2]]))
