"""Algebraic identities of six gradient methods on networks in which every number is known, without a reference.

A is the output of a convolution, G the gradient of the score, n the number of cells, S_k the sum of channel k.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.targets import ClassScore
from support.identity_networks import (
    CONVOLUTIONS,
    assert_close,
    blob,
    class_scores,
    flattened_network,
    mean_head_example,
    pooled_network,
    random_normal,
    relu_network,
    sum_maps,
)
from support.networks import FlattenNet, InplaceNet, tiny_network

METHODS = ("gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "gradcamelementwise")


# --- Maps -------------------------------------------------------------------------------------------------------------


def maps_of(net: nn.Module, inputs: Tensor, classes: list[int], layer: str) -> dict[str, Tensor]:
    """Return the signed maps (B, h, w) of the six methods at one layer, for one class per image."""
    targets = ClassScore(torch.tensor(classes))
    explanation = seewhy.explain(net, inputs, methods=list(METHODS), layers=[layer], targets=targets)
    return {method: explanation.map(method=method, layer=layer) for method in METHODS}


# --- Maps computed by hand --------------------------------------------------------------------------------------------


def test_two_blobs_and_two_classes() -> None:
    """Channel 0 has a blob top left, channel 1 bottom right; each class has one positive and one negative weight."""
    first, second = blob(1, 1, 3.0), blob(5, 5, 2.0)
    image = torch.stack([first, second])
    weight = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    maps = maps_of(pooled_network(weight), torch.stack([image, image]), [0, 1], "0")
    n = 64
    difference = (first - second) / n
    for method in ("gradcam", "hirescam", "xgradcam"):
        assert_close(maps[method], torch.stack([difference, -difference]))
    for method in ("layercam", "gradcamelementwise"):
        assert_close(maps[method], torch.stack([first, second]) / n)
    means = [4 * 3 / n, 4 * 2 / n]
    assert_close(maps["gradcam++"], torch.stack([first / (2 + means[0]), second / (2 + means[1])]))


def test_gradcam_highlights_an_unused_location_but_hirescam_does_not() -> None:
    """The counterexample of HiResCAM: positive weights top left, negative weights bottom right, where A is larger."""
    used, ignored = blob(1, 1, 1.0), blob(5, 5, 2.0)
    weight = torch.stack([blob(1, 1, 1.0) - blob(5, 5, 0.25), torch.zeros(8, 8)])[:, None]
    maps = maps_of(flattened_network(weight), (used + ignored)[None, None], [0], "0")
    assert_close(maps["hirescam"][0], weight[0, 0].double() * (used + ignored))
    assert_close(maps["gradcam"][0], (4 * 1.0 - 4 * 0.25) / 64 * (used + ignored))
    assert int(maps["hirescam"].argmax()) == 1 * 8 + 1
    assert int(maps["gradcam"].argmax()) == 5 * 8 + 5
    assert float(maps["hirescam"][0, 5, 5]) < 0


def test_two_by_two_map_computed_by_hand() -> None:
    """Two channels with known weights; the second channel sums to 0, and one gradient is 0."""
    activation = torch.tensor([[[1.0, 2.0], [3.0, -2.0]], [[1.0, -1.0], [2.0, -2.0]]], dtype=torch.float64)
    gradient = torch.tensor([[[1.0, 0.0], [-2.0, 4.0]], [[2.0, 1.0], [-1.0, 2.0]]], dtype=torch.float64)
    weight = torch.stack([gradient, torch.zeros_like(gradient)])
    maps = maps_of(flattened_network(weight), activation[None], [0], "0")
    a, b = activation
    by_hand = {
        "gradcam": 0.75 * a + 1.0 * b,
        "hirescam": torch.tensor([[1.0 + 2.0, 0.0 - 1.0], [-6.0 - 2.0, -8.0 - 4.0]]),
        "layercam": torch.tensor([[1.0 + 2.0, 0.0 - 1.0], [0.0 + 0.0, -8.0 - 4.0]]),
        "gradcamelementwise": torch.tensor([[1.0 + 2.0, 0.0], [0.0, 0.0]]),
        # S = 4 and 0: alpha = 1 / (2 + 4 g), 1 / 2. At g = 0 it is 0, and so is relu(g).
        "gradcam++": (1 / 6 + 4 / 18) * a + (2 + 1 + 2) / 2 * b,
        # The sums of G A are -13 and -5; the second channel has S = 0, so no weight.
        "xgradcam": -13 / 4 * a,
    }
    for method in METHODS:
        assert_close(maps[method][0], by_hand[method].double())


def test_zero_channels_do_not_contribute() -> None:
    """A zero channel with a gradient (0 / 0 in XGrad-CAM) does not change the map of the other channel."""
    living = random_normal(2, 1, 6, 6)
    weight = torch.tensor([[0.5, 3.0], [-0.5, -3.0]])
    both = maps_of(pooled_network(weight), torch.cat([living, torch.zeros_like(living)], 1), [0, 1], "0")
    alone = maps_of(pooled_network(weight[:, :1]), living, [0, 1], "0")
    for method in METHODS:
        assert_close(both[method], alone[method])
        assert float(both[method].abs().max()) > 1e-3


def test_negative_evidence_stays_negative() -> None:
    """Maps are signed: negative weights on positive activations give a map that is negative everywhere."""
    maps = maps_of(pooled_network(torch.tensor([[-1.0, -2.0]])), random_normal(1, 2, 5, 5).abs() + 0.1, [0], "0")
    for method in ("gradcam", "hirescam", "xgradcam"):
        assert float(maps[method].max()) < 0
    for method in ("layercam", "gradcam++", "gradcamelementwise"):
        assert_close(maps[method], torch.zeros_like(maps[method]), atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_constant_activation_has_a_constant_map(method: str) -> None:
    actual = maps_of(pooled_network(torch.tensor([[2.0, -1.0]])), torch.ones(1, 2, 5, 5).double(), [0], "0")[method]
    n = 25
    expected = {"layercam": 2 / n, "gradcamelementwise": 2 / n, "gradcam++": 2 / (2 + 2)}.get(method, 1 / n)
    assert_close(actual, torch.full_like(actual, expected))


# --- Mean over the cells and a linear layer: CAM ------------------------------------------------------------------------


def test_three_methods_equal_cam_before_the_mean() -> None:
    """G = w / n, so Grad-CAM = HiResCAM = XGrad-CAM = CAM / n, for signed A."""
    weight, bias, activation, classes = mean_head_example()
    cam = torch.einsum("bk,bkhw->bhw", weight[classes], activation)
    maps = maps_of(pooled_network(weight, bias), activation, classes, "0")
    for method in ("gradcam", "hirescam", "xgradcam"):
        assert_close(maps[method], cam / 42)


def test_hirescam_sums_to_the_score_before_the_mean() -> None:
    """The sum of G A is the logit minus the bias."""
    weight, bias, activation, classes = mean_head_example()
    net = pooled_network(weight, bias)
    maps = maps_of(net, activation, classes, "0")
    assert_close(sum_maps(maps["hirescam"]), class_scores(net, activation, classes) - bias[classes])


def test_layercam_equals_cam_with_positive_weights_before_the_mean() -> None:
    """For signed A; the elementwise map is the same where A is nowhere negative."""
    weight, bias, activation, classes = mean_head_example()
    positive = weight[classes].clamp(min=0)
    maps = maps_of(pooled_network(weight, bias), activation, classes, "0")
    assert_close(maps["layercam"], torch.einsum("bk,bkhw->bhw", positive, activation) / 42)
    maps = maps_of(pooled_network(weight, bias), activation.abs(), classes, "0")
    assert_close(maps["gradcamelementwise"], torch.einsum("bk,bkhw->bhw", positive, activation.abs()) / 42)


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 30.0])
def test_gradcam_plusplus_in_closed_form_before_the_mean(scale: float) -> None:
    """The sum over k of relu(w_k) / (2 + w_k mean(A_k)) A_k, at each scale of the logits."""
    weight, bias, activation, classes = mean_head_example()
    weight = scale * weight
    chosen, means = weight[classes], activation.mean((2, 3))
    expected = torch.einsum("bk,bkhw->bhw", chosen.clamp(min=0) / (2 + chosen * means), activation)
    assert_close(
        maps_of(pooled_network(weight, bias), activation, classes, "0")["gradcam++"], expected, rtol=1e-10, atol=1e-12
    )


def test_limits_of_gradcam_plusplus_for_small_and_large_logits() -> None:
    """The weights approach relu(w) / 2 for small logits and 1 / mean(A) for large ones."""
    weight, _, activation, classes = mean_head_example()
    activation = activation.abs() + 0.1
    chosen = weight[classes].clamp(min=0)
    small = maps_of(pooled_network(1e-9 * weight), activation, classes, "0")["gradcam++"] / 1e-9
    assert_close(small, torch.einsum("bk,bkhw->bhw", chosen / 2, activation), rtol=1e-8)
    large = maps_of(pooled_network(1e12 * weight), activation, classes, "0")["gradcam++"]
    assert_close(large, torch.einsum("bk,bkhw->bhw", (chosen > 0) / activation.mean((2, 3)), activation), rtol=1e-8)


# --- Any tail ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_hirescam_sums_to_the_score_without_biases(layer: str) -> None:
    """Euler: the sum of G A is the logit at every layer of a homogeneous net."""
    net, inputs, classes = relu_network(bias=False), random_normal(2, 3, 12, 12), [1, 4]
    expected = class_scores(net, inputs, classes)
    assert float(expected.abs().min()) > 1e-3
    assert_close(sum_maps(maps_of(net, inputs, classes, layer)["hirescam"]), expected, rtol=1e-11)


@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_hirescam_differs_from_the_score_by_the_later_biases(layer: str) -> None:
    """Logit - sum of G A = sum over the biases after the layer of bias times gradient."""
    net, inputs, classes = relu_network(bias=True), random_normal(2, 3, 12, 12), [1, 4]
    later = [p for name, p in net.named_parameters() if name.endswith("bias") and int(name.split(".")[0]) > int(layer)]
    missing = []
    for image, class_index in zip(
        inputs, classes, strict=True
    ):  # all images share a bias, so process one image at a time
        gradients = torch.autograd.grad(net(image[None])[0, class_index], later)
        missing.append(sum((b * g).sum() for b, g in zip(later, gradients, strict=True)).detach())
    assert min(abs(float(part)) for part in missing) > 1e-3
    actual = sum_maps(maps_of(net, inputs, classes, layer)["hirescam"])
    assert_close(class_scores(net, inputs, classes) - actual, torch.stack(missing), rtol=1e-10)


@pytest.mark.parametrize("layer", ["first", "second", "third", "fourth"])
def test_xgradcam_and_hirescam_have_the_same_sum(layer: str) -> None:
    """Sum of (sum G A / S) A = sum of G A, at any layer of any net with S_k not 0."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    maps = maps_of(net, inputs, [1, 4], layer)
    assert float((maps["xgradcam"] - maps["hirescam"]).abs().max()) > 1e-3  # otherwise equal sums would be trivial
    assert_close(sum_maps(maps["xgradcam"]), sum_maps(maps["hirescam"]), rtol=1e-10)


