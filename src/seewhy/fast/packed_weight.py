"""Weights in the blocked format that oneDNN, PyTorch's library for CPUs, computes with.

From other formats, oneDNN converts the weights of a convolution in every call. For one image, that is a quarter of the forward
pass of ResNet-18, and a third of that of ResNet-50. Linear layers are computed by another library, unless their weights are
packed; on processors that it does not support well, it takes more than twice as long.

The gradient of a layer's input is what another layer of the same kind computes for the gradient of its output: one with
transposed weights, which can be packed as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from seewhy.tracing.torch_private import (
    ConvolutionSettings,
    can_pack_weights,
    pack_convolution,
    pack_linear,
    run_packed_convolution,
    run_packed_linear,
)

MAX_KEPT = 2  # shapes: those of the batches, and of the last one, which is smaller


class PackedLayer(Protocol):
    """The packed weights of one layer. All functions compute without a graph."""

    has_gradient: bool  # whether `input_gradient` can be called

    def fits(self, layer: Any, inputs: Tensor) -> bool:
        """Return True if packed weights fit the inputs, and the settings of `layer`, which its model can change."""

    def output(self, layer: Any, inputs: Tensor) -> Tensor:
        """Return what `layer` computes for `inputs`."""

    def input_gradient(self, layer: Any, gradient: Tensor) -> Tensor:
        """Return the gradient of the input of `layer`. `gradient` is that of its output, in float32."""


def packed_layer(module: nn.Module, weight: Tensor, precision: torch.dtype) -> PackedLayer | None:
    """Return the packed weights of a layer; None for a layer, a device, or a PyTorch that cannot pack weights.

    Args:
        module: A 2-D convolution or a linear layer.
        weight: Its weight.
        precision: The type in which gradients are computed.
    """
    if weight.device.type != "cpu" or not can_pack_weights():
        return None
    if isinstance(module, nn.Linear):
        return PackedLinear(precision)
    return PackedConvolution(module, precision) if isinstance(module, nn.Conv2d) else None


def is_plain_float32(inputs: Tensor) -> bool:
    return inputs.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


class PackedLinear:
    """The packed weights of a linear layer, which are the same for all shapes."""

    has_gradient = True

    def __init__(self, precision: torch.dtype) -> None:
        self.precision, self.weights, self.transposed = precision, PackedWeights(), PackedWeights()

    def fits(self, layer: Any, inputs: Tensor) -> bool:
        return inputs.dim() > 1 and inputs.numel() > 0 and is_plain_float32(inputs)

    def output(self, layer: Any, inputs: Tensor) -> Tensor:
        packed = self.weights.get(None, lambda: pack_linear(layer.weight.detach()))
        return run_packed_linear(inputs, packed, layer.bias)

    def input_gradient(self, layer: Any, gradient: Tensor) -> Tensor:
        packed = self.transposed.get(None, lambda: pack_linear(layer.weight.detach().T.contiguous().to(self.precision)))
        return run_packed_linear(gradient.to(self.precision), packed, None).to(gradient.dtype)


class PackedConvolution:
    """The packed weights of a 2-D convolution.

    The best format depends on the shape of the input. The weights are packed for each shape, and kept for the last ones: if the
    format depended on which shape came first, a bulk job that resumes would write other last digits. Packing takes about as
    long as the conversion that it replaces. Several threads may use one object: at worst, two of them pack the same weights.
    """

    def __init__(self, convolution: Any, precision: torch.dtype) -> None:
        self.precision = precision
        self.settings = settings_of(convolution)
        self.backward_settings = gradient_settings(self.settings, convolution.kernel_size)
        self.has_gradient = self.backward_settings is not None
        self.weights, self.transposed = PackedWeights(), PackedWeights()

    def fits(self, layer: Any, inputs: Tensor) -> bool:
        return inputs.dim() == 4 and is_plain_float32(inputs) and settings_of(layer) == self.settings

    def output(self, layer: Any, inputs: Tensor) -> Tensor:
        shape = inputs.shape
        packed = self.weights.get(shape, lambda: pack_convolution(layer.weight.detach(), self.settings, shape))
        return run_packed_convolution(inputs, packed, layer.bias, self.settings)

    def input_gradient(self, layer: Any, gradient: Tensor) -> Tensor:
        shape, settings = gradient.shape, self.backward_settings
        assert settings is not None

        def pack() -> Tensor:
            weight = gradient_weight(layer.weight.detach(), settings.groups)
            return pack_convolution(weight.to(self.precision), settings, shape)

        packed = self.transposed.get(shape, pack)
        return run_packed_convolution(gradient.to(self.precision), packed, None, settings).to(gradient.dtype)


class PackedWeights:
    """The packed weights of a layer for the last shapes."""

    def __init__(self) -> None:
        self.kept: tuple[tuple[torch.Size | None, Tensor], ...] = ()  # replaced, never changed, because threads read it

    def get(self, shape: torch.Size | None, pack: Callable[[], Tensor]) -> Tensor:
        """Return the weights for a shape, packed now if they are not known."""
        kept = self.kept
        packed = next((weight for known, weight in kept if known == shape), None)
        if packed is None:
            packed = pack()
            self.kept = ((shape, packed), *kept[: MAX_KEPT - 1])
        return packed


def settings_of(convolution: Any) -> ConvolutionSettings:
    return ConvolutionSettings(convolution.stride, convolution.padding, convolution.dilation, convolution.groups)


def gradient_settings(settings: ConvolutionSettings, kernel: tuple[int, ...]) -> ConvolutionSettings | None:
    """Return the settings of the convolution that computes the gradient of the input; None with a stride."""
    reach = [dilation * (length - 1) for dilation, length in zip(settings.dilation, kernel, strict=True)]
    padding = tuple(most - own for most, own in zip(reach, settings.padding, strict=True))
    if any(step != 1 for step in settings.stride) or min(padding) < 0:
        return None
    return settings._replace(padding=padding)


def gradient_weight(weight: Tensor, groups: int) -> Tensor:
    """Return the weights of that convolution `(C, K / groups, *kernel)`, for weights `(K, C / groups, *kernel)`."""
    outputs, inputs, *kernel = weight.shape
    swapped = weight.reshape(groups, outputs // groups, inputs, *kernel).transpose(1, 2)
    flipped = swapped.reshape(groups * inputs, outputs // groups, *kernel).flip(2, 3)
    return flipped.contiguous(memory_format=torch.channels_last)
