"""A method that a user wrote for pytorch-grad-cam: a subclass of `BaseCAM` with `get_cam_weights` or `get_cam_image`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.methods.base import Method
from seewhy.signals.layer import Signals


@final
@dataclass(frozen=True, eq=False)
class CustomCAM(Method):
    """Call `get_cam_image` of a `BaseCAM` with arrays, as pytorch-grad-cam does.

    Args:
        name: The name of the user's class.
        get_cam_image: Its method.
    """

    name: str
    get_cam_image: Callable[[Tensor, None, None, NDArray[Any], NDArray[Any]], NDArray[Any]]

    def __str__(self) -> str:
        return self.name

    def __call__(self, signals: Signals) -> Tensor:
        activations, gradients = signals.activations.detach().cpu().numpy(), signals.gradients.detach().cpu().numpy()
        maps = self.get_cam_image(signals.inputs, None, None, activations, gradients)
        expected = (len(activations), *activations.shape[2:])
        if tuple(maps.shape) != expected:
            raise MethodError(
                str(self), f"get_cam_image returned shape {tuple(maps.shape)}; it must return {expected}."
            )
        return torch.as_tensor(maps, dtype=torch.float32, device=signals.inputs.device)
