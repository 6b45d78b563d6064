"""Identities of wrappers around another method, and of methods that use the full model.

A is the output of a layer, G the gradient of the score with respect to A, n the number of cells;
z is a logit, p its probability.
Section numbers such as 2.6 refer to chapter 2 of METHODS.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.methods import (
    CAMERAS,
    SESS,
    AblationCAM,
    Augmented,
    EigenCAM,
    EigenGradCAM,
    FinerCAM,
    FullGrad,
    GradCAM,
    GradCAMPlusPlus,
    GuidedGradCAM,
    HiResCAM,
    Integrated,
    LayerCAM,
    LayerCAMFusion,
    RefineCAM,
    ScoreCAM,
    ShapleyCAM,
    Smooth,
    SmoothGradCAMPlusPlus,
)
from seewhy.methods.base import Method, NetworkMethod
from seewhy.signals.model import ModelSignals
from support.identity_maps import BASES, LINEAR, blurred, maps_of, near, normalized, resized, times
from support.identity_networks import (
    close,
    flattened,
    jacobian,
    linear,
    passing,
    random,
    rectified,
    score,
    straight,
    total,
)
from support.networks import InplaceNet, tiny_network
from support.parameters import stable_id


class Guided(torch.autograd.Function):
    """A ReLU that passes back positive gradients only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp(min=0) * (ctx.saved_tensors[0] > 0)


class GuidedReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Guided.apply(x)


@pytest.mark.parametrize("base", [GradCAM(), LayerCAM(), EigenCAM(), FinerCAM(GradCAM(), gamma=1.0)], ids=stable_id)
def test_guided_gradcam_is_a_product(base: Method) -> None:
    """Guided backpropagation, summed over the colors, times the base's map rectified and resized."""
    net, inputs, classes = rectified(bias=True), random(2, 3, 12, 12), [1, 4]
    twin = nn.Sequential(*(GuidedReLU() if isinstance(part, nn.ReLU) else part for part in net))
    leaf = inputs.clone().requires_grad_()
    (guided,) = torch.autograd.grad(twin(leaf)[[0, 1], classes].sum(), leaf)
    plain = jacobian(lambda x: net(x.clone()), inputs[:1])[classes[0]]
    assert float((guided[0] - plain).abs().max()) > 1e-3  # otherwise any gradient would do
    for layer in ("0", "3"):
        where = resized(maps_of(net, inputs, base, classes, layer).relu(), (12, 12))
        near(maps_of(net, inputs, GuidedGradCAM(base), classes, layer), guided.sum(1) * where, 1e-11)


@pytest.mark.parametrize(
    "base", [*BASES, EigenCAM(), ShapleyCAM(), FinerCAM(), AblationCAM(), ScoreCAM()], ids=stable_id
)
def test_what_changes_nothing_is_the_base(base: Method) -> None:
    """No noise; no flip and a factor of 1."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    expected = maps_of(net, inputs, base, [1, 4], "third")
    for method in (Smooth(base, samples=3, sigma=0.0), Augmented(base, flip=False, factors=(1.0,))):
        near(maps_of(net, inputs, method, [1, 4], "third"), expected, 1e-11)


def noise_of(inputs: Tensor, samples: int, sigma: float, seed: int) -> Tensor:
    """The mean noise that `Smooth` adds to each image."""
    spread = inputs.flatten(1).amax(1) - inputs.flatten(1).amin(1)
    drawn = [random(1, *inputs.shape[1:], seed=seed * 100003 + i) for i in range(samples)]
    return sigma * spread[:, None, None, None] * torch.cat(drawn).mean(0)


def test_smooth_of_a_linear_net_is_the_map_of_the_mean_picture() -> None:
    """G is constant and A linear, so noise moves the map only by its mean."""
    net, inputs, classes, _, _ = straight()
    moved = inputs + noise_of(inputs, 5, 0.4, 3)
    for base in (GradCAM(), HiResCAM(), LayerCAM()):
        found = maps_of(net, inputs, Smooth(base, samples=5, sigma=0.4, seed=3), classes, "conv")
        near(found, maps_of(net, moved, base, classes, "conv"), 1e-11)
        assert float((found - maps_of(net, inputs, base, classes, "conv")).abs().max()) > 1e-3


def test_smooth_gradcam_plusplus_without_noise_and_before_a_linear_tail() -> None:
    """Without noise, or where G does not hear of it, it is Grad-CAM++: S_k and A are those of the clean image."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    expected = maps_of(net, inputs, GradCAMPlusPlus(), [1, 4], "third")
    near(maps_of(net, inputs, SmoothGradCAMPlusPlus(samples=3, sigma=0.0), [1, 4], "third"), expected, 1e-10)
    net, inputs, classes, _, _ = straight()
    expected = maps_of(net, inputs, GradCAMPlusPlus(), classes, "conv")
    near(maps_of(net, inputs, SmoothGradCAMPlusPlus(samples=3, sigma=0.5), classes, "conv"), expected, 1e-10)


