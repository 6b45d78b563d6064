"""Flags: properties of a map that make it less informative, with descriptions."""

from __future__ import annotations

import torch
from torch import Tensor

FLAGS = {
    "non_finite": "contains values that are not finite numbers",
    "no_gradient": "no gradient: the score does not depend on this layer, so the map is blank",
    "no_evidence": "no positive evidence: nothing here supports the target, so the heatmap is blank",
    "constant": "constant: the same value everywhere, so it highlights no location",
    "no_grid": "no grid: the output is 1x1, so it has no locations",
}


def find_flags(maps: Tensor, has_gradient: Tensor | None) -> list[tuple[str, ...]]:
    """Return the flags of each signed map (B, *grid); `has_gradient` (B,): whether any gradient reached the layer.

    >>> find_flags(torch.tensor([[[1.0, 2.0]], [[-1.0, -1.0]]]), None)
    [(), ('no_evidence', 'constant')]
    """
    flat = maps.flatten(1)
    cells = flat.shape[1]
    finite = flat.isfinite().all(1)
    table = {
        "non_finite": ~finite,
        "no_gradient": torch.zeros_like(finite) if has_gradient is None else ~has_gradient.to(finite.device),
        "no_evidence": finite & (flat.amax(1) <= 0),
        "constant": finite & (flat.amax(1) == flat.amin(1)) & (cells > 1),
        "no_grid": torch.full_like(finite, cells == 1),
    }
    # An all-zero map without gradient gets only the `no_gradient` flag.
    table["no_evidence"] &= ~table["no_gradient"]
    table["constant"] &= ~table["no_gradient"]
    rows = {name: values.tolist() for name, values in table.items()}
    return [tuple(name for name in FLAGS if rows[name][index]) for index in range(len(maps))]
