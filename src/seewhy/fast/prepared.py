"""`prepare`: a model that is used many times is prepared once, and explains faster from then on."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args

from torch import Tensor, nn

from seewhy.errors import UnknownName
from seewhy.fast.folded_model import Recipe, build, find_recipe
from seewhy.fast.layer_forward import has_bfloat16
from seewhy.fast.model_state import ModelState
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.loading import load_model
from seewhy.tracing.single_input import SingleInputModel, for_image

Precision = Literal["exact", "bf16"]


class FastModel:
    """The prepared twin of a model, built on first use and again after its weights changed. Several threads may use it.

    Attributes:
        recipe: The changes of the twin; None before the first use, or if there are none.
    """

    def __init__(self, model: nn.Module, precision: Precision = "exact") -> None:
        self.model, self.precision = model, precision
        self.recipe: Recipe | None = None
        self._module: nn.Module | None = None
        self._state: ModelState | None = None
        self._lock = threading.Lock()
        self._is_disabled = False

    def module_for(self, module: nn.Module, inputs: Tensor) -> nn.Module | None:
        """Return a module that computes what `module` computes on `inputs` `(B, C, *size)`, in less time.

        Args:
            module: The model, or a `SingleInputModel` of it.
            inputs: What it is going to run on. The first image is used to find out what can be prepared.

        Returns:
            The prepared module; None if the model runs faster unchanged, or cannot be prepared.
        """
        with self._lock:
            network = self._current(module, inputs)
        return None if network is None else with_network(module, network)

    def __reduce__(self) -> tuple[type[FastModel], tuple[nn.Module, Precision]]:
        return FastModel, (self.model, self.precision)  # other processes prepare the model themselves

    def disable(self) -> None:
        """Use the unchanged model from now on."""
        self._is_disabled = True

    def _current(self, module: nn.Module, inputs: Tensor) -> nn.Module | None:
        if self._is_disabled:
            return None
        has_recipe = self._state is not None and self._state.has_current_modules()
        if self._state is not None and has_recipe and self._state.has_current_weights():
            return self._module
        earlier = self._module if has_recipe else None
        if not has_recipe:
            one, first = for_image(module, 0), inputs[:1]

            def run(network: nn.Module) -> object:
                return with_network(one, network)(first.clone())

            is_half = self.precision == "bf16" and has_bfloat16(inputs.device)
            self.recipe = find_recipe(self.model, run, has_half_gradients=is_half)
        self._state = ModelState(self.model)
        self._module = None if self.recipe is None else build(self.model, self.recipe, earlier)
        return self._module


def as_prepared(loaded: LoadedModel, fast: Literal["off", "exact", "bf16"]) -> LoadedModel:
    """Return the model, prepared as the option `fast` requires; "off" returns the model inside of a prepared one."""
    if fast != "off":
        return prepare(loaded, precision=fast)
    if not isinstance(loaded, PreparedModel):
        return loaded
    return LoadedModel(**{item.name: getattr(loaded, item.name) for item in fields(LoadedModel)})


def with_network(module: nn.Module, network: nn.Module) -> nn.Module:
    """Return `module` with another network in place of the model."""
    return module.copy(model=network) if isinstance(module, SingleInputModel) else network


@dataclass(frozen=True, kw_only=True)
class PreparedModel(LoadedModel):
    """A `LoadedModel` that explains faster. `fast` is the prepared twin; `is_bare`: it was given as a plain module."""

    fast: FastModel = field(repr=False, compare=False)
    is_bare: bool = False


def prepare(model: nn.Module | LoadedModel, *, precision: Precision = "exact") -> PreparedModel:
    """Prepare a model that explains many images.

    BatchNorms are folded into the convolutions before them, and weights are stored in the faster memory layout. Layers keep
    their names and their meaning: maps are those of the model up to rounding. All this happens on a twin when the model is
    used first; `model` itself is not changed. If its weights change, as in training, the twin is built again.

    Args:
        model: An `nn.Module`, or a `LoadedModel` from `seewhy.load_model`.
        precision: "exact", or "bf16" to compute the gradients of large layers in bfloat16, on hardware that supports it. The
            forward pass stays exact; maps then correlate with the exact ones by 0.999 and more.

    Returns:
        A model for `seewhy.explain` and everything else that takes a `LoadedModel`.

    Raises:
        UsageError: `model` is not a model, or the precision does not exist.

    Example:
        >>> import torch, seewhy
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> prepared = prepare(net)
        >>> seewhy.explain(prepared, torch.rand(1, 3, 8, 8), layers="0").map().shape
        torch.Size([1, 6, 6])
    """
    if precision not in get_args(Precision):
        raise UnknownName("precision", str(precision), get_args(Precision), hint="Use exact or bf16.")
    if isinstance(model, PreparedModel):
        return replace(model, fast=FastModel(model.module, precision)) if model.fast.precision != precision else model
    loaded = load_model(model)
    known = {item.name: getattr(loaded, item.name) for item in fields(LoadedModel)}
    return PreparedModel(**known, fast=FastModel(loaded.module, precision), is_bare=not isinstance(model, LoadedModel))