def test_integrated_on_a_linear_net() -> None:
    """Without biases A grows with i / m and G is constant: the mean of i / m for i < m, which is (m - 1) / 2m, times the
    base. With biases that is true of A less its start."""
    weight, inputs, classes = random(3, 4, 5, 6, seed=4), random(2, 4, 5, 6), [0, 2]
    net = flattened(weight)
    for base in (*LINEAR, LayerCAM(), EigenGradCAM()):
        expected = maps_of(net, inputs, base, classes)
        found = maps_of(net, inputs, Integrated(base, steps=5, rectified=False), classes)
        near(found, 0.4 * expected, 1e-11)
        near(maps_of(net, inputs, Integrated(base, steps=5), classes), 0.4 * expected.relu(), 1e-11)
    net, inputs, classes, j, _ = straight()
    gradient = net.head.weight.reshape(3, 4, 5, 6)[classes].detach()
    grown = (net.conv(inputs) - net.conv.bias[:, None, None]).detach()
    found = maps_of(net, inputs, Integrated(HiResCAM(), 4, rectified=False, difference=True), classes, "conv")
    near(found, 0.375 * (gradient * grown).sum(1), 1e-11)
    # Complete but for the last step, as the sum stops before the image: 3/8 of y(x) - y(0).
    near(total(found)[:, None], 0.375 * torch.einsum("bihw,bihw->b", j[classes], inputs)[:, None], 1e-10)


def test_augmented_by_factors_on_a_linear_net() -> None:
    """Lighter and darker images give lighter and darker maps: their mean is the mean factor."""
    weight, inputs, classes = random(3, 4, 5, 6, seed=4), random(2, 4, 5, 6), [0, 2]
    for base in (GradCAM(), HiResCAM(), LayerCAM()):
        expected = maps_of(flattened(weight), inputs, base, classes)
        found = maps_of(flattened(weight), inputs, Augmented(base, flip=False, factors=(0.5, 1.0, 3.0)), classes)
        near(found, 1.5 * expected, 1e-11)


@pytest.mark.parametrize("base", [GradCAM(), HiResCAM(), EigenCAM(), ScoreCAM()], ids=stable_id)
def test_augmented_is_mirrored_with_its_picture_by_any_net(base: Method) -> None:
    """A image and its mirror image are asked the same targets, whatever the net makes of left and right."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)

    def score_function(x: Tensor, method: Method) -> Tensor:
        return maps_of(net, x, method, [1, 4], "second")

    near(score_function(inputs.flip(-1), Augmented(base)), score_function(inputs, Augmented(base)).flip(-1), 1e-11)
    plain = score_function(inputs, base).flip(-1)
    assert float((score_function(inputs.flip(-1), base) - plain).abs().max() / plain.abs().max()) > 0.1
    halves = (plain + score_function(inputs.flip(-1), base)).flip(-1) / 2
    near(score_function(inputs, Augmented(base, factors=(1.0,))), halves, 1e-11)


def test_cameras_of_one_size() -> None:
    """U(A) U(G) summed: HiResCAM where the layer has the image's size, Grad-CAM resized where G is constant."""
    weight, activation = random(3, 4, 5, 6, seed=4), random(2, 4, 5, 6)
    near(maps_of(flattened(weight), activation, CAMERAS(sizes=1), [0, 2]),
         maps_of(flattened(weight), activation, HiResCAM(), [0, 2]), 1e-11)  # fmt: skip
    net = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net, inputs = net.double().eval(), random(2, 2, 11, 9)
    gradcam = maps_of(net, inputs, GradCAM(), [0, 2])
    near(maps_of(net, inputs, CAMERAS(sizes=1), [0, 2]), resized(gradcam, (11, 9)), 1e-10)