def test_hirescam_minus_gradcam_sums_to_the_covariance() -> None:
    """The two sums differ by n times the covariance over cells of G and A, summed over channels."""
    net, inputs = tiny_network(FlattenNet, dtype=torch.float64)
    classes = [1, 4]
    with torch.no_grad():
        activation = net.conv(inputs)
        gradient = net.head.weight[classes].reshape(activation.shape)  # the tail is linear
    n = 64
    means = [signal.mean((2, 3), keepdim=True) for signal in (gradient, activation)]
    covariance = ((gradient - means[0]) * (activation - means[1])).sum((1, 2, 3)) / n
    assert float(covariance.abs().min()) > 1e-3
    maps = maps_of(net, inputs, classes, "conv")
    assert_close(sum_maps(maps["hirescam"]) - sum_maps(maps["gradcam"]), n * covariance, rtol=1e-11)


def test_layercam_equals_elementwise_for_nonnegative_activations() -> None:
    """LayerCAM at a ReLU, with gradients of both signs that differ between cells."""
    weight = random_normal(3, 4, 5, 5, seed=4)
    maps = maps_of(flattened_network(weight, nn.Tanh()), random_normal(2, 4, 5, 5).abs(), [0, 2], "0")
    assert float(maps["layercam"].max()) > 0
    assert_close(maps["layercam"], maps["gradcamelementwise"], atol=0)


