"""Removal curves for tests: those of an additive score, or of the probability of a class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

import seewhy
from seewhy.explanation.curves import RemovalCurve, RemovalCurves
from seewhy.trust.fillers import Blur, Filler, Mean
from seewhy.trust.metrics.removal import random_curve, removal_curves
from seewhy.trust.metrics.units import unit_sums

FILLERS: dict[str, Filler] = {"blur": Blur(), "mean": Mean()}
GRID = (6, 6)


def with_curves(e: seewhy.Explanation, model: torch.nn.Module | None = None) -> seewhy.Explanation:
    """Return the explanation of images with the curves of all maps. Without `model`, the score is the brightness."""
    assert e.inputs is not None
    curves: dict[tuple[str, str, str], tuple[dict[str, RemovalCurves], ...]] = {}
    random: dict[str, tuple[dict[str, RemovalCurve], ...]] = {}
    for key, maps in e.maps.items():
        score = make_score(model, e, key[1])
        places = {"grid": GRID, "size": e.size}
        curves[key] = tuple(
            {
                name: removal_curves(score, filler.bind(image), unit_sums(one[None], GRID)[0].numpy(), **places)
                for name, filler in FILLERS.items()
            }
            for image, one in zip(e.inputs, maps, strict=True)
        )
        random[key[1]] = tuple(
            {name: random_curve(score, filler.bind(image), **places) for name, filler in FILLERS.items()}
            for image in e.inputs
        )
    return dataclasses.replace(e, curves=curves, random_curves=random)


def make_score(model: torch.nn.Module | None, e: seewhy.Explanation, target: str) -> Callable[..., Tensor]:
    """Return a function that scores changed inputs: the probability of a class, or the mean of all values."""

    def score(count: int, build: Callable[[slice], Tensor]) -> Tensor:
        with torch.no_grad():
            inputs = build(slice(0, count))
            return inputs.mean((1, 2, 3)) if model is None else model(inputs).softmax(1)[:, int(target)]

    return score
