"""Identities of second-order methods, of Finer-CAM and of targets that are functions of the logits.

A is the output of a layer, G the gradient of the score with respect to A, n the number of cells;
z is a logit, p its probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.methods import (
    FinerCAM,
    GradCAM,
    HiResCAM,
    ShapleyCAM,
)
from seewhy.methods.base import Method
from seewhy.signals.layer import Need, Signals
from support.identity_maps import BASES, LINEAR, assert_maps_close, maps_of, scale_maps
from support.identity_networks import (
    CONVOLUTIONS,
    assert_close,
    class_scores,
    flattened_network,
    identity_convolution,
    logit_jacobian,
    mean_head_example,
    pooled_network,
    random_normal,
    relu_network,
    sum_maps,
)
from support.networks import InplaceNet, tiny_network
from support.parameters import stable_id


@dataclass(frozen=True)
class SecondOrder(Method):
    """Second-order contributions to the score: sum_k (G - HA / 2) A."""

    needs = Need.GRADIENTS | Need.CURVATURE

    def __call__(self, signals: Signals) -> Tensor:
        return ((signals.gradients - signals.curvature / 2) * signals.activations).sum(1)


class Quadratic(nn.Module):
    """y_c = A' Q_c A / 2 + b_c' A + c_c for each class, with known derivatives. The layer of A is "conv"."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        size = int(np.prod(shape))
        self.conv = identity_convolution(shape[0])
        half = random_normal(3, size, size, seed=5)
        self.q, self.b, self.c = half + half.mT, random_normal(3, size, seed=6), random_normal(3, seed=7)

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv(x).flatten(1)
        return torch.einsum("bi,cij,bj->bc", a, self.q, a) / 2 + a @ self.b.T + self.c


def test_second_order_map_of_a_quadratic_score_is_complete() -> None:
    """The sum of G A - A HA / 2 is y(A) - y(0); each cell is sum_k (b + QA / 2) A."""
    net, activation, classes = Quadratic((2, 3, 4)).eval(), random_normal(2, 2, 3, 4), [2, 0]
    maps = maps_of(net, activation, SecondOrder(), classes, "conv")
    assert_close(sum_maps(maps), class_scores(net, activation, classes) - net.c[classes], rtol=1e-10)
    flat = activation.flatten(1)
    half = torch.einsum("bij,bj->bi", net.q[classes], flat) / 2
    expected = ((net.b[classes] + half) * flat).reshape(activation.shape).sum(1)
    assert_close(maps, expected, rtol=1e-10)
    first = maps_of(net, activation, HiResCAM(), classes, "conv")
    assert_close(first - maps, (half * flat).reshape(activation.shape).sum(1), rtol=1e-10)  # the curvature contributes


@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_logit_of_a_relu_network_has_no_curvature(layer: str) -> None:
    """ShapleyCAM of a logit would equal Grad-CAM, and second-order contributions equal HiResCAM."""
    net, inputs = relu_network(bias=True), random_normal(2, 3, 12, 12)
    assert_close(
        maps_of(net, inputs, SecondOrder(), [1, 4], layer), maps_of(net, inputs, HiResCAM(), [1, 4], layer), atol=0
    )


def shapley_map(gradient: Tensor, curvature: Tensor, activation: Tensor, variant: str) -> Tensor:
    values = gradient - curvature / 2
    if variant == "mean":
        return torch.einsum("bk,bkhw->bhw", values.mean((2, 3)), activation)
    terms = values * activation
    return (terms.clamp(min=0) if variant == "elementwise" else terms).sum(1)


@pytest.mark.parametrize("variant", ["mean", "elementwise", "hires"])
def test_shapleycam_before_the_mean_in_closed_form(variant: Any) -> None:
    """For z_c + log p_c: G = W'(2 e_c - p) / n, HA = W'u / n with q = z - b and u = -p (q - p.q)."""
    weight, bias, activation, classes = mean_head_example()
    q = activation.mean((2, 3)) @ weight.T
    p = (q + bias).softmax(1)
    u = -p * (q - (p * q).sum(1, keepdim=True))
    chosen = 2 * torch.eye(4, dtype=torch.float64)[classes] - p
    gradient, curvature = ((part @ weight / 42)[:, :, None, None].expand_as(activation) for part in (chosen, u))
    assert float(curvature.abs().max()) > 1e-3 * float(gradient.abs().max())
    expected = shapley_map(gradient, curvature, activation, variant)
    assert_close(maps_of(pooled_network(weight, bias), activation, ShapleyCAM(variant), classes), expected, rtol=1e-10)


