"""From signed maps to heat: rectified, at the input's size or on the photo, in shares of one maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy import tensors
from seewhy.errors import UsageError
from seewhy.images import regions
from seewhy.rendering.overlays import check_scale

if TYPE_CHECKING:
    from seewhy.explanation.result import Explanation
    from seewhy.explanation.selection import MapKey


def at_input(e: Explanation, key: MapKey, scale: str) -> Tensor:
    """(B, *size) in [0, 1]: the map resized to the input, and divided by the maximum that `scale` means."""
    heat = evidence(e, key)
    if check_scale(scale) == "own":
        return tensors.divide_by_max(heat)
    top = shared_top(e, key).reshape(-1, *[1] * len(e.size))
    return torch.where(top > 0, heat / top, 0.0)


def evidence(e: Explanation, key: MapKey) -> Tensor:
    """The map's positive part at the input's size (B, *size), in the method's own units."""
    return tensors.resize(tensors.rectify(e.maps[key]), e.size)


def shared_top(e: Explanation, key: MapKey) -> Tensor:
    """The largest value (B,) over all targets, for each picture, of one method at one layer."""
    method, _, layer = key
    alike = [(method, target, layer) for target in e.targets if (method, target, layer) in e.maps]
    return torch.stack([evidence(e, other).flatten(1).amax(1) for other in alike]).amax(0)


def on_photo(e: Explanation, key: MapKey, size: tuple[int, int] | None, scale: str) -> NDArray[np.float32]:
    """(H0, W0) in [0, 1], or at `size`: the same function as at the input, read at the photo's pixels."""
    if len(e.size) != 2:
        raise UsageError(f"on_photo draws pictures; these maps have {len(e.size)} axes: use map() or heat().")
    low = tensors.rectify(e.maps[key][:1]).float().cpu()
    own = check_scale(scale) == "own"
    top = float(tensors.resize(low, e.size).amax() if own else shared_top(e, key)[0])
    placed = e.view.place(low[0].numpy(), size or e.view.photo)
    return np.clip(placed / top, 0, 1) if top > 0 else placed * 0


def mask(e: Explanation, key: MapKey, threshold: float, scale: str) -> NDArray[np.bool_]:
    """Where the heat is at least `threshold`: on the photo (H0, W0), or for signals and volumes on the input (*size)."""
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold={threshold!r}: give a share of the map's maximum, above 0 and at most 1.")
    flat = len(e.size) == 2
    heat = on_photo(e, key, None, scale) if flat else at_input(e, key, scale)[0].float().cpu().numpy()
    top = heat.max() if scale == "own" else 1.0
    return heat >= threshold * top if heat.max() > 0 else np.zeros(heat.shape, bool)


def box(e: Explanation, key: MapKey, threshold: float, scale: str) -> tuple[int, ...] | None:
    """The box around the largest part of the mask: starts, then exclusive ends, the last axis first."""
    return regions.largest_box(mask(e, key, threshold, scale))
