"""`RefineCAM`, `FinerCAM` and `SESS` of pytorch-grad-cam: methods that use another one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import methods
from seewhy.compat.model_output import output_of
from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM, Floats
from seewhy.compat.pytorch_grad_cam.cams import GradCAM, GradCAMPlusPlus, Transform
from seewhy.compat.pytorch_grad_cam.utils.model_targets import FinerWeightedTarget, Targets
from seewhy.errors import UsageError
from seewhy.methods.base import AnyMethod, Method


class RefineCAM(BaseCAM):
    """The product of the maps of several layers: `seewhy.methods.RefineCAM`, in one pass for all layers.

    Args:
        model: See `BaseCAM`.
        target_layers: The layers whose maps are multiplied.
        reshape_transform: See `BaseCAM`.
        base_method: The class of the method of each layer.
        **kwargs: Settings of `base_method`.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Iterable[nn.Module],
        reshape_transform: Transform = None,
        base_method: type[BaseCAM] = GradCAMPlusPlus,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        self.base_cam = base_method(model, self.target_layers, **kwargs)
        self.difference = self.base_cam.difference  # type: ignore[misc]  # that of this object's base

    def method_for(self, eigen_smooth: bool) -> AnyMethod:
        base = one_map_method(self.base_cam, eigen_smooth, "RefineCAM")
        return methods.RefineCAM(base=base) if len(set(self.layer_names)) > 1 else base


class SESS(BaseCAM):
    """SESS: `seewhy.methods.SESS`, which follows the authors' code.

    Args:
        model: See `BaseCAM`.
        target_layers: See `BaseCAM`.
        reshape_transform: See `BaseCAM`.
        base_method: The class of the method for each window.
        num_scales: Number of scales.
        **kwargs: Settings of `base_method`.
    """

    difference = "SESS follows the authors' code; windows and scales of pytorch-grad-cam differ."

    def __init__(
        self,
        model: nn.Module,
        target_layers: Iterable[nn.Module],
        reshape_transform: Transform = None,
        base_method: type[BaseCAM] = GradCAM,
        num_scales: int = 12,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        self.base_cam, self.num_scales = base_method(model, self.target_layers, **kwargs), num_scales

    def method_for(self, eigen_smooth: bool) -> AnyMethod:
        return methods.SESS(base=one_map_method(self.base_cam, eigen_smooth, "SESS"), scales=self.num_scales)


class FinerCAM:
    """A base method for the difference between a class and the most similar ones, weighted by their probabilities.

    `seewhy.methods.FinerCAM` follows the paper, which does not weight them.

    Args:
        model: See `BaseCAM`.
        target_layers: See `BaseCAM`.
        reshape_transform: See `BaseCAM`.
        base_method: The class of the method.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Iterable[nn.Module],
        reshape_transform: Transform = None,
        base_method: type[BaseCAM] = GradCAM,
    ) -> None:
        self.base_cam = base_method(model, target_layers, reshape_transform)

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Targets = None,
        eigen_smooth: bool = False,
        alpha: float = 1,
        comparison_categories: Sequence[int] | None = None,
        target_idx: int | None = None,
    ) -> Floats:
        """Return one map per image, as `BaseCAM.__call__`.

        Args:
            input_tensor: See `BaseCAM.__call__`.
            targets: See `BaseCAM.__call__`. Default: each class against the most similar ones.
            eigen_smooth: See `BaseCAM.__call__`.
            alpha: Strength of the comparison.
            comparison_categories: Which of the most similar classes to compare with, from 1. Default: the first three.
            target_idx: The class. Default: the predicted one of each image.

        Raises:
            UsageError: The model does not return class scores.
        """
        if targets is None:
            output = output_of(self.base_cam.model, self.base_cam.on_device(input_tensor))
            targets = finer_targets(output, alpha, comparison_categories, target_idx)
        return self.base_cam(input_tensor, targets, eigen_smooth=eigen_smooth)

    forward = __call__

    def __enter__(self) -> FinerCAM:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there are no hooks to remove."""


def finer_targets(
    output: object, alpha: float, comparisons: Sequence[int] | None, target: int | None
) -> list[Callable[[Any], Tensor]]:
    """Return the target of each image: its class against the classes with the nearest scores."""
    if not isinstance(output, Tensor) or output.dim() != 2:
        raise UsageError(
            "FinerCAM needs a model that returns class scores (B, classes); pass targets for other outputs."
        )
    own = output.amax(1) if target is None else output[:, target]
    order = torch.argsort((output - own[:, None]).abs(), dim=1, stable=True)
    places = [place for place in comparisons or (1, 2, 3) if place < output.shape[1]]
    return [FinerWeightedTarget(int(row[0]), [int(row[place]) for place in places], alpha) for row in order]


def one_map_method(cam: BaseCAM, eigen_smooth: bool, name: str) -> Method:
    """Return seewhy's method of `cam`, if it has one map per layer."""
    method = cam.method_for(eigen_smooth)
    if not isinstance(method, Method):
        raise UsageError(
            f"base_method={type(cam).__name__}: {name} needs a method with one map per layer, such as GradCAM."
        )
    return method
