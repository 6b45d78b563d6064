"""Identities of wrappers around another method, and of methods that use the full model.

A is the output of a layer, G the gradient of the score with respect to A, n the number of cells;
z is a logit, p its probability.
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
from support.identity_maps import (
    BASES,
    LINEAR,
    assert_maps_close,
    blur,
    maps_of,
    normalize_maps,
    resize_maps,
    scale_maps,
)
from support.identity_networks import (
    assert_close,
    class_scores,
    flattened_network,
    identity_convolution,
    linear_example,
    linear_layer,
    logit_jacobian,
    random_normal,
    relu_network,
    sum_maps,
)
from support.networks import InplaceNet, tiny_network
from support.parameters import stable_id


class GuidedReLUFunction(torch.autograd.Function):
    """A ReLU whose backward pass keeps only positive gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp(min=0) * (ctx.saved_tensors[0] > 0)


class GuidedReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return GuidedReLUFunction.apply(x)


@pytest.mark.parametrize("base", [GradCAM(), LayerCAM(), EigenCAM(), FinerCAM(GradCAM(), gamma=1.0)], ids=stable_id)
def test_guided_gradcam_is_guided_backpropagation_times_the_base(base: Method) -> None:
    """The map is guided backpropagation, summed over color channels, times the rectified and resized base map."""
    net, inputs, classes = relu_network(bias=True), random_normal(2, 3, 12, 12), [1, 4]
    twin = nn.Sequential(*(GuidedReLU() if isinstance(part, nn.ReLU) else part for part in net))
    leaf = inputs.clone().requires_grad_()
    (guided,) = torch.autograd.grad(twin(leaf)[[0, 1], classes].sum(), leaf)
    plain = logit_jacobian(lambda x: net(x.clone()), inputs[:1])[classes[0]]
    assert float((guided[0] - plain).abs().max()) > 1e-3  # guided and plain gradients differ
    for layer in ("0", "3"):
        where = resize_maps(maps_of(net, inputs, base, classes, layer).relu(), (12, 12))
        assert_maps_close(maps_of(net, inputs, GuidedGradCAM(base), classes, layer), guided.sum(1) * where, 1e-11)


@pytest.mark.parametrize(
    "base", [*BASES, EigenCAM(), ShapleyCAM(), FinerCAM(), AblationCAM(), ScoreCAM()], ids=stable_id
)
def test_wrappers_without_effect_equal_the_base(base: Method) -> None:
    """Smooth without noise, and Augmented without flip and with factor 1."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    expected = maps_of(net, inputs, base, [1, 4], "third")
    for method in (Smooth(base, samples=3, sigma=0.0), Augmented(base, flip=False, factors=(1.0,))):
        assert_maps_close(maps_of(net, inputs, method, [1, 4], "third"), expected, 1e-11)


def mean_noise(inputs: Tensor, samples: int, sigma: float, seed: int) -> Tensor:
    """Return the mean noise that `Smooth` adds to each image."""
    spread = inputs.flatten(1).amax(1) - inputs.flatten(1).amin(1)
    drawn = [random_normal(1, *inputs.shape[1:], seed=seed * 100003 + i) for i in range(samples)]
    return sigma * spread[:, None, None, None] * torch.cat(drawn).mean(0)


def test_smooth_of_a_linear_network_is_the_map_of_the_mean_image() -> None:
    """G is constant and A linear, so the map changes only by the mean of the noise."""
    net, inputs, classes, _, _ = linear_example()
    moved = inputs + mean_noise(inputs, 5, 0.4, 3)
    for base in (GradCAM(), HiResCAM(), LayerCAM()):
        actual = maps_of(net, inputs, Smooth(base, samples=5, sigma=0.4, seed=3), classes, "conv")
        assert_maps_close(actual, maps_of(net, moved, base, classes, "conv"), 1e-11)
        assert float((actual - maps_of(net, inputs, base, classes, "conv")).abs().max()) > 1e-3


def test_smooth_gradcam_plusplus_equals_gradcam_plusplus_for_constant_gradients() -> None:
    """Equal to Grad-CAM++ without noise or with constant G, because S_k and A come from the clean image."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    expected = maps_of(net, inputs, GradCAMPlusPlus(), [1, 4], "third")
    assert_maps_close(
        maps_of(net, inputs, SmoothGradCAMPlusPlus(samples=3, sigma=0.0), [1, 4], "third"), expected, 1e-10
    )
    net, inputs, classes, _, _ = linear_example()
    expected = maps_of(net, inputs, GradCAMPlusPlus(), classes, "conv")
    assert_maps_close(
        maps_of(net, inputs, SmoothGradCAMPlusPlus(samples=3, sigma=0.5), classes, "conv"), expected, 1e-10
    )


