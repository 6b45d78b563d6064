"""`_CAM`: the call of torchcam, computed by `seewhy.explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.compat.differences import log_once, log_overwritten
from seewhy.compat.layer_names import name_of_layer
from seewhy.compat.row_targets import RowScore
from seewhy.compat.torchcam.default_layer import find_default_layer
from seewhy.compat.torchcam.recorded_call import RecordedCall
from seewhy.engine.explain import explain
from seewhy.errors import UsageError
from seewhy.methods.base import AnyMethod
from seewhy.targets import ClassScore, Target
from seewhy.tensors.map_functions import rectify

OutputTarget = Callable[[Any], Tensor]
Layers = nn.Module | str | Sequence[nn.Module | str] | None
Classes = int | Sequence[int] | None
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class _CAM:
    """The call that all extractors of torchcam share.

    A hook on the model keeps the inputs and output of its last call; `seewhy.explain` computes the maps from these inputs in
    eval mode. Gradients are not needed: it also works on frozen models and under `torch.no_grad`.

    Args:
        model: The model.
        target_layer: A module of the model, its name, or a list of these. Default: the last one whose output has a grid.
        input_shape: Shape of one input, to find the default layer.
        enable_hooks: False: calls of the model are kept only after `enable_hooks()`.
        reshape_transform: Not supported: seewhy infers the grid of tokens.

    Raises:
        UsageError: A layer is not part of the model, or `reshape_transform` is given.
    """

    method: ClassVar[AnyMethod | None] = None
    difference: ClassVar[str] = ""  # how torchcam differs where it is wrong; logged at the first call
    rectifies: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        enable_hooks: bool = True,
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if reshape_transform is not None:
            raise UsageError("reshape_transform is not supported: seewhy infers the grid of tokens, so leave it out.")
        if target_layer is None:
            self.target_names = [find_default_layer(model, input_shape)]
        else:
            layers = [target_layer] if isinstance(target_layer, (str, nn.Module)) else list(target_layer)
            self.target_names = [name_of_layer(model, layer) for layer in layers]
        self.model = model
        self._call = RecordedCall(model)
        self._call.is_enabled = enable_hooks

    def __call__(
        self,
        class_idx: Classes = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        targets: OutputTarget | Sequence[OutputTarget] | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """Return the maps of the model's last call.

        Args:
            class_idx: The class, from 0, or one for each image.
            scores: The output of the model. It is compared with the recorded output, and may be omitted.
            normalized: True to scale each map to [0, 1] by its minimum and maximum.
            targets: Instead of `class_idx`: a function of the output of one image, or one for each image.
            **kwargs: `retain_graph` is accepted and not used.

        Returns:
            One tensor `(B, *grid)` per layer.

        Raises:
            UsageError: The model was not run before, or an argument is invalid.
        """
        if unknown := set(kwargs) - {"retain_graph"}:
            raise UsageError(
                f"unknown argument {', '.join(sorted(unknown))}; use class_idx, scores, normalized or targets."
            )
        args, keywords = self._call.inputs
        self._check_scores(scores)
        inputs = (args[0] if len(args) == 1 else args) if args else keywords
        explanation = explain(
            self.model,
            inputs,
            methods=self._method_for(),
            layers=self._layers(),
            targets=self._target_for(class_idx, targets),
            arguments=keywords if args and keywords else None,
            main=0 if len(args) > 1 else None,
        )
        if self.difference:
            log_once(self.difference)
        names = list(explanation.layer_info)
        maps = [explanation.map(layer=layer) for layer in self._maps_in(names)]
        log_overwritten("torchcam", self.model, self.target_names)
        maps = [rectify(one) if self.rectifies else one.clone() for one in maps]
        return [self._normalize(one) for one in maps] if normalized else maps

    compute_cams = __call__

    def _method_for(self) -> AnyMethod:
        """Return seewhy's method for the settings of this extractor."""
        assert self.method is not None
        return self.method

    def _layers(self) -> list[str]:
        return list(dict.fromkeys(self.target_names))

    def _maps_in(self, names: Sequence[str]) -> list[str]:
        """Return the layer of each map: of a module that runs several times, the last call, as in torchcam."""
        calls = [[call for call in names if call.partition("#")[0] == name] for name in self.target_names]
        return [(found or [name])[-1] for name, found in zip(self.target_names, calls, strict=True)]

    def _target_for(self, classes: Classes, targets: OutputTarget | Sequence[OutputTarget] | None) -> Target:
        """Return classes or functions as one target for all images."""
        if (classes is None) == (targets is None):
            raise UsageError("provide either class_idx or targets, and not both.")
        if targets is not None:
            rows = len(self._call.output)
            functions = [targets] * rows if callable(targets) else list(targets)
            if not all(callable(function) for function in functions):
                raise UsageError(
                    "targets: pass a function of the output of one image, or a list with one for each image."
                )
            return RowScore(tuple(functions))
        listed = [classes] if isinstance(classes, int) else list(classes or ())
        if not listed or any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in listed):
            raise UsageError(f"class_idx={classes!r}: pass a class from 0, or a list with one for each image.")
        return ClassScore(listed[0] if isinstance(classes, int) else torch.tensor(listed))

    def _check_scores(self, scores: Any) -> None:
        """Raise UsageError for scores that are not the output of the recorded call: they would be another target."""
        output = self._call.output
        if scores is None or scores is output or not isinstance(scores, Tensor) or not isinstance(output, Tensor):
            return
        if scores.shape != output.shape or not torch.equal(scores.detach().cpu(), output.detach().cpu()):
            raise UsageError(
                "scores is not the output of the model's last call; pass that output. To explain a function of it, such as a "
                "softmax, pass targets= instead of class_idx."
            )

    def enable_hooks(self) -> None:
        """Keep calls of the model from now on."""
        self._call.is_enabled = True

    def disable_hooks(self) -> None:
        """Do not keep calls of the model from now on."""
        self._call.is_enabled = False

    def reset_hooks(self) -> None:
        """Drop the last call of the model."""
        self._call.clear()

    def remove_hooks(self) -> None:
        """Remove the hook from the model."""
        self._call.remove()

    @contextmanager
    def _hooks_off(self) -> Iterator[None]:
        before, self._call.is_enabled = self._call.is_enabled, False
        try:
            yield
        finally:
            self._call.is_enabled = before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove_hooks()
        self.reset_hooks()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(target_layer={self.target_names})"

    @staticmethod
    @torch.no_grad()
    def _normalize(cams: Tensor, spatial_dims: int | None = None, eps: float = 1e-8) -> Tensor:
        """Scale maps to [0, 1] by their minimum and maximum over the last `spatial_dims` axes."""
        axes = tuple(range(-(cams.dim() - 1 if spatial_dims is None else spatial_dims), 0))
        cams = cams - cams.amin(axes, keepdim=True)
        return cams / (cams.amax(axes, keepdim=True) + eps)

    @classmethod
    def fuse_cams(cls, cams: Sequence[Tensor], target_shape: tuple[int, ...] | None = None) -> Tensor:
        """Return the maximum over the maps of several layers at each position.

        Args:
            cams: Maps `(B, *grid)`, one tensor per layer.
            target_shape: Size of the result. Default: the largest of each axis.

        Raises:
            UsageError: `cams` is empty or contains something else than tensors.
        """
        size = check_maps(cams, target_shape)
        if len(cams) == 1:
            return cams[0]
        resized = [resize_map(one, size) for one in cls._scale_cams(list(cams))]
        return torch.stack(resized).amax(0)

    @staticmethod
    def _scale_cams(cams: list[Tensor]) -> list[Tensor]:
        return cams


def check_maps(cams: object, size: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the size for a fusion of maps. Raises UsageError if they are not tensors."""
    if not isinstance(cams, (list, tuple)) or not cams or not all(isinstance(one, Tensor) for one in cams):
        raise UsageError("cams: pass a list of tensors (B, *grid), as an extractor returns it.")
    return size or tuple(max(sides) for sides in zip(*[one.shape[1:] for one in cams], strict=True))


def resize_map(cams: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize maps `(B, *grid)` linearly."""
    return F.interpolate(cams[:, None], size, mode=MODES[len(size)], align_corners=False)[:, 0]