@pytest.mark.parametrize("base", [GradCAM(), LayerCAM()], ids=stable_id)
def test_sess_of_one_scale_is_the_map_of_the_picture_blurred(base: Method) -> None:
    """One window, the whole image: p / max p is 1, and what is left are N(U(relu(base))) and the blur."""
    net, inputs, classes, _, _ = straight()
    maps = normalized(resized(maps_of(net, inputs, base, classes, "conv").relu(), (9, 12)))
    near(maps_of(net, inputs, SESS(base, scales=1), classes, "conv"), blurred(maps, 11, 5.0, "edge"), 1e-10)


@dataclass(frozen=True)
class Shares(NetworkMethod):
    """x dy/dx, and what each bias adds spread over all pixels: the pieces of FullGrad, without its scaling."""

    def __call__(self, signals: ModelSignals) -> Tensor:
        found = list[Tensor]()

        def consume(bias: Tensor, gradient: Tensor) -> None:
            found.append((gradient.flatten(2).sum(2) * bias).sum(1))

        pixels = signals.visit_biases(consume).sum(1)
        return pixels + times(torch.stack(found).sum(0), torch.ones_like(pixels)) / pixels[0].numel()


def test_full_gradients_of_the_library_are_complete() -> None:
    """Pixels and biases, those implied by BatchNorm too, add up to the logit of a ReLU net less its last bias."""
    parts = [
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6, affine=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    ]  # fmt: skip
    net = nn.Sequential(*parts).double().eval()
    with torch.no_grad():
        for i, norm in enumerate(m for m in net if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.copy_(random(6, seed=i))
            norm.running_var.copy_(random(6, seed=10 + i).abs() + 0.5)
        net[1].weight.copy_(random(6, seed=20).abs() + 0.5)
        net[1].bias.copy_(random(6, seed=21))
    inputs, classes = random(2, 3, 8, 8), [3, 1]
    found = total(maps_of(net, inputs, Shares(), classes, None))
    close(found, score(net, inputs, classes) - net[11].bias[classes].detach(), rtol=1e-10)


def test_fullgrad_of_a_linear_net_whose_bias_is_zero() -> None:
    """Nothing but the pixels is left: |x dy/dx|, all colors together on [0, 1], summed."""
    net, inputs, classes, j, _ = straight()
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.conv.bias.zero_()
    pixels = normalized((j[classes] * inputs).abs()).sum(1)
    near(maps_of(net, inputs, FullGrad(), classes, None), pixels, 1e-11)
    # SimpleFullGrad adds |G|, on [0, 1], resized with aligned corners.
    gradient = normalized(net.head.weight.reshape(3, 4, 5, 6)[classes].abs().detach()).sum(1, keepdim=True)
    expected = pixels + F.interpolate(gradient, (9, 12), mode="bilinear", align_corners=True)[:, 0]
    near(maps_of(net, inputs, FullGrad(biases=False), classes, None), expected, 1e-11)


def test_refinecam_and_fusion_of_equal_layers() -> None:
    """Three layers that say the same: the product is a third power, the maximum is what tanh lifts the least ones to."""
    weight, activation, classes = random(3, 4, 5, 6, seed=4), random(2, 4, 5, 6), [0, 2]
    net = nn.Sequential(passing(4), passing(4), passing(4), nn.Flatten(), linear(weight.flatten(1))).eval()
    for base in (HiResCAM(), LayerCAM()):
        maps = maps_of(net, activation, base, classes).relu()
        near(maps_of(net, activation, RefineCAM(base), classes, ["0", "1", "2"]), normalized(maps) ** 3, 1e-11)
        share = maps / maps.amax((1, 2), keepdim=True)
        fused = maps_of(net, activation, LayerCAMFusion(base, 2.0), classes, ["0", "1", "2"])
        near(fused, torch.maximum(share, torch.tanh(2 * share)), 1e-11)
        near(maps_of(net, activation, LayerCAMFusion(base, 0.5), classes, ["0", "2"]), share, 1e-11)