def test_integrated_on_a_linear_network() -> None:
    """Without biases A grows with i / m and G is constant: the mean of i / m for i < m, which is (m - 1) / 2m, times the
    base. With biases this holds for A minus A at the first step."""
    weight, inputs, classes = random_normal(3, 4, 5, 6, seed=4), random_normal(2, 4, 5, 6), [0, 2]
    net = flattened_network(weight)
    for base in (*LINEAR, LayerCAM(), EigenGradCAM()):
        expected = maps_of(net, inputs, base, classes)
        actual = maps_of(net, inputs, Integrated(base, steps=5, rectified=False), classes)
        assert_maps_close(actual, 0.4 * expected, 1e-11)
        assert_maps_close(maps_of(net, inputs, Integrated(base, steps=5), classes), 0.4 * expected.relu(), 1e-11)
    net, inputs, classes, j, _ = linear_example()
    gradient = net.head.weight.reshape(3, 4, 5, 6)[classes].detach()
    grown = (net.conv(inputs) - net.conv.bias[:, None, None]).detach()
    actual = maps_of(net, inputs, Integrated(HiResCAM(), 4, rectified=False, difference=True), classes, "conv")
    assert_maps_close(actual, 0.375 * (gradient * grown).sum(1), 1e-11)
    # The sum stops one step before the image, so it covers 3/8 of y(x) - y(0).
    assert_maps_close(
        sum_maps(actual)[:, None], 0.375 * torch.einsum("bihw,bihw->b", j[classes], inputs)[:, None], 1e-10
    )


def test_augmented_by_factors_on_a_linear_network() -> None:
    """Scaling the image scales the map, so the mean of the maps has the mean factor."""
    weight, inputs, classes = random_normal(3, 4, 5, 6, seed=4), random_normal(2, 4, 5, 6), [0, 2]
    for base in (GradCAM(), HiResCAM(), LayerCAM()):
        expected = maps_of(flattened_network(weight), inputs, base, classes)
        actual = maps_of(
            flattened_network(weight), inputs, Augmented(base, flip=False, factors=(0.5, 1.0, 3.0)), classes
        )
        assert_maps_close(actual, 1.5 * expected, 1e-11)


