"""The attributions of captum that seewhy has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.compat.captum.function_model import as_module, first_input
from seewhy.compat.captum.targets import TargetType, as_target
from seewhy.compat.differences import log_once
from seewhy.compat.kept_tensors import KeepTensor
from seewhy.compat.layer_names import name_of_layer
from seewhy.engine.explain import explain
from seewhy.errors import UsageError
from seewhy.explanation.result import Explanation
from seewhy.methods import GradCAM
from seewhy.methods.base import AnyMethod
from seewhy.signals.layer import Need, Signals
from seewhy.tensors.map_functions import broadcast_over_grid
from seewhy.tracing.record import record_forward
from seewhy.tracing.trace import RecordingRequest

Inputs = Tensor | tuple[Tensor, ...]


class LayerAttribution:
    """An attribution of a layer.

    Args:
        forward_func: The model, or a function that calls it.
        layer: A module of the model.
        device_ids: Accepted and not used.

    Raises:
        UsageError: The layer is not part of the model, or `forward_func` refers to no module.
    """

    def __init__(self, forward_func: Callable[..., Any], layer: nn.Module, device_ids: list[int] | None = None) -> None:
        self.forward_func, self.layer = forward_func, layer
        self._model = as_module(forward_func)
        self._layer_name = name_of_layer(self._model, layer)

    @staticmethod
    def interpolate(
        layer_attribution: Tensor, interpolate_dims: int | tuple[int, ...], interpolate_mode: str = "nearest"
    ) -> Tensor:
        """Resize an attribution.

        Args:
            layer_attribution: `(B, K, *grid)`.
            interpolate_dims: The new size.
            interpolate_mode: A mode of `torch.nn.functional.interpolate`.
        """
        return F.interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)

    def _explain(
        self, inputs: Inputs, methods: Sequence[AnyMethod], target: TargetType, additional: object
    ) -> Explanation:
        first = first_input(inputs)
        others = () if additional is None else additional if isinstance(additional, tuple) else (additional,)
        arguments = (*(inputs if isinstance(inputs, tuple) else (inputs,)), *others)
        return explain(
            self._model,
            arguments if len(arguments) > 1 else first,
            methods=list(methods),
            layers=self._layer_name,
            targets=as_target(target, len(first)),
            main=0 if len(arguments) > 1 else None,
        )

    def _check(self, attribute_to_layer_input: bool, grad_kwargs: object = None) -> None:
        if attribute_to_layer_input:
            raise UsageError(
                "attribute_to_layer_input=True is not supported; pass the module before this one as the layer."
            )
        if grad_kwargs:
            log_once("grad_kwargs is not used: seewhy runs its own backward pass.")


class LayerGradCam(LayerAttribution):
    """Grad-CAM: `seewhy.methods.GradCAM`. Args: see `LayerAttribution`."""

    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Tensor:
        """Return signed maps.

        Args:
            inputs: `(B, C, *size)`, or a tuple with all inputs of the model.
            target: A class, a tuple of indices, or one of these for each image. None: the output is one number per image.
            additional_forward_args: Further arguments of the model, as a tuple.
            attribute_to_layer_input: True is not supported.
            relu_attributions: Set negative values to 0.
            attr_dim_summation: False: what each channel adds to the map, `(B, K, *grid)`.
            grad_kwargs: Accepted and not used.

        Returns:
            `(B, 1, *grid)`. For tokens, `grid` is that of the image; captum treats them as channels.

        Raises:
            UsageError: An argument is invalid, or the layer has no grid.
        """
        self._check(attribute_to_layer_input, grad_kwargs)
        kept: list[Tensor] = []
        if attr_dim_summation:
            maps = self._explain(inputs, [GradCAM()], target, additional_forward_args).map()[:, None]
        else:
            self._explain(inputs, [KeepTensor("gradcam terms", channel_terms, kept)], target, additional_forward_args)
            maps = kept[0]
        return F.relu(maps) if relu_attributions else maps


class LayerGradientXActivation(LayerAttribution):
    """The gradient times the activation of each channel, the terms of HiResCAM. Args: see `LayerAttribution`."""

    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Tensor:
        """Return `(B, K, *grid)`. Args: see `LayerGradCam.attribute`."""
        self._check(attribute_to_layer_input, grad_kwargs)
        kept: list[Tensor] = []
        read = KeepTensor("gradient x activation", lambda signals: signals.contributions, kept)
        self._explain(inputs, [read], target, additional_forward_args)
        return kept[0]


class LayerActivation(LayerAttribution):
    """The output of a layer. Args: see `LayerAttribution`."""

    def attribute(
        self, inputs: Inputs, additional_forward_args: object = None, attribute_to_layer_input: bool = False
    ) -> Tensor:
        """Return the output, before operations in place. Args: see `LayerGradCam.attribute`."""
        self._check(attribute_to_layer_input)
        if isinstance(inputs, tuple) or additional_forward_args is not None:
            raise UsageError("LayerActivation supports models with one input; use seewhy.explain for others.")
        with record_forward(self._model, inputs, RecordingRequest(names=frozenset({self._layer_name}))) as trace:
            values: list[Tensor] = [call.value.clone() for call in trace.calls]
        if not values:
            raise UsageError(f"the layer '{self._layer_name}' did not run.")
        return values[0]


class GuidedGradCam(LayerAttribution):
    """Guided backpropagation times the rectified Grad-CAM map. Args: see `LayerAttribution`."""

    def __init__(self, model: nn.Module, layer: nn.Module, device_ids: list[int] | None = None) -> None:
        super().__init__(model, layer, device_ids)

    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object = None,
        interpolate_mode: str = "nearest",
        attribute_to_layer_input: bool = False,
    ) -> Tensor:
        """Return `(B, C, *size)`. `interpolate_mode` resizes the map. Args: see `LayerGradCam.attribute`."""
        self._check(attribute_to_layer_input)
        kept: list[Tensor] = []
        methods = [GradCAM(), guided_backpropagation(kept)]
        explanation = self._explain(inputs, methods, target, additional_forward_args)
        maps = F.relu(explanation.map(method="gradcam"))[:, None]
        return kept[0] * self.interpolate(maps, tuple(first_input(inputs).shape[2:]), interpolate_mode)


class GuidedBackprop(LayerAttribution):
    """Guided backpropagation: the gradient at the input, with ReLUs that pass only positive gradients back.

    Args:
        model: A network with ReLU. It is not modified.
    """

    def __init__(self, model: nn.Module) -> None:
        module = as_module(model)
        super().__init__(module, next((one for one in module.modules() if is_convolution(one)), module))

    def attribute(self, inputs: Inputs, target: TargetType = None, additional_forward_args: object = None) -> Tensor:
        """Return `(B, C, *size)`. Args: see `LayerGradCam.attribute`."""
        kept: list[Tensor] = []
        self._explain(inputs, [guided_backpropagation(kept)], target, additional_forward_args)
        return kept[0]


def guided_backpropagation(kept: list[Tensor]) -> KeepTensor:
    return KeepTensor("guided backpropagation", lambda signals: signals.guided_gradients, kept, Need.EVALUATOR)


def channel_terms(signals: Signals) -> Tensor:
    """Return what each channel adds to the Grad-CAM map."""
    return broadcast_over_grid(signals.mean_gradients, signals.activations) * signals.activations


def is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