@pytest.mark.parametrize("inplace", [False, True])
def test_layercam_equals_elementwise_before_a_relu(inplace: bool) -> None:
    """At a convolution followed by ReLU, G is 0 where A is negative: with A signed the two are equal."""
    weight = random_normal(3, 4, 5, 5, seed=4)
    maps = maps_of(flattened_network(weight, nn.ReLU(inplace)), random_normal(2, 4, 5, 5), [0, 2], "0")
    assert float(maps["layercam"].max()) > 0
    assert_close(maps["layercam"], maps["gradcamelementwise"], atol=0)


def test_layercam_differs_from_elementwise_for_signed_activations() -> None:
    """Negative A contribute to LayerCAM before a tanh."""
    weight = random_normal(3, 4, 5, 5, seed=4)
    maps = maps_of(flattened_network(weight, nn.Tanh()), random_normal(2, 4, 5, 5), [0, 2], "0")
    assert float((maps["layercam"] - maps["gradcamelementwise"]).abs().max()) > 0.1
    assert float(maps["layercam"].min()) < 0


def test_activation_is_recorded_before_an_in_place_relu() -> None:
    """Grad-CAM at a convolution before an in-place ReLU reads signed A, not the rectified values."""
    weight, activation = random_normal(3, 4, 5, 5, seed=4), random_normal(2, 4, 5, 5)
    maps = [
        maps_of(flattened_network(weight, nn.ReLU(inplace)), activation.clone(), [0, 2], "0")
        for inplace in (False, True)
    ]
    gradient = weight[[0, 2]] * (activation > 0)
    expected = torch.einsum("bk,bkhw->bhw", gradient.mean((2, 3)), activation)
    assert float((expected - torch.einsum("bk,bkhw->bhw", gradient.mean((2, 3)), activation.relu())).abs().max()) > 0.1
    for actual in maps:
        assert_close(actual["gradcam"], expected)


def test_no_two_methods_agree() -> None:
    """With signed activations and varying gradients all six methods return different maps."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    maps = maps_of(net, inputs, [1, 4], "third")
    peaks = sorted((float(maps[method].abs().max()), method) for method in METHODS)
    assert all(later - earlier > 1e-6 for (earlier, _), (later, _) in pairwise(peaks))
