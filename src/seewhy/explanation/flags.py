"""What is worth knowing about a map before one believes it, in words."""

from __future__ import annotations

import torch
from torch import Tensor

FLAGS = {
    "non_finite": "holds values that are not finite numbers",
    "no_gradient": "no gradient: the score does not depend on this layer, so the map is blank",
    "no_evidence": "no positive evidence: nothing here speaks for the target, so the heat map is blank",
    "constant": "the same value everywhere: it singles out no place",
    "no_grid": "a 1x1 output: it has no grid, and so no places",
}


def find_flags(maps: Tensor, has_gradient: Tensor | None) -> list[tuple[str, ...]]:
    """The flags of each signed map of a batch (B, *grid); `has_gradient` (B,) says whether any gradient came to the layer.

    >>> find_flags(torch.tensor([[[1.0, 2.0]], [[-1.0, -1.0]]]), None)
    [(), ('no_evidence', 'constant')]
    """
    flat = maps.flatten(1)
    cells = flat.shape[1]
    finite = flat.isfinite().all(1)
    found = {
        "non_finite": ~finite,
        "no_gradient": torch.zeros_like(finite) if has_gradient is None else ~has_gradient.to(finite.device),
        "no_evidence": finite & (flat.amax(1) <= 0),
        "constant": finite & (flat.amax(1) == flat.amin(1)) & (cells > 1),
        "no_grid": torch.full_like(finite, cells == 1),
    }
    # A blank map for want of a gradient has one cause, and needs one flag.
    found["no_evidence"] &= ~found["no_gradient"]
    found["constant"] &= ~found["no_gradient"]
    table = {name: which.tolist() for name, which in found.items()}
    return [tuple(name for name in FLAGS if table[name][index]) for index in range(len(maps))]