@pytest.mark.parametrize("base", [GradCAM(), HiResCAM(), EigenCAM(), ScoreCAM()], ids=stable_id)
def test_augmented_map_is_reflected_with_the_image(base: Method) -> None:
    """The map of a reflected image is the reflected map, also for a network that is not symmetric."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)

    def score_function(x: Tensor, method: Method) -> Tensor:
        return maps_of(net, x, method, [1, 4], "second")

    assert_maps_close(
        score_function(inputs.flip(-1), Augmented(base)), score_function(inputs, Augmented(base)).flip(-1), 1e-11
    )
    plain = score_function(inputs, base).flip(-1)
    assert float((score_function(inputs.flip(-1), base) - plain).abs().max() / plain.abs().max()) > 0.1
    halves = (plain + score_function(inputs.flip(-1), base)).flip(-1) / 2
    assert_maps_close(score_function(inputs, Augmented(base, factors=(1.0,))), halves, 1e-11)


def test_cameras_with_one_size() -> None:
    """The sum of U(A) U(G) is HiResCAM if the layer has the size of the image, and resized Grad-CAM if G is constant."""
    weight, activation = random_normal(3, 4, 5, 6, seed=4), random_normal(2, 4, 5, 6)
    assert_maps_close(maps_of(flattened_network(weight), activation, CAMERAS(sizes=1), [0, 2]),
         maps_of(flattened_network(weight), activation, HiResCAM(), [0, 2]), 1e-11)  # fmt: skip
    net = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net, inputs = net.double().eval(), random_normal(2, 2, 11, 9)
    gradcam = maps_of(net, inputs, GradCAM(), [0, 2])
    assert_maps_close(maps_of(net, inputs, CAMERAS(sizes=1), [0, 2]), resize_maps(gradcam, (11, 9)), 1e-10)


@pytest.mark.parametrize("base", [GradCAM(), LayerCAM()], ids=stable_id)
def test_sess_with_one_scale_is_the_blurred_map(base: Method) -> None:
    """The only window is the full image, so p / max p is 1 and the map is the blurred N(U(relu(base)))."""
    net, inputs, classes, _, _ = linear_example()
    maps = normalize_maps(resize_maps(maps_of(net, inputs, base, classes, "conv").relu(), (9, 12)))
    assert_maps_close(maps_of(net, inputs, SESS(base, scales=1), classes, "conv"), blur(maps, 11, 5.0, "edge"), 1e-10)


@dataclass(frozen=True)
class InputAndBiasContributions(NetworkMethod):
    """The terms of FullGrad without its scaling: x dy/dx plus the contributions of the biases, spread over all pixels."""

    def __call__(self, signals: ModelSignals) -> Tensor:
        actual = list[Tensor]()

        def consume(bias: Tensor, gradient: Tensor) -> None:
            actual.append((gradient.flatten(2).sum(2) * bias).sum(1))

        pixels = signals.visit_biases(consume).sum(1)
        return pixels + scale_maps(torch.stack(actual).sum(0), torch.ones_like(pixels)) / pixels[0].numel()


def test_full_gradients_are_complete() -> None:
    """Pixels and biases, including those of BatchNorm, sum to the logit of a ReLU network minus its last bias."""
    parts = [
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6, affine=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    ]  # fmt: skip
    net = nn.Sequential(*parts).double().eval()
    with torch.no_grad():
        for i, norm in enumerate(m for m in net if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.copy_(random_normal(6, seed=i))
            norm.running_var.copy_(random_normal(6, seed=10 + i).abs() + 0.5)
        net[1].weight.copy_(random_normal(6, seed=20).abs() + 0.5)
        net[1].bias.copy_(random_normal(6, seed=21))
    inputs, classes = random_normal(2, 3, 8, 8), [3, 1]
    actual = sum_maps(maps_of(net, inputs, InputAndBiasContributions(), classes, None))
    assert_close(actual, class_scores(net, inputs, classes) - net[11].bias[classes].detach(), rtol=1e-10)


def test_fullgrad_of_a_linear_network_without_bias() -> None:
    """Only the pixels contribute: |x dy/dx|, scaled to [0, 1] over all color channels, then summed."""
    net, inputs, classes, j, _ = linear_example()
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.conv.bias.zero_()
    pixels = normalize_maps((j[classes] * inputs).abs()).sum(1)
    assert_maps_close(maps_of(net, inputs, FullGrad(), classes, None), pixels, 1e-11)
    # SimpleFullGrad adds |G|, scaled to [0, 1] and resized with aligned corners.
    gradient = normalize_maps(net.head.weight.reshape(3, 4, 5, 6)[classes].abs().detach()).sum(1, keepdim=True)
    expected = pixels + F.interpolate(gradient, (9, 12), mode="bilinear", align_corners=True)[:, 0]
    assert_maps_close(maps_of(net, inputs, FullGrad(biases=False), classes, None), expected, 1e-11)


def test_refinecam_and_layercam_fusion_of_equal_layers() -> None:
    """For three equal layers the product is a third power, and the maximum is that of the map and its tanh."""
    weight, activation, classes = random_normal(3, 4, 5, 6, seed=4), random_normal(2, 4, 5, 6), [0, 2]
    net = nn.Sequential(
        identity_convolution(4),
        identity_convolution(4),
        identity_convolution(4),
        nn.Flatten(),
        linear_layer(weight.flatten(1)),
    ).eval()
    for base in (HiResCAM(), LayerCAM()):
        maps = maps_of(net, activation, base, classes).relu()
        assert_maps_close(
            maps_of(net, activation, RefineCAM(base), classes, ["0", "1", "2"]), normalize_maps(maps) ** 3, 1e-11
        )
        share = maps / maps.amax((1, 2), keepdim=True)
        fused = maps_of(net, activation, LayerCAMFusion(base, 2.0), classes, ["0", "1", "2"])
        assert_maps_close(fused, torch.maximum(share, torch.tanh(2 * share)), 1e-11)
        assert_maps_close(maps_of(net, activation, LayerCAMFusion(base, 0.5), classes, ["0", "2"]), share, 1e-11)
