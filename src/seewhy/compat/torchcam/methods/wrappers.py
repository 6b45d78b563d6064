"""`RefineCAM` and `FinerCAM` of torchcam: extractors that use another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.compat.row_targets import RowScore
from seewhy.compat.torchcam.methods.core import _CAM, Classes, Layers, OutputTarget, check_maps, resize_map
from seewhy.compat.torchcam.methods.extractors import GradCAM, GradCAMpp
from seewhy.errors import UsageError
from seewhy.methods.base import AnyMethod
from seewhy.targets import Target

References = int | Sequence[int] | Sequence[Sequence[int]] | None


class RefineCAM(_CAM):
    """The product of the maps of several layers.

    Args:
        model: See `_CAM`.
        target_layer: At least two layers.
        input_shape: See `_CAM`.
        base_method: The class of the extractor of each layer.
        **base_kwargs: Settings of `base_method`.

    Raises:
        UsageError: There are fewer than two layers, or `base_method` is no extractor.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: Sequence[nn.Module | str],
        input_shape: tuple[int, ...] = (3, 224, 224),
        *,
        base_method: type[_CAM] = GradCAMpp,
        **base_kwargs: Any,
    ) -> None:
        if isinstance(target_layer, (str, nn.Module)) or len(target_layer) < 2:
            raise UsageError("RefineCAM multiplies the maps of several layers; pass a list of at least two.")
        if not isinstance(base_method, type) or not issubclass(base_method, _CAM):
            raise UsageError(f"base_method={base_method!r}: pass a class of seewhy.compat.torchcam.methods.")
        super().__init__(model, target_layer, input_shape)
        with base_method(model, target_layer, input_shape, **base_kwargs) as base:
            self._base_method, self.difference = base._method_for(), base.difference  # type: ignore[misc]

    def _method_for(self) -> AnyMethod:
        return self._base_method

    def __call__(
        self,
        class_idx: Classes = None,
        scores: Any = None,
        normalized: bool = True,
        target_shape: tuple[int, ...] | None = None,
        *,
        targets: OutputTarget | Sequence[OutputTarget] | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """Return a list with one map for all layers, of size `target_shape`. Args: see `_CAM.__call__`."""
        maps = super().__call__(class_idx, scores, targets=targets, **kwargs)
        return [self.fuse_cams(maps, target_shape, normalized)]

    compute_cams = __call__

    @classmethod
    def fuse_cams(
        cls, cams: Sequence[Tensor], target_shape: tuple[int, ...] | None = None, normalized: bool = True
    ) -> Tensor:
        """Return the product of maps, each scaled to [0, 1] and resized. Args: see `_CAM.fuse_cams`."""
        size = check_maps(cams, target_shape)
        product = torch.stack([resize_map(cls._normalize(one), size) for one in cams]).prod(0)
        return cls._normalize(product) if normalized else product


class FinerCAM(_CAM):
    """A base extractor for the score of a class minus `gamma` times the mean score of other classes.

    Args:
        model: See `_CAM`.
        target_layer: See `_CAM`.
        input_shape: See `_CAM`.
        base_method: The class of the extractor.
        gamma: Strength of the comparison.
        num_references: Number of classes with the nearest scores to compare with.
        **base_kwargs: Settings of `base_method`.

    References:
        Zhang et al., "Finer-CAM", CVPR 2025, https://arxiv.org/abs/2501.11309
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        *,
        base_method: type[_CAM] = GradCAM,
        gamma: float = 0.6,
        num_references: int = 3,
        **base_kwargs: Any,
    ) -> None:
        if num_references < 1 or gamma < 0:
            raise UsageError(f"gamma={gamma}, num_references={num_references}: must be at least 0 and at least 1.")
        super().__init__(model, target_layer, input_shape)
        with base_method(model, target_layer, input_shape, **base_kwargs) as base:
            self._base_method, self.difference = base._method_for(), base.difference  # type: ignore[misc]
        self.gamma, self.num_references = gamma, num_references
        self._comparison: References = None

    def _method_for(self) -> AnyMethod:
        return self._base_method

    def __call__(
        self,
        class_idx: Classes = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        comparison_idx: References = None,
        targets: OutputTarget | Sequence[OutputTarget] | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """Return one map per layer. `comparison_idx`: the classes to compare with. Args: see `_CAM.__call__`."""
        if targets is not None:
            raise UsageError("FinerCAM compares classes; pass class_idx instead of targets.")
        self._comparison = comparison_idx
        return super().__call__(class_idx, scores, normalized, **kwargs)

    compute_cams = __call__

    def _target_for(self, classes: Classes, targets: object) -> Target:
        output = self._call.output
        if not isinstance(output, Tensor) or output.dim() != 2:
            raise UsageError("FinerCAM needs a model that returns class scores (B, classes).")
        super()._target_for(classes, None)  # checks the classes
        own = [classes] * len(output) if isinstance(classes, int) else list(classes or ())
        if len(own) != len(output) or max(own) >= output.shape[1]:
            raise UsageError(f"class_idx={classes!r} for {len(output)} images and {output.shape[1]} classes.")
        rows = self._references(output.detach(), own)
        return RowScore(tuple(difference(one, row, self.gamma) for one, row in zip(own, rows, strict=True)))

    def _references(self, scores: Tensor, own: Sequence[int]) -> list[list[int]]:
        """Return the classes to compare with, for each image."""
        given = self._comparison
        if given is None:
            distances = (scores - scores[range(len(own)), list(own)][:, None]).abs()
            distances[range(len(own)), list(own)] = torch.inf
            count = min(self.num_references, scores.shape[1] - 1)
            nearest: list[list[int]] = distances.topk(count, largest=False).indices.tolist()
            return nearest
        listed = [given] if isinstance(given, int) else list(given)
        rows = [list(row) for row in listed if isinstance(row, Sequence)]
        rows = rows or [[one for one in listed if isinstance(one, int)]] * len(own)
        is_valid = len(rows) == len(own) and all(
            row and one not in row and all(0 <= other < scores.shape[1] for other in row)
            for one, row in zip(own, rows, strict=True)
        )
        if not is_valid:
            raise UsageError(f"comparison_idx={given!r}: pass classes other than class_idx, for each image or all.")
        return rows


def difference(own: int, others: Sequence[int], gamma: float) -> OutputTarget:
    """Return the target: a class's score minus `gamma` times the mean of the others."""
    return lambda row: row[own] - gamma * row[list(others)].mean()
