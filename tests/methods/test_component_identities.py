"""Identities of methods based on principal components, and of FEM and Deep Feature Factorization.

A is the output of a layer, G the gradient of the score with respect to A, n the number of cells;
z is a logit, p its probability.
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
from seewhy.tensors import map_functions
from support.identity_maps import assert_maps_close, maps_of, scale_maps
from support.identity_networks import (
    assert_close,
    blob,
    flattened_network,
    pooled_network,
    random_normal,
)


def first_component(terms: Tensor, centered: bool) -> Tensor:
    """Return X V_1 of terms (K, h, w) from a full SVD; its sign is arbitrary."""
    x = terms.flatten(1).T.numpy()
    x = x - x.mean(0) if centered else x
    u, s, _ = np.linalg.svd(x)
    return torch.from_numpy(s[0] * u[:, 0]).reshape(terms.shape[1:])


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize(("channels", "grid"), [(5, (6, 7)), (42, (6, 7)), (60, (3, 4)), (1, (4, 5)), (9, (1, 3))])
def test_components_equal_a_full_svd(channels: int, grid: tuple[int, int], centered: bool) -> None:
    """Computed from the smaller Gram matrix, with the sign of the sum of the terms."""
    activation, weight = random_normal(2, channels, *grid), random_normal(3, channels, *grid, seed=1)
    net, gradient = flattened_network(weight), weight[[0, 2]]
    cases = (
        (EigenCAM(centered=centered), activation),
        (EigenGradCAM(centered=centered), gradient * activation),
        (EigenSmooth(LayerCAM(), centered=centered), gradient.relu() * activation),
        (EigenSmooth(GradCAM(), centered=centered), gradient.mean((2, 3), keepdim=True) * activation),
        (SegEigenCAM(centered=centered), gradient.abs() * activation),
    )
    for method, terms in cases:
        for actual, one in zip(maps_of(net, activation, method, [0, 2]), terms, strict=True):
            expected = first_component(one, centered)
            if isinstance(method, SegEigenCAM):
                expected = expected if expected.max() >= -expected.min() else -expected
            else:
                expected = expected if (expected * one.sum(0)).sum() >= 0 else -expected
            assert_maps_close(actual[None], expected[None], 1e-9)


def test_zero_channels_do_not_change_components() -> None:
    activation = random_normal(2, 5, 6, 7)
    many = torch.cat([activation, torch.zeros(2, 60, 6, 7)], 1)
    for centered in (True, False):
        few = maps_of(pooled_network(random_normal(3, 5)), activation, EigenCAM(centered), [0, 1])
        assert_maps_close(maps_of(pooled_network(random_normal(3, 65)), many, EigenCAM(centered), [0, 1]), few, 1e-10)


def test_component_of_a_rank_one_layer_is_its_pattern() -> None:
    """A_k = a_k P gives |a| P, or |a| (P - mean P) if centered, with the sign of the sum of the a_k."""
    pattern, strengths = random_normal(6, 7), random_normal(2, 5, seed=1)
    activation = strengths[:, :, None, None] * pattern
    sides = strengths.norm(dim=1) * strengths.sum(1).sign()
    net = pooled_network(random_normal(3, 5, seed=2))
    for centered in (True, False):
        shape = pattern - pattern.mean() if centered else pattern
        assert_close(maps_of(net, activation, EigenCAM(centered), [0, 1]), sides[:, None, None] * shape, rtol=1e-10)


def test_eigensmooth_of_a_rank_one_layer_is_a_multiple_of_the_base() -> None:
    """For terms w_k a_k P the base is sum(w a) P and the component |w a| P with the same sign, less its mean if centered."""
    pattern, strengths, weight = random_normal(6, 7), random_normal(2, 5, seed=1), random_normal(3, 5, seed=2)
    activation, classes = strengths[:, :, None, None] * pattern, [2, 0]
    contributions = weight[classes] * strengths / 42
    net = pooled_network(weight)
    base = maps_of(net, activation, GradCAM(), classes)
    length = contributions.norm(dim=1) / contributions.sum(1).abs()
    plain = maps_of(net, activation, EigenSmooth(GradCAM(), centered=False), classes)
    assert_close(plain, scale_maps(length, base), rtol=1e-10)
    centered = maps_of(net, activation, EigenSmooth(GradCAM()), classes)
    assert_close(centered, scale_maps(length, base - base.mean((1, 2), keepdim=True)), rtol=1e-9)


def test_eigencam_of_positive_activations_is_positive() -> None:
    """By the Perron-Frobenius theorem the first component has no change of sign."""
    for seed in range(5):
        activation = random_normal(2, 6, 5, 7, seed=seed).abs()
        actual = maps_of(pooled_network(random_normal(3, 6)), activation, EigenCAM(), [0, 1])
        assert float(actual.min()) > 0
        assert_maps_close(maps_of(pooled_network(random_normal(3, 6)), -activation, EigenCAM(), [0, 1]), -actual, 1e-11)
        assert_maps_close(
            maps_of(pooled_network(random_normal(3, 6)), 1e-7 * activation, EigenCAM(), [0, 1]), 1e-7 * actual, 1e-11
        )


def test_kpcacam_with_linear_kernel_equals_centered_eigencam() -> None:
    """For a linear kernel sqrt(lambda) v equals X V_1; its largest entry is positive."""
    activation, net = random_normal(2, 5, 6, 7), pooled_network(random_normal(3, 5))
    expected = maps_of(net, activation, EigenCAM(centered=True), [0, 1])
    turn = torch.tensor([1.0 if one.max() >= -one.min() else -1.0 for one in expected], dtype=torch.float64)
    assert_maps_close(maps_of(net, activation, KPCACAM("linear"), [0, 1]), scale_maps(turn, expected), 1e-9)


def test_kpcacam_kernels_that_are_linear_in_the_limit() -> None:
    """Centering removes a constant of the kernel; a factor of the kernel is a squared factor of the map."""
    activation, net = random_normal(2, 5, 6, 7), pooled_network(random_normal(3, 5))
    linear_map = maps_of(net, activation, KPCACAM("linear"), [0, 1])
    poly = maps_of(net, activation, KPCACAM("poly", gamma=4.0, coef0=7.0, degree=1), [0, 1])
    assert_maps_close(poly, 2 * linear_map, 1e-9)
    # A sigmoid and a Gaussian are linear for small arguments: tanh(c) + (1 - tanh(c)^2) gamma x.z, and
    # exp(-gamma |x - z|^2), whose double-centered part is 2 gamma x.z.
    for kernel, slope in (("sigmoid", 1 - np.tanh(1.0) ** 2), ("rbf", 2.0)):
        actual = maps_of(net, activation, KPCACAM(kernel, gamma=1e-8), [0, 1]) / (1e-8 * slope) ** 0.5
        assert_maps_close(actual, linear_map, 1e-5)


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "poly", "linear", "cosine"])
def test_kpcacam_ignores_a_constant_added_to_a_channel(kernel: Any) -> None:
    """Cells are centered before the kernel is applied."""
    activation, net, shift = (
        random_normal(2, 5, 6, 7),
        pooled_network(random_normal(3, 5)),
        3 * random_normal(5, 1, 1, seed=1),
    )
    expected = maps_of(net, activation, KPCACAM(kernel), [0, 1])
    assert_maps_close(maps_of(net, activation + shift, KPCACAM(kernel), [0, 1]), expected, 1e-8)


def test_fem_in_closed_form() -> None:
    """A blob of 4 of 64 cells exceeds mean + 2 std; a channel of two halves (std = mean) has no cell above it."""
    halves = torch.cat([torch.ones(4, 8), torch.zeros(4, 8)]).double()
    activation = torch.stack([blob(1, 1, 3.0), blob(5, 5, -2.0), halves])[None]
    actual = maps_of(pooled_network(random_normal(2, 3)), activation, FEM(), [0])
    assert_close(
        actual[0], 3 * 4 / 64 * blob(1, 1)
    )  # the cells outside the blob of -2 are above the mean, but not by 2 std
    lower = maps_of(pooled_network(random_normal(2, 3)), activation, FEM(k=0.1), [0])
    assert_close(lower[0], 3 * 4 / 64 * blob(1, 1) - 2 * 4 / 64 * (1 - blob(5, 5)) + 0.5 * halves)


def test_deep_feature_factorization_separates_disjoint_patterns() -> None:
    """Two patterns on disjoint cells and channels: the factorization is unique, and the maps add up to the layer."""
    first, second = blob(1, 1, 3.0), blob(5, 5, 2.0)
    strengths = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.0]]).double()
    activation = torch.einsum("jk,jhw->khw", strengths, torch.stack([first, second]))[None]
    methods = DeepFeatureFactorization(concepts=2)
    e = seewhy.explain(pooled_network(random_normal(2, 4)), activation, methods=methods, layers="0", targets=0)
    one, other = (e.map(method=f"{methods}#{j}")[0] for j in (1, 2))
    # sizes: 3 * 2 * sqrt(5) = 13.4 and 2 * 2 * sqrt(10) = 12.6
    assert_close(one, first * 5**0.5, rtol=1e-6, atol=1e-6)
    assert_close(other, second * 10**0.5, rtol=1e-6, atol=1e-6)


def test_sign_behind_a_layer_norm_does_not_depend_on_rounding() -> None:
    """There the sum over the channels is 0, so its rounding errors would decide."""
    torch.manual_seed(0)
    terms = torch.nn.functional.layer_norm(torch.randn(4, 12, 8), (8,)).mT.reshape(4, 8, 3, 4)
    maps = map_functions.first_component(terms, centered=False)
    signed = map_functions.align_sign(maps, terms)
    assert torch.equal(signed, map_functions.align_sign(-maps, terms))
    assert torch.equal(signed, map_functions.align_sign(maps, terms + 1e-7 * torch.randn(4, 8, 3, 4)))
    largest = signed.flatten(1).gather(1, signed.abs().flatten(1).argmax(1, keepdim=True))
    assert bool((largest > 0).all())
