"""Outputs of a norm that an activation overwrites, and that are read again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seewhy


class ReadsAgain(nn.Module):
    """The output of the norm is overwritten by the activation, and then read by `probe`."""

    def __init__(self, use: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.use = use
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ELU(inplace=True)
        self.probe = nn.Sequential() if use == "returned" else nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 2, 3)
        nn.init.normal_(self.norm.running_mean)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        normalized = self.norm(self.conv(image))
        activated = self.act(normalized)
        if self.use == "function":
            activated = activated + normalized.exp()
        else:
            probed = self.probe(normalized)
            activated = activated + probed if self.use == "module" else activated
        return self.last(activated).mean((2, 3))


@pytest.mark.parametrize("use", ["returned", "module", "function", "unused"])
def test_maps_are_those_of_the_overwritten_values(use: str) -> None:
    """For "returned" and "unused", the second use does not change the output, so comparing outputs shows no difference."""
    model = ReadsAgain(use).eval().double()
    inputs = torch.randn(2, 3, 12, 12, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    settings = {"layers": "all", "methods": ["gradcam", "hirescam", "layercam"], "targets": 1}
    plain = seewhy.explain(model, inputs, **settings)  # type: ignore[arg-type]
    prepared = seewhy.prepare(model)
    e = seewhy.explain(prepared, inputs, **settings)  # type: ignore[arg-type]
    assert prepared.fast.recipe is not None and prepared.fast.recipe.pairs, "the norm is folded"
    assert e.maps.keys() == plain.maps.keys()
    for key, expected in plain.maps.items():
        torch.testing.assert_close(e.maps[key], expected, rtol=1e-8, atol=1e-10)
