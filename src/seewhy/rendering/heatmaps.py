"""Heatmaps: signed maps after ReLU, resized and scaled to [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import UsageError
from seewhy.images.view import View
from seewhy.tensors import map_functions

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Heatmap:
    """The heatmap of signed `maps` (B, *grid), which can be sampled at the input's size or at the pixels of a photo.

    `size` is the size of the input. `maximum` (B,) is the value that becomes 1, in the units of the maps; None: each map's own.
    """

    maps: Tensor
    size: tuple[int, ...]
    maximum: Tensor | None = None

    def at_input(self) -> Tensor:
        """Return the heatmaps (B, *size) in [0, 1]."""
        positive = resize_positive(self.maps, self.size)
        if self.maximum is None:
            return map_functions.divide_by_max(positive)
        top = self.maximum.reshape(-1, *[1] * len(self.size))
        return torch.where(top > 0, positive / top, 0.0)

    def array(self) -> Floats:
        """Return the heatmap (*size) of the first image as an array."""
        values: Floats = self.at_input()[0].float().cpu().numpy()
        return values

    def on_photo(self, view: View, size: tuple[int, int]) -> Floats:
        """Return the heatmap of the first image at the pixels of its photo, drawn at `size` (height, width).

        It is the same bilinear function as `at_input`, evaluated at the photo's pixel centers; 0 outside the view.
        """
        low = map_functions.rectify(self.maps[:1]).float().cpu()
        top = float(map_functions.resize(low, self.size).amax() if self.maximum is None else self.maximum[0])
        placed = view.to_photo(low[0].numpy(), size)
        placed = placed / top if top > 0 else placed * 0
        return np.clip(placed, 0, 1, out=placed)


def shared_maximum(maps: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """Return the largest positive value (B,) over several maps (B, *grid) of the same images, at the input's size."""
    return torch.stack([resize_positive(one, size).flatten(1).amax(1) for one in maps]).amax(0)


def resize_positive(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the positive part of maps (B, *grid) at the input's size, in the units of the maps."""
    return map_functions.resize(map_functions.rectify(maps), size)


def threshold_mask(heatmap: Floats, threshold: float, *, own_maximum: bool) -> NDArray[np.bool_]:
    """Return where a heatmap reaches `threshold`, or with `own_maximum` that fraction of its maximum. All zeros: all False."""
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold={threshold!r}: pass a fraction of the map's maximum, above 0 and at most 1.")
    top = heatmap.max() if own_maximum else 1.0
    return heatmap >= threshold * top if heatmap.max() > 0 else np.zeros(heatmap.shape, bool)
