"""Maps of one method, comparisons of maps, and image operations for the tests of identities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.methods import (
    EigenGradCAM,
    GradCAM,
    GradCAMElementwise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SegEigenCAM,
    XGradCAM,
)
from seewhy.targets import ClassScore
from support.identity_networks import (
    linear_layer,
    pooled_network,
)

LINEAR = (GradCAM(), HiResCAM(), XGradCAM())  # maps that are linear in the score
BASES = (*LINEAR, LayerCAM(), GradCAMPlusPlus(), GradCAMElementwise(), EigenGradCAM(), SegEigenCAM())


def maps_of(net: nn.Module, inputs: Tensor, method: Any, target: Any, layers: Any = "0") -> Tensor:
    """Return the signed maps (B, *grid) of a method at one layer, for one class per image or a function of the logits."""
    target = ClassScore(torch.tensor(target)) if isinstance(target, list) else target
    (maps,) = seewhy.explain(net, inputs, methods=method, layers=layers, targets=target).maps.values()
    return maps


def assert_maps_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Assert equal maps, with a tolerance relative to the maximum absolute value of each map."""
    assert actual.shape == expected.shape
    difference = (actual - expected).flatten(1).abs().amax(1)
    assert bool((difference <= tolerance * expected.flatten(1).abs().amax(1)).all()), difference  # NaN fails as well


def assert_all_maps_close(
    actual: dict[Any, Tensor], expected: dict[Any, Tensor], tolerance: float = 1e-9, scale: float = 1.0
) -> None:
    """Assert that every map of one explanation is `scale` times that of the other."""
    assert list(actual) == list(expected) and expected
    for key, maps in expected.items():
        assert_maps_close(actual[key], scale * maps, tolerance)


def scale_maps(values: Tensor, maps: Tensor) -> Tensor:
    """Multiply the map of each image by its value."""
    return values.reshape(-1, *[1] * (maps.dim() - 1)) * maps


def pooled_network_with_hidden_head(weight: Tensor, bias: Tensor) -> nn.Module:
    """As `pooled_network`, with half the weights and a layer that doubles the scores, which prevents closed forms."""
    net = pooled_network(weight / 2, bias / 2)
    return nn.Sequential(*net, linear_layer(2 * torch.eye(len(weight)))).eval()


def normalize_maps(maps: Tensor) -> Tensor:
    """Scale each map (B, *grid) to [0, 1]; constant maps become 0."""
    low, high = maps.flatten(1).amin(1), maps.flatten(1).amax(1)
    return torch.stack([(m - a) / (b - a) if b > a else m * 0 for m, a, b in zip(maps, low, high, strict=True)])


def resize_maps(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def blur(image: Tensor, width: int, sigma: float, border: str) -> Tensor:
    """Apply a Gaussian blur to (..., h, w), one axis after the other."""
    actual = image.numpy()
    for axis in (-2, -1):
        wide = min(width, 2 * actual.shape[axis] - 1)
        bell = np.exp(-((np.arange(wide) - wide // 2) ** 2) / (2 * sigma**2))

        def line(values: np.ndarray, bell: np.ndarray = bell) -> np.ndarray:
            return np.convolve(np.pad(values, len(bell) // 2, mode=border), bell / bell.sum(), "valid")

        actual = np.apply_along_axis(line, axis, actual)
    return torch.from_numpy(actual)
