"""The extractors of torchcam. Each has a method of seewhy and states how it differs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seewhy import methods
from seewhy.compat.torchcam.methods.core import _CAM, Layers
from seewhy.methods.base import AnyMethod


class GradCAM(_CAM):
    """Grad-CAM: `seewhy.methods.GradCAM`. Args: see `_CAM`."""

    method = methods.GradCAM()


class GradCAMpp(_CAM):
    """Grad-CAM++: `seewhy.methods.GradCAMPlusPlus`. Args: see `_CAM`."""

    method = methods.GradCAMPlusPlus()
    difference = (
        "Grad-CAM++ of torchcam never divides, so its weights are sums of cubed gradients; here it is the paper's."
    )


class XGradCAM(_CAM):
    """XGrad-CAM: `seewhy.methods.XGradCAM`. Args: see `_CAM`."""

    method = methods.XGradCAM()


class LayerCAM(_CAM):
    """LayerCAM: `seewhy.methods.LayerCAM`. Args: see `_CAM`."""

    method = methods.LayerCAM()

    @staticmethod
    def _scale_cams(cams: list[Tensor], gamma: float = 2.0) -> list[Tensor]:
        return [torch.tanh(gamma * one) for one in cams]


class SmoothGradCAMpp(_CAM):
    """Smooth Grad-CAM++: `seewhy.methods.SmoothGradCAMPlusPlus`.

    Args:
        model: See `_CAM`.
        target_layer: See `_CAM`.
        num_samples: Number of noisy inputs.
        std: Standard deviation of the noise as a fraction of the range of the input.
        input_shape: See `_CAM`.
        **kwargs: See `_CAM`.
    """

    difference = (
        "Smooth Grad-CAM++ of torchcam adds noise of `std` in units of the input and uses the gradient of the last sample "
        "only; here it is the paper's, and `std` is a fraction of the input's range."
    )

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        num_samples: int = 4,
        std: float = 0.3,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, input_shape, **kwargs)
        self.num_samples, self.std = num_samples, std

    def _method_for(self) -> AnyMethod:
        return methods.SmoothGradCAMPlusPlus(samples=self.num_samples, sigma=self.std)


class CAM(_CAM):
    """CAM: `seewhy.methods.CAM`.

    Args:
        model: A network whose class scores are one linear layer of the layer's mean.
        target_layer: See `_CAM`.
        fc_layer: Accepted and not used: seewhy finds the linear layer.
        input_shape: See `_CAM`.
        **kwargs: See `_CAM`.
    """

    method = methods.CAM()
    rectifies = False

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        fc_layer: nn.Module | str | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, input_shape, **kwargs)


class ScoreCAM(_CAM):
    """Score-CAM with the package's weights: `seewhy.methods.ScoreCAM(variant="torchcam")`.

    Args:
        model: See `_CAM`.
        target_layer: See `_CAM`.
        batch_size: Number of masked inputs per forward pass.
        input_shape: See `_CAM`.
        **kwargs: See `_CAM`.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        batch_size: int = 32,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, input_shape, **kwargs)
        self.bs = batch_size

    def _method_for(self) -> AnyMethod:
        return methods.ScoreCAM(variant="torchcam", batch_size=self.bs)


class SSCAM(ScoreCAM):
    """SS-CAM: `seewhy.methods.SSCAM`.

    Args:
        model: See `_CAM`.
        target_layer: See `_CAM`.
        batch_size: See `ScoreCAM`.
        num_samples: Number of noisy masks per channel.
        std: Standard deviation of the noise on masks in [0, 1].
        input_shape: See `_CAM`.
        **kwargs: See `_CAM`.
    """

    difference = (
        "SS-CAM of torchcam takes the softmax of the logits over channels; here the weights are class probabilities."
    )

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        batch_size: int = 32,
        num_samples: int = 35,
        std: float = 2.0,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, batch_size, input_shape, **kwargs)
        self.num_samples, self.std = num_samples, std

    def _method_for(self) -> AnyMethod:
        return methods.SSCAM(samples=self.num_samples, sigma=self.std, batch_size=self.bs)


class ISCAM(ScoreCAM):
    """IS-CAM: `seewhy.methods.ISCAM`.

    Args:
        model: See `_CAM`.
        target_layer: See `_CAM`.
        batch_size: See `ScoreCAM`.
        num_samples: Number of factors between 0 and 1 for each mask.
        input_shape: See `_CAM`.
        **kwargs: See `_CAM`.
    """

    difference = (
        "IS-CAM of torchcam multiplies masks by factors up to 5.5 and takes the softmax of the logits over channels; here "
        "factors are at most 1 and the weights are class probabilities."
    )

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        batch_size: int = 32,
        num_samples: int = 10,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, batch_size, input_shape, **kwargs)
        self.num_samples = num_samples

    def _method_for(self) -> AnyMethod:
        return methods.ISCAM(steps=self.num_samples, batch_size=self.bs)