@pytest.mark.parametrize("variant", ["mean", "elementwise", "hires"])
@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_shapleycam_of_a_relu_network_has_curvature_only_from_the_softmax(layer: str, variant: Any) -> None:
    """A piecewise linear tail: HA = J' Hz J A, with Hz = -(diag p - p p') of log p."""
    net, inputs, classes = relu_network(bias=True), random_normal(2, 3, 12, 12), [1, 4]
    tail = net[int(layer) + 1 :]
    activation = net[: int(layer) + 1](inputs).detach()
    gradients, curvatures = [], []
    for a, c in zip(activation, classes, strict=True):
        j = logit_jacobian(lambda rows: tail(rows.clone()), a[None]).flatten(1)
        p = tail(a[None].clone())[0].softmax(0).detach()
        gradients.append(j.T @ (2 * torch.eye(5, dtype=torch.float64)[c] - p))
        curvatures.append(-j.T @ ((torch.diag(p) - torch.outer(p, p)) @ (j @ a.flatten())))
    gradient, curvature = (torch.stack(parts).reshape(activation.shape) for parts in (gradients, curvatures))
    assert float(curvature.abs().max()) > 1e-3 * float(gradient.abs().max())
    expected = shapley_map(gradient, curvature, activation, variant)
    assert_close(maps_of(net, inputs, ShapleyCAM(variant), classes, layer), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("base", BASES, ids=stable_id)
def test_finercam_with_gamma_zero_equals_the_base(base: Method) -> None:
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    expected = maps_of(net, inputs, base, [1, 4], "third")
    assert_maps_close(maps_of(net, inputs, FinerCAM(base, gamma=0.0), [1, 4], "third"), expected, 1e-12)
    changed = maps_of(net, inputs, FinerCAM(base), [1, 4], "third")
    assert float((changed - expected).abs().max() / expected.abs().max()) > 0.01


@pytest.mark.parametrize("references", [1, 2, 4, 9])
@pytest.mark.parametrize("base", LINEAR, ids=stable_id)
def test_finercam_subtracts_the_maps_of_the_nearest_classes(base: Method, references: int) -> None:
    """These methods are linear in the target; the nearest classes have the closest logits, above or below."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    classes = [int(c) for c in net(inputs).argsort(1)[:, 2]]  # the median class, with closest classes above and below
    each = torch.stack([maps_of(net, inputs, base, c, "third") for c in range(5)])
    expected = []
    for image, c in enumerate(classes):
        z = net(inputs)[image].tolist()
        others = sorted((d for d in range(5) if d != c), key=lambda d, z=z, c=c: abs(z[d] - z[c]))[:references]
        expected.append(each[c, image] - 0.7 * each[others, image].mean(0))
    actual = maps_of(net, inputs, FinerCAM(base, references=references, gamma=0.7), classes, "third")
    assert_maps_close(actual, torch.stack(expected), 1e-11)


@pytest.mark.parametrize("base", LINEAR, ids=stable_id)
def test_map_of_log_softmax_is_a_contrast_weighted_by_probability(base: Method) -> None:
    """log p_c = map_c - sum p_d map_d, which is 1 - p_c times a contrast; the map of p_c is p_c times that."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    each = torch.stack([maps_of(net, inputs, base, c, "third") for c in range(5)])
    p = net(inputs).softmax(1).detach()
    others = torch.einsum("bd,dbhw->bhw", torch.cat([p[:, :2], 0 * p[:, 2:3], p[:, 3:]], 1), each)
    contrast = each[2] - scale_maps(1 / (1 - p[:, 2]), others)  # gamma = 1, p-weighted references
    log = maps_of(net, inputs, base, lambda z: z.log_softmax(1)[:, 2], "third")
    assert_maps_close(log, scale_maps(1 - p[:, 2], contrast), 1e-11)
    assert_maps_close(
        maps_of(net, inputs, base, lambda z: z.softmax(1)[:, 2], "third"), scale_maps(p[:, 2], log), 1e-11
    )


def test_map_of_log_softmax_of_two_classes_equals_finercam() -> None:
    """log p_0 = p_1 (map_0 - map_1), and the only reference class of 0 is 1."""
    weight, activation = random_normal(2, 4, 5, 6, seed=4) / 5, random_normal(2, 4, 5, 6)
    net = flattened_network(weight)
    p = net(activation).softmax(1).detach()
    for base in LINEAR:
        finer = maps_of(net, activation, FinerCAM(base, gamma=1.0), [0, 0])
        assert_maps_close(
            maps_of(net, activation, base, lambda z: z.log_softmax(1)[:, 0]), scale_maps(p[:, 1], finer), 1e-11
        )
        assert_maps_close(maps_of(net, activation, FinerCAM(base, gamma=1.0), [1, 1]), -finer, 1e-11)


def test_batchnorm_changes_a_map_by_its_shift() -> None:
    """A' = s A + t, so Grad-CAM' = Grad-CAM + sum mean(G_k) t_k / s_k, and the same holds for HiResCAM cell by cell."""
    norm = nn.BatchNorm2d(4).double()
    with torch.no_grad():
        norm.running_mean.copy_(random_normal(4, seed=1))
        norm.running_var.copy_(random_normal(4, seed=2).abs() + 0.5)
        norm.weight.copy_(random_normal(4, seed=3).abs() + 0.5)
        norm.bias.copy_(random_normal(4, seed=4))
    weight = random_normal(3, 4, 5, 6, seed=5)
    net = flattened_network(weight, nn.Sequential(norm, nn.Tanh()))
    activation, classes = random_normal(2, 4, 5, 6), [0, 2]
    s = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    t = norm.bias.detach() - norm.running_mean * s
    leaf = activation.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[[0, 1], classes].sum(), leaf)
    shift = gradient * (t / s)[:, None, None]
    before, after = (
        {m: maps_of(net, activation, m, classes, layer) for m in (GradCAM(), HiResCAM())} for layer in ("0", "1.0")
    )
    assert_maps_close(
        after[GradCAM()], before[GradCAM()] + scale_maps(shift.mean((2, 3)).sum(1), torch.ones(2, 5, 6)), 1e-11
    )
    assert_maps_close(after[HiResCAM()], before[HiResCAM()] + shift.sum(1), 1e-11)
