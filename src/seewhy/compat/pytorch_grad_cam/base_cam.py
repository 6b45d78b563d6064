"""`BaseCAM`: the call of the package pytorch-grad-cam, computed by `seewhy.explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seewhy.compat.differences import log_once, log_overwritten
from seewhy.compat.layer_names import name_of_layer
from seewhy.compat.model_output import output_of
from seewhy.compat.pytorch_grad_cam.custom_weights import CustomCAM
from seewhy.compat.pytorch_grad_cam.token_order import check_token_order
from seewhy.compat.pytorch_grad_cam.utils.image import scale_cam_image
from seewhy.compat.pytorch_grad_cam.utils.model_targets import Targets, as_target
from seewhy.engine.explain import explain
from seewhy.errors import UsageError
from seewhy.explanation.components import NETWORK
from seewhy.explanation.result import Explanation
from seewhy.methods import EigenSmooth
from seewhy.methods.base import AnyMethod, Elementwise, NetworkMethod, Weighted
from seewhy.targets.parsing import TargetSpec

Floats = NDArray[np.float32]
Augmentation = tuple[bool, float]  # mirrored, factor of the values
AUGMENTATIONS: tuple[Augmentation, ...] = tuple((flip, factor) for flip in (False, True) for factor in (0.9, 1.0, 1.1))


class BaseCAM:
    """The call that all methods of pytorch-grad-cam share.

    The maps are those of `seewhy.explain`: the model is not modified and stays in its mode (in eval mode for the maps).
    To write a method, subclass and implement `get_cam_weights` or `get_cam_image` as with pytorch-grad-cam.

    Args:
        model: The model.
        target_layers: Modules of the model. The map is the mean of their maps.
        reshape_transform: Turns tokens into a grid. It is compared with the grid that seewhy infers, and not used otherwise.
        compute_input_gradient: Accepted and not used.
        uses_gradients: False if a subclass needs no gradients.
        tta_transforms: Transforms for `aug_smooth=True`, with `augment_image` and `deaugment_mask`. Default: mirrored or not,
            times 0.9, 1 and 1.1.
        detach: Accepted and not used.

    Raises:
        UsageError: A layer is not a module of the model, or `target_layers` is no list.
    """

    method: ClassVar[AnyMethod | None] = None  # None: a subclass of the user computes the weights
    difference: ClassVar[str] = ""  # how the package differs where it is wrong; logged at the first call

    def __init__(
        self,
        model: nn.Module,
        target_layers: Iterable[nn.Module],
        reshape_transform: Callable[..., Any] | None = None,
        compute_input_gradient: bool = False,
        uses_gradients: bool = True,
        tta_transforms: Iterable[Any] | None = None,
        detach: bool = True,
    ) -> None:
        self.model = model
        self.target_layers = as_layers(target_layers)
        self.layer_names = [name_of_layer(model, layer) for layer in self.target_layers]
        self.reshape_transform = reshape_transform
        self.uses_gradients = uses_gradients
        self.tta_transforms = tta_transforms
        self._outputs: Tensor | None = None
        self._inputs: Tensor | None = None

    @property
    def outputs(self) -> Any:
        """The model's output for the last inputs."""
        if self._outputs is None and self._inputs is not None:
            self._outputs = output_of(self.model, self._inputs)
        return self._outputs

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Targets = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> Floats:
        """Return one map per image.

        Args:
            input_tensor: `(B, C, height, width)`, or a volume `(B, C, depth, height, width)`, ready for the model.
            targets: One function per image, of the output of that image. Default: the predicted classes.
            aug_smooth: Average the maps of six changed versions of each image.
            eigen_smooth: Use the first principal component of what the channels add to the map.

        Returns:
            Float32 maps `(B, height, width)` at the size of the input, each scaled to [0, 1].

        Raises:
            UsageError: An argument is invalid, or the layer, method or target does not fit the model.
        """
        if not isinstance(input_tensor, Tensor):
            raise UsageError(
                f"input_tensor is of type {type(input_tensor).__name__}; pass a tensor (B, C, height, width)."
            )
        if aug_smooth:
            return self.forward_augmentation_smoothing(input_tensor, targets, eigen_smooth)
        return self.forward(input_tensor, targets, eigen_smooth)

    def forward(self, input_tensor: Tensor, targets: Targets, eigen_smooth: bool = False) -> Floats:
        """Return one map per image, without augmentation. See `__call__`."""
        explanation = self.explain(input_tensor, self.target_for(targets, len(input_tensor)), eigen_smooth)
        return self.aggregate_multi_layers(self.compute_cam_per_layer(explanation, tuple(input_tensor.shape[2:])))

    def explain(self, input_tensor: Tensor, target: TargetSpec, eigen_smooth: bool = False) -> Explanation:
        """Compute the explanation that the maps are read from.

        Args:
            input_tensor: See `__call__`.
            target: What seewhy accepts as `targets=`, for all images.
            eigen_smooth: See `__call__`.
        """
        self._inputs, self._outputs = self.on_device(input_tensor), None
        if self.reshape_transform is not None:
            check_token_order(self.model, self._inputs, self.layer_names, self.reshape_transform)
        method = self.method_for(eigen_smooth)
        if not self.layer_names and not isinstance(method, NetworkMethod):
            raise UsageError(
                "target_layers is empty; pass at least one module of the model, such as [model.layer4[-1]]."
            )
        # Of a module that runs several times, pytorch-grad-cam reads the first call.
        layers = [f"{name}#1" for name in dict.fromkeys(self.layer_names)]
        explanation = explain(self.model, self._inputs, methods=method, layers=layers or None, targets=target)
        if explanation.logits is not None:
            self._inputs, self._outputs = None, explanation.logits  # the inputs would be kept until the next call
        if self.difference:
            log_once(self.difference)
        if not isinstance(method, NetworkMethod):
            log_overwritten("pytorch-grad-cam", self.model, self.layer_names)
        return explanation

    def on_device(self, input_tensor: Tensor) -> Tensor:
        """Return the inputs on the device of the model."""
        return input_tensor.to(next((parameter.device for parameter in self.model.parameters()), input_tensor.device))

    def target_for(self, targets: Targets, images: int) -> TargetSpec:
        """Return the targets as one target of seewhy for all images; None for the predicted classes."""
        return as_target(targets, images)

    def method_for(self, eigen_smooth: bool) -> AnyMethod:
        """Return seewhy's method for these settings."""
        if self.method is None:
            return CustomCAM(type(self).__name__, self.get_cam_image)
        if not eigen_smooth or not isinstance(self.method, (Weighted, Elementwise)):
            return self.method
        log_once(
            "pytorch-grad-cam leaves the sign of eigen_smooth to chance; here the map correlates with the unsmoothed one."
        )
        return EigenSmooth(self.method)

    def compute_cam_per_layer(self, explanation: Explanation, size: tuple[int, ...]) -> list[Floats]:
        """Return the rectified map of each layer, scaled to [0, 1] and to the input's size: each `(B, 1, *size)`."""
        names = list(explanation.layer_info)
        layers = [NETWORK] if NETWORK in names else [find_call(name, names) for name in self.layer_names]
        maps = [explanation.map(layer=layer).float().cpu().numpy() for layer in layers]
        for one in maps:
            log_unusual(one)
        return [scale_cam_image(np.maximum(one, 0), size[::-1])[:, None] for one in maps]

    def aggregate_multi_layers(self, cam_per_target_layer: Sequence[Floats]) -> Floats:
        """Return the mean over the layers, scaled to [0, 1] again: `(B, *size)`."""
        # Splines, which resize volumes, overshoot below 0.
        return scale_cam_image(np.maximum(np.concatenate(cam_per_target_layer, axis=1), 0).mean(axis=1))

    def forward_augmentation_smoothing(
        self, input_tensor: Tensor, targets: Targets, eigen_smooth: bool = False
    ) -> Floats:
        """Return the mean map of changed versions of each image. See `__call__`."""
        maps = []
        for transform in self.tta_transforms or ():
            cam = torch.from_numpy(self.forward(transform.augment_image(input_tensor), targets, eigen_smooth))
            maps.append(transform.deaugment_mask(cam[:, None])[:, 0].numpy())
        for mirrored, factor in () if self.tta_transforms else AUGMENTATIONS:
            changed = (input_tensor.flip(-1) if mirrored else input_tensor) * factor
            cam_of_changed = self.forward(changed, targets, eigen_smooth)
            maps.append(cam_of_changed[..., ::-1] if mirrored else cam_of_changed)
        mean: Floats = np.mean(np.stack(maps), axis=0)
        return mean

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: Any,
        targets: Any,
        activations: NDArray[Any],
        grads: NDArray[Any],
    ) -> NDArray[Any]:
        """Return the weight of each channel `(B, K)`; for methods of users."""
        raise UsageError(f"{type(self).__name__} has neither get_cam_weights nor get_cam_image; implement one of them.")

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: Any,
        targets: Any,
        activations: NDArray[Any],
        grads: NDArray[Any],
        eigen_smooth: bool = False,
    ) -> NDArray[Any]:
        """Return the map `(B, *grid)`; for methods of users. Default: the sum of the weighted channels."""
        weights = self.get_cam_weights(input_tensor, target_layer, targets, activations, grads)
        axes = (1,) * (activations.ndim - 2)
        maps: NDArray[Any] = (weights.reshape(*weights.shape[:2], *axes) * activations).sum(axis=1)
        return maps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there are no hooks to remove, and errors of the block are not suppressed."""


def log_unusual(maps: Floats) -> None:
    """Log maps that cannot be read as usual, which pytorch-grad-cam returns without a word."""
    if not np.isfinite(maps).all():
        log_once("A map is not finite, because the inputs, the weights or the gradients are not: check these for NaN.")
    elif (maps.reshape(len(maps), -1).max(axis=1) <= 0).any():
        log_once(
            "A map has no positive evidence, so it is blank: try another layer or target, or look at seewhy.explain(...).map()."
        )


def as_layers(layers: object) -> list[nn.Module]:
    """Return `target_layers` as a list. As with pytorch-grad-cam, a module that contains modules means these."""
    if not isinstance(layers, Iterable) or isinstance(layers, str):
        raise UsageError(f"target_layers is of type {type(layers).__name__}; pass a list, such as [model.layer4[-1]].")
    return list(layers)


def find_call(name: str, calls: Sequence[str]) -> str:
    """Return the first call of a layer: "relu#1" for a module that runs twice."""
    return name if name in calls else next((call for call in calls if call.partition("#")[0] == name), name)
