"""Find the layer that an exported network reads, and the linear head behind it, as `explain` observes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from seewhy.engine.explain import explain
from seewhy.errors import LayerError, MethodError
from seewhy.methods.base import Method
from seewhy.models.loaded_model import LoadedModel
from seewhy.signals.layer import Need, Signals
from seewhy.targets.class_scores import logits
from seewhy.tracing.grid import Grid

NEEDS_HEAD = ("cam", "reciprocam")  # maps that have a closed form only in front of mean pooling and a linear head


@dataclass(frozen=True, eq=False)
class LinearHead:
    """The class scores are `mean @ weight.T + bias` of the layer's mean `(B, K)`.

    `weight` (classes, K) is None if the mean is the class scores, as after a last 1x1 convolution.
    """

    weight: Tensor | None
    bias: Tensor


@dataclass(frozen=True, eq=False)
class MappedLayer:
    """One call of one module, its grid, and the linear head behind it.

    Attributes:
        name: The layer as users name it: "relu", or "relu#2" for the second call of a module.
        module: The module's name.
        number: The number of the call, from 1.
        grid: The layout of the module's output.
        head: The linear head; None if other operations follow the layer.
        no_head: Why there is none.
        multilabel: True if each class has a probability that is independent of the others.
        normalized: True if the class scores are probabilities.
        class_count: The number of classes.
    """

    name: str
    module: str
    number: int
    grid: Grid
    head: LinearHead | None
    no_head: str
    multilabel: bool
    normalized: bool
    class_count: int


@final
@dataclass(frozen=True)
class HeadReader(Method):
    """Collects what `explain` observes at each layer. Its map is that of the mean over channels and has no meaning."""

    layers: list[MappedLayer] = field(compare=False)

    needs = Need.HEAD | Need.EVALUATOR

    def __call__(self, signals: Signals) -> Tensor:
        head, reason = None, ""
        try:
            head = as_head(*signals.head_table)
        except MethodError as error:
            reason = error.reason
        site, target = signals.site, signals.target
        count = logits(signals.evaluator.output).shape[1]
        layer = MappedLayer(
            signals.layer,
            site.module,
            site.number,
            site.grid,
            head,
            reason,
            target.multilabel,
            target.normalized,
            count,
        )
        self.layers.append(layer)
        return signals.activations.mean(1)


def as_head(weight: Tensor, bias: Tensor) -> LinearHead:
    classes, channels = weight.shape
    is_identity = classes == channels and not bias.any() and torch.equal(weight, torch.eye(classes).to(weight))
    return LinearHead(None if is_identity else weight.detach(), bias.detach())


def find_mapped_layer(
    model: LoadedModel, inputs: Tensor, method: str, layer: str | None, *, multilabel: bool
) -> MappedLayer:
    """Return the layer to export.

    Without `layer`, the suggested layer. For maps that need a linear head: the last layer that has one, if the suggested layer
    has none.

    Raises:
        UnknownName: No layer has this name.
        LayerError: The layer cannot be exported.
        MethodError: There is no linear head behind the layer, and the map needs one.
    """
    found = read_layers(model, inputs, "suggested" if layer is None else layer, multilabel=multilabel)
    if len(found) != 1:
        names = ", ".join(one.name for one in found[:4])
        raise LayerError(str(layer), f"selects {len(found)} layers ({names}); name one")
    (chosen,) = found
    if chosen.head is None and method in NEEDS_HEAD:
        others = [] if layer is not None else read_layers(model, inputs, "all", multilabel=multilabel)
        chosen = next((one for one in reversed(others) if one.head is not None), chosen)
    if chosen.head is None and method in NEEDS_HEAD:
        reason = chosen.no_head.removesuffix(" Use hirescam.").rstrip(".")
        raise MethodError(
            method, f"cannot be exported at layer '{chosen.name}': {reason}. Export --map hirescam or gradcam, which need no "
            "linear head; list the layers: seewhy layers",
        )  # fmt: skip
    check_grid(chosen)
    return chosen


def read_layers(
    model: LoadedModel, inputs: Tensor, layers: str | Sequence[str], *, multilabel: bool
) -> list[MappedLayer]:
    reader = HeadReader([])
    explain(model, inputs.to(device_of(model)), methods=[reader], layers=layers, multilabel=multilabel)
    return reader.layers


def device_of(model: LoadedModel) -> torch.device:
    weight = next(model.module.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


def check_grid(layer: MappedLayer) -> None:
    """Raise LayerError for a layer whose map cannot be placed on the input by resizing it."""
    if layer.grid.parts is not None:
        raise LayerError(
            layer.name, "has several rows for each input (crops, frames or windows), which cannot be exported"
        )
    if layer.grid.region is not None:
        raise LayerError(layer.name, "covers only a region of the input, which cannot be exported; crop images before")
