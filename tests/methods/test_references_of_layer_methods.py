"""The references of methods of one layer, checked against closed forms and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support import reference as base_formulas
from support import reference_methods as ref
from support import reference_wrappers as wrappers
from support.layer_method_cases import (
    SMALL,
    PooledNet,
    map_from_formula,
    network_with_references,
)
from support.networks import InplaceNet, TwiceNet
from support.reference_image import (
    resize,
    weighted,
)


@pytest.mark.parametrize("size", [(12, 9), (5, 7), (3, 20), (4, 4)])
@pytest.mark.parametrize("corners", [False, True])
def test_reference_resizes_as_torch(size: tuple[int, int], corners: bool) -> None:
    values = torch.randn(3, 5, 7, dtype=torch.float64)
    there = F.interpolate(values[None], size, mode="bilinear", align_corners=corners)[0]
    torch.testing.assert_close(resize(values, size, corners), there, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", [InplaceNet, TwiceNet, PooledNet])
def test_reference_hessian_equals_central_differences(kind: type[nn.Module]) -> None:
    for layer in SMALL[kind]:
        image, step = network_with_references(kind)[3][0], 1e-5
        central_differences = []
        for sign in (1, -1):
            leaf = (image.activation(layer) * (1 + sign * step)).requires_grad_()
            central_differences.append(
                torch.autograd.grad(image.with_score(ref.shapley_score).tail(layer, leaf).sum(), leaf)[0][0].numpy()
            )
        actual, there = (
            ref.hessian_times_a(image, layer),
            (central_differences[0] - central_differences[1]) / (2 * step),
        )
        np.testing.assert_allclose(actual, there, rtol=0, atol=1e-7 * np.abs(actual).max())


def test_reference_equals_closed_forms_before_a_mean() -> None:
    """METHODS 2.5, 2.6: with logits Ablation-CAM is W Abar / y and Recipro-CAM is b + CAM / n."""
    net, _, _, references = network_with_references(PooledNet)
    for image in references:
        a, weight, bias = image.a("last"), net.head.weight[image.c].tolist(), net.head.bias[image.c].item()
        cam, count = ref.cam(image, "last", "head"), a[0].size
        y = image.run(image.x)
        ablated = weighted([w * channel.mean() / y for w, channel in zip(weight, a, strict=True)], a)
        np.testing.assert_allclose(ref.ablationcam(image, "last"), ablated, rtol=0, atol=1e-12)
        actual = ref.reciprocam(image, "last", score="logit")
        np.testing.assert_allclose(actual, bias + cam / count, rtol=0, atol=1e-12)


def test_reference_wrappers_without_effect_equal_the_base() -> None:
    for image in network_with_references(InplaceNet)[3]:
        for base in map(map_from_formula, base_formulas.METHODS):
            there = base(image, "second")
            for actual in (
                wrappers.smooth(image, "second", base, samples=2, sigma=0.0),
                wrappers.augmented(image, "second", base, flip=False, factors=(1.0,)),
                ref.finercam(image, "second", base, gamma=0.0),
            ):
                np.testing.assert_allclose(actual, there, rtol=0, atol=1e-12 * np.abs(there).max())
