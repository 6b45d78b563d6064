"""Comparison of explanations."""

from __future__ import annotations

import torch

import seewhy


def assert_equal_maps(one: seewhy.Explanation, other: seewhy.Explanation, **tolerance: float) -> None:
    """Check that two explanations have the same keys and maps."""
    assert one.maps.keys() == other.maps.keys()
    for key in one.maps:
        torch.testing.assert_close(one.maps[key], other.maps[key], **tolerance)
