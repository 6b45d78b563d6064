"""Identities of methods based on principal components, and of FEM and Deep Feature Factorization.

A is the output of a layer, G the gradient of the score with respect to A, n the number of cells;
z is a logit, p its probability.
Section numbers such as 2.6 refer to chapter 2 of METHODS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.methods import (
    FEM,
    KPCACAM,
    DeepFeatureFactorization,
    EigenCAM,
    EigenGradCAM,
    EigenSmooth,
    GradCAM,
    LayerCAM,
    SegEigenCAM,
)
from support.identity_maps import maps_of, near, times
from support.identity_networks import (
    blob,
    close,
    flattened,
    pooled,
    random,
)


def by_svd(terms: Tensor, centered: bool) -> Tensor:
    """X V_1 (n,) of terms (K, h, w) by a whole SVD, the sign open."""
    x = terms.flatten(1).T.numpy()
    x = x - x.mean(0) if centered else x
    u, s, _ = np.linalg.svd(x)
    return torch.from_numpy(s[0] * u[:, 0]).reshape(terms.shape[1:])


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize(("channels", "grid"), [(5, (6, 7)), (42, (6, 7)), (60, (3, 4)), (1, (4, 5)), (9, (1, 3))])
def test_components_are_those_of_a_whole_svd(channels: int, grid: tuple[int, int], centered: bool) -> None:
    """2.14: through whichever Gram matrix is smaller, and turned to face the sum of the terms."""
    activation, weight = random(2, channels, *grid), random(3, channels, *grid, seed=1)
    net, gradient = flattened(weight), weight[[0, 2]]
    cases = (
        (EigenCAM(centered=centered), activation),
        (EigenGradCAM(centered=centered), gradient * activation),
        (EigenSmooth(LayerCAM(), centered=centered), gradient.relu() * activation),
        (EigenSmooth(GradCAM(), centered=centered), gradient.mean((2, 3), keepdim=True) * activation),
        (SegEigenCAM(centered=centered), gradient.abs() * activation),
    )
    for method, terms in cases:
        for found, one in zip(maps_of(net, activation, method, [0, 2]), terms, strict=True):
            expected = by_svd(one, centered)
            if isinstance(method, SegEigenCAM):
                expected = expected if expected.max() >= -expected.min() else -expected
            else:
                expected = expected if (expected * one.sum(0)).sum() >= 0 else -expected
            near(found[None], expected[None], 1e-9)


def test_channels_of_zeros_change_no_component_nor_which_matrix_is_smaller() -> None:
    activation = random(2, 5, 6, 7)
    many = torch.cat([activation, torch.zeros(2, 60, 6, 7)], 1)
    for centered in (True, False):
        few = maps_of(pooled(random(3, 5)), activation, EigenCAM(centered), [0, 1])
        near(maps_of(pooled(random(3, 65)), many, EigenCAM(centered), [0, 1]), few, 1e-10)


def test_components_of_one_pattern_are_that_pattern() -> None:
    """Rank 1: A_k = a_k P gives |a| P, or |a| (P - mean P) centered, on the side of the sum of the a_k."""
    pattern, strengths = random(6, 7), random(2, 5, seed=1)
    activation = strengths[:, :, None, None] * pattern
    sides = strengths.norm(dim=1) * strengths.sum(1).sign()
    net = pooled(random(3, 5, seed=2))
    for centered in (True, False):
        shape = pattern - pattern.mean() if centered else pattern
        close(maps_of(net, activation, EigenCAM(centered), [0, 1]), sides[:, None, None] * shape, rtol=1e-10)


def test_eigen_smoothing_of_one_pattern_is_the_base_but_for_its_length() -> None:
    """Rank-1 terms w_k a_k P: the base is sum(w a) P, its main pattern |w a| P on the same side; centered, less its mean."""
    pattern, strengths, weight = random(6, 7), random(2, 5, seed=1), random(3, 5, seed=2)
    activation, classes = strengths[:, :, None, None] * pattern, [2, 0]
    shares = weight[classes] * strengths / 42
    net = pooled(weight)
    base = maps_of(net, activation, GradCAM(), classes)
    length = shares.norm(dim=1) / shares.sum(1).abs()
    plain = maps_of(net, activation, EigenSmooth(GradCAM(), centered=False), classes)
    close(plain, times(length, base), rtol=1e-10)
    centred = maps_of(net, activation, EigenSmooth(GradCAM()), classes)
    close(centred, times(length, base - base.mean((1, 2), keepdim=True)), rtol=1e-9)


def test_eigencam_of_activations_above_zero_is_above_zero() -> None:
    """2.14: Perron: no ambiguity, and no half of the map lost."""
    for seed in range(5):
        activation = random(2, 6, 5, 7, seed=seed).abs()
        found = maps_of(pooled(random(3, 6)), activation, EigenCAM(), [0, 1])
        assert float(found.min()) > 0
        near(maps_of(pooled(random(3, 6)), -activation, EigenCAM(), [0, 1]), -found, 1e-11)
        near(maps_of(pooled(random(3, 6)), 1e-7 * activation, EigenCAM(), [0, 1]), 1e-7 * found, 1e-11)


def test_linear_kernel_components_are_eigencam_centred() -> None:
    """KPCA without a bend: sqrt(lambda) v is X V_1, the largest entry positive."""
    activation, net = random(2, 5, 6, 7), pooled(random(3, 5))
    expected = maps_of(net, activation, EigenCAM(centered=True), [0, 1])
    turn = torch.tensor([1.0 if one.max() >= -one.min() else -1.0 for one in expected], dtype=torch.float64)
    near(maps_of(net, activation, KPCACAM("linear"), [0, 1]), times(turn, expected), 1e-9)


def test_a_polynomial_of_degree_one_is_a_linear_kernel() -> None:
    """A constant added to a kernel is centered away, a factor is a factor of its square root."""
    activation, net = random(2, 5, 6, 7), pooled(random(3, 5))
    linear_map = maps_of(net, activation, KPCACAM("linear"), [0, 1])
    poly = maps_of(net, activation, KPCACAM("poly", gamma=4.0, coef0=7.0, degree=1), [0, 1])
    near(poly, 2 * linear_map, 1e-9)
    # A sigmoid and a Gaussian are straight where their argument is small: tanh(c) + (1 - tanh(c)^2) gamma x.z, and
    # exp(-gamma |x - z|^2), whose double-centered part is 2 gamma x.z.
    for kernel, slope in (("sigmoid", 1 - np.tanh(1.0) ** 2), ("rbf", 2.0)):
        found = maps_of(net, activation, KPCACAM(kernel, gamma=1e-8), [0, 1]) / (1e-8 * slope) ** 0.5
        near(found, linear_map, 1e-5)


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "poly", "linear", "cosine"])
def test_kernel_components_do_not_see_what_is_added_to_a_channel(kernel: Any) -> None:
    """Cells are centered before the kernel bends."""
    activation, net, shift = random(2, 5, 6, 7), pooled(random(3, 5)), 3 * random(5, 1, 1, seed=1)
    expected = maps_of(net, activation, KPCACAM(kernel), [0, 1])
    near(maps_of(net, activation + shift, KPCACAM(kernel), [0, 1]), expected, 1e-8)


def test_fem_marks_what_stands_out_with_the_mean_of_its_channel() -> None:
    """A blob of 4 cells in 64 is far above mean + 2 std; a channel of two halves (std = mean) has nothing above it."""
    halves = torch.cat([torch.ones(4, 8), torch.zeros(4, 8)]).double()
    activation = torch.stack([blob(1, 1, 3.0), blob(5, 5, -2.0), halves])[None]
    found = maps_of(pooled(random(2, 3)), activation, FEM(), [0])
    close(found[0], 3 * 4 / 64 * blob(1, 1))  # beside the blob of -2 all is above the mean, but not by 2 std
    lower = maps_of(pooled(random(2, 3)), activation, FEM(k=0.1), [0])
    close(lower[0], 3 * 4 / 64 * blob(1, 1) - 2 * 4 / 64 * (1 - blob(5, 5)) + 0.5 * halves)


def test_concepts_apart_are_found_apart() -> None:
    """Two patterns on cells and channels of their own: the factors are unique, and their maps add up to the layer."""
    first, second = blob(1, 1, 3.0), blob(5, 5, 2.0)
    strengths = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.0]]).double()
    activation = torch.einsum("jk,jhw->khw", strengths, torch.stack([first, second]))[None]
    methods = DeepFeatureFactorization(concepts=2)
    e = seewhy.explain(pooled(random(2, 4)), activation, methods=methods, layers="0", targets=0)
    one, other = (e.map(method=f"{methods}#{j}")[0] for j in (1, 2))
    # sizes: 3 * 2 * sqrt(5) = 13.4 and 2 * 2 * sqrt(10) = 12.6
    close(one, first * 5**0.5, rtol=1e-6, atol=1e-6)
    close(other, second * 10**0.5, rtol=1e-6, atol=1e-6)
