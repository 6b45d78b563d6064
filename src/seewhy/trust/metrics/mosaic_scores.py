"""GridPG and DiFull: is the evidence for the class of one image of a mosaic in that image?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seewhy.engine.explain import explain
from seewhy.errors import UsageError
from seewhy.methods.parsing import MethodSpec
from seewhy.models.loaded_model import LoadedModel
from seewhy.tracing.twin import make_twin
from seewhy.trust.metrics.mosaics import CellTail, cell_fractions, make_mosaic

Array = NDArray[np.float64]


def grid_pg(
    model: nn.Module | LoadedModel,
    images: Tensor,
    classes: Sequence[int],
    *,
    methods: MethodSpec = "gradcam",
    layer: str,
) -> dict[str, Array]:
    """Show a model a mosaic, and return how much of the evidence for each image's class is in that image (GridPG).

    A low value may be the model's fault: if it looks at the other images too, a right map has evidence there. `difull`
    excludes that.

    Args:
        model: The model; it must accept inputs of `side` times the size of the images.
        images: A square number of inputs `(side * side, C, H, W)`, each recognized with high probability.
        classes: The class of each image.
        methods: One or more methods.
        layer: The layer; its map must have a number of cells that `side` divides.

    Returns:
        By method, the fraction of the positive values in the cell of the image, for each image, `(side * side,)`. A uniform
        map has 1 / side^2. NaN for a map without positive values.

    Raises:
        UsageError: The number of images is not a square, or differs from that of the classes.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> grid_pg(net, torch.rand(4, 1, 6, 6), [0, 1, 0, 1], layer="0")["gradcam"].shape
        (4,)

    References:
        Boehle et al., "Convolutional dynamic alignment networks", CVPR 2021
    """
    side = side_of(images, classes)
    mosaic = make_mosaic(images)
    values: dict[str, list[float]] = {}
    for cell, target in enumerate(classes):
        e = explain(model, mosaic, methods=methods, layers=[layer], targets=[int(target)])
        for (method, _, _), maps in e.maps.items():
            values.setdefault(method, []).append(float(cell_fractions(maps[0], side)[cell]))
    return {method: np.array(row) for method, row in values.items()}


def difull(
    first: nn.Module, tail: nn.Module, images: Tensor, target: int, *, cell: int, methods: MethodSpec = "gradcam"
) -> dict[str, float]:
    """Return how much of a map lies in the one image of a mosaic that the score depends on (DiFull).

    Each image goes through `first` alone; the activations are put together, and the score is that of one cell. Evidence in
    other cells is wrong by construction, so 1 is right, whatever the model has learned.

    Args:
        first: The model up to the layer.
        tail: The rest: from the activations of one image to class scores.
        images: A square number of inputs `(side * side, C, H, W)`.
        target: The class.
        cell: The image that the score depends on, counted row by row.
        methods: One or more methods.

    Returns:
        By method, the fraction of the positive values in that cell; NaN for a map without positive values.

    Raises:
        UsageError: The number of images is not a square, or there is no such cell.

    Example:
        >>> first, tail = nn.ReLU(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> round(difull(first, tail, torch.rand(4, 2, 6, 6), 0, cell=3, methods="hirescam")["hirescam"], 6)
        1.0

    References:
        Rao et al., "Towards better understanding attribution methods", CVPR 2022
    """
    side = side_of(images, range(len(images)))
    if not 0 <= cell < len(images):
        raise UsageError(f"cell={cell}: the mosaic has the cells 0 to {len(images) - 1}.")
    with torch.no_grad():
        activations = make_mosaic(make_twin(first)(images))  # in eval mode: batch statistics would connect the images
    e = explain(CellTail(tail, side, cell), activations, methods=methods, layers=["stitched"], targets=[int(target)])
    return {method: float(cell_fractions(maps[0], side)[cell]) for (method, _, _), maps in e.maps.items()}


def side_of(images: Tensor, classes: Sequence[int]) -> int:
    """Return the number of images per side of a mosaic. Raises UsageError if there is no such number."""
    side = math.isqrt(len(images))
    if side < 2 or side * side != len(images):
        raise UsageError(f"a mosaic needs 4, 9, 16, ... images, not {len(images)}.")
    if len(classes) != len(images):
        raise UsageError(f"{len(classes)} classes for {len(images)} images: pass one class for each image.")
    return side
