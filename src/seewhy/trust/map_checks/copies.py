"""The copies of a map that the check compares it with: rotated, reflected and shifted.

A copy has the same values, the same shape of blob, and roughly the same distance from the center. A map is specific to the
image only if it predicts the effect of covering better than its copies do.

Summing the values of a copy under a mask is linear in the map, and the masks are symmetric. So a map is multiplied once by a
table (masks under 9 shifts), and the sums of its 8 orientations are the same numbers in another order.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from seewhy.explanation.windows import MASKS, MODES, STEPS
from seewhy.trust.map_checks.windows import window_masks
from seewhy.trust.metrics.units import resample

Array = NDArray[np.float64]

FINE = 56  # cells per side on which maps and masks are compared
SHIFT = FINE // 7
SHIFTS = (-SHIFT, 0, SHIFT)
ORIENTATIONS = 8


@cache
def mask_table() -> Array:
    """Return the masks under each shift of a map, `(cells, 9 * 27)`: a map times it gives the sums under the masks.

    A shifted map repeats its border. Instead of the map, the masks are shifted, in the opposite direction.
    """
    masks = F.adaptive_avg_pool2d(window_masks((4 * FINE, 4 * FINE))[:, None], FINE)[:, 0].numpy()
    masks -= masks.mean((1, 2), keepdims=True)  # the same as removing the mean of each map
    moves = [np.eye(FINE)[np.clip(np.arange(FINE) + shift, 0, FINE - 1)] for shift in SHIFTS]
    table = np.stack([down.T @ masks @ right for down in moves for right in moves])
    return np.ascontiguousarray(table.reshape(-1, FINE * FINE).T)


def covered_sums(maps: Tensor) -> tuple[Array, Array]:
    """Return the sums of maps under the masks, and those of their copies.

    Args:
        maps: Maps without negative values, `(n, height, width)`.

    Returns:
        `(n, 27)`, and `(n, 63, 27)`: 7 other orientations, each with 9 shifts. The mean of each map is removed, so the size of
        a mask does not count.
    """
    fine = resample(maps.double(), (FINE, FINE)).cpu().numpy().reshape(len(maps), -1)
    sums = (fine @ mask_table()).reshape(-1, len(SHIFTS), len(SHIFTS), len(MODES), STEPS, STEPS)
    own = sums[:, 1, 1].reshape(len(maps), MASKS)
    copies = [turn(sums, number) for number in range(1, ORIENTATIONS)]
    stacked = np.stack([copy.reshape(len(maps), -1, MASKS) for copy in copies], axis=1)
    return own, stacked.reshape(len(maps), -1, MASKS)


def turn(sums: Array, orientation: int) -> Array:
    """Return the sums `(n, shifts, shifts, modes, windows, windows)` of maps in another orientation.

    Turning a map turns the shifts and the windows, because their arrangements are squares. Orientations 4 to 7 are mirrored.
    """
    if orientation >= 4:
        sums = sums[:, :, ::-1, :, :, ::-1]
    quarter_turns = orientation % 4
    return np.rot90(np.rot90(sums, quarter_turns, axes=(1, 2)), quarter_turns, axes=(4, 5))
