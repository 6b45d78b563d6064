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
    linear,
    pooled,
)

LINEAR = (GradCAM(), HiResCAM(), XGradCAM())  # maps that are linear in the score
BASES = (*LINEAR, LayerCAM(), GradCAMPlusPlus(), GradCAMElementwise(), EigenGradCAM(), SegEigenCAM())


def maps_of(net: nn.Module, inputs: Tensor, method: Any, target: Any, layers: Any = "0") -> Tensor:
    """The signed maps (B, *grid) of one method at one layer, for a class of each image, or a function of the logits."""
    target = ClassScore(torch.tensor(target)) if isinstance(target, list) else target
    (maps,) = seewhy.explain(net, inputs, methods=method, layers=layers, targets=target).maps.values()
    return maps


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Equal, each image's map relative to its own largest value."""
    assert found.shape == expected.shape
    apart = (found - expected).flatten(1).abs().amax(1)
    assert bool((apart <= tolerance * expected.flatten(1).abs().amax(1)).all()), apart  # NaN is wrong too


def alike(found: dict[Any, Tensor], expected: dict[Any, Tensor], tolerance: float = 1e-9, scale: float = 1.0) -> None:
    """Every map of one explanation is `scale` times that of another."""
    assert list(found) == list(expected) and expected
    for key, maps in expected.items():
        near(found[key], scale * maps, tolerance)


def times(values: Tensor, maps: Tensor) -> Tensor:
    """One value a image, times its map."""
    return values.reshape(-1, *[1] * (maps.dim() - 1)) * maps


def hidden(weight: Tensor, bias: Tensor) -> nn.Module:
    """As `pooled`, with one more linear layer that changes nothing: the head is not seen, so nothing is in closed form."""
    net = pooled(weight, bias)
    return nn.Sequential(*net, linear(torch.eye(len(weight)))).eval()


def normalized(maps: Tensor) -> Tensor:
    """N of each map (B, *grid); of a constant 0."""
    low, high = maps.flatten(1).amin(1), maps.flatten(1).amax(1)
    return torch.stack([(m - a) / (b - a) if b > a else m * 0 for m, a, b in zip(maps, low, high, strict=True)])


def resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def blurred(image: Tensor, width: int, sigma: float, border: str) -> Tensor:
    """(..., h, w) under a Gaussian, line by line."""
    found = image.numpy()
    for axis in (-2, -1):
        wide = min(width, 2 * found.shape[axis] - 1)
        bell = np.exp(-((np.arange(wide) - wide // 2) ** 2) / (2 * sigma**2))

        def line(values: np.ndarray, bell: np.ndarray = bell) -> np.ndarray:
            return np.convolve(np.pad(values, len(bell) // 2, mode=border), bell / bell.sum(), "valid")

        found = np.apply_along_axis(line, axis, found)
    return torch.from_numpy(found)
