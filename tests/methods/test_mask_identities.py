"""Mask-based methods on a linear network, where every score is known without a forward pass.

A is the output of a layer, G the gradient of the score with respect to A, n the number of cells;
z is a logit, p its probability.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.methods import (
    ISCAM,
    RISE,
    SSCAM,
    GroupCAM,
    Occlusion,
    OptiCAM,
    PolyCAM,
    ScoreCAM,
)
from support.identity_maps import assert_maps_close, blur, maps_of, normalize_maps, resize_maps, scale_maps
from support.identity_networks import (
    LinearNetwork,
    assert_close,
    blob,
    flattened_network,
    linear_example,
    logits_under,
    pooled_network,
    random_normal,
)
from support.networks import InplaceNet, tiny_network


@pytest.mark.parametrize("variant", ["authors", "paper", "gradcam", "torchcam"])
def test_scorecam_of_a_linear_network(variant: Any) -> None:
    """z(x M) = <M, x dz/dx> + b, so every weight is known without a forward pass."""
    net, inputs, classes, j, b = linear_example()
    activation, expected = net.conv(inputs).detach(), []
    for a, x, c in zip(activation, inputs, classes, strict=True):
        corners = F.interpolate(a[:, None], (9, 12), mode="bilinear", align_corners=True)[:, 0]
        masks = {"gradcam": normalize_maps(corners), "torchcam": resize_maps(normalize_maps(a), (9, 12))}
        z = logits_under(masks.get(variant, normalize_maps(resize_maps(a, (9, 12)))), x, j, b)
        weights = z.softmax(1)[:, c] if variant == "authors" else z[:, c].softmax(0)
        expected.append(torch.einsum("k,khw->hw", weights, a))
    assert_maps_close(maps_of(net, inputs, ScoreCAM(variant), classes, "conv"), torch.stack(expected), 1e-11)


def test_scorecam_of_a_single_channel_and_of_a_zero_channel() -> None:
    """A channel of zeros is skipped, or, as in the package grad-cam, included in the softmax."""
    activation, weight = random_normal(2, 3, 6, 7), random_normal(2, 4, 6, 7, seed=1)
    both = torch.cat([activation, torch.zeros(2, 1, 6, 7)], 1)
    for variant in ("authors", "paper", "torchcam"):
        alone = maps_of(flattened_network(weight[:, :3]), activation, ScoreCAM(variant), [0, 1])
        assert_maps_close(maps_of(flattened_network(weight), both, ScoreCAM(variant), [0, 1]), alone, 1e-11)
    single = maps_of(flattened_network(weight[:, :1]), activation[:, :1], ScoreCAM("paper"), [0, 1])
    assert_close(single, activation[:, 0])  # the softmax of one channel is 1
    net, classes = flattened_network(weight), [0, 1]
    masks = [activation[i][:, None] * 0 + both[i] * normalize_maps(activation[i])[:, None] for i in range(2)]
    z = torch.stack([net(rows)[:, c].detach() for rows, c in zip(masks, classes, strict=True)])
    share = z.exp() / (z.exp().sum(1, keepdim=True) + 1)  # the empty image has the logit 0
    expected = torch.einsum("bk,bkhw->bhw", share, activation)
    assert_maps_close(maps_of(net, both, ScoreCAM("gradcam"), classes), expected, 1e-10)


def test_constant_output_gives_equal_weights_to_all_masks() -> None:
    """A network that returns its biases: Score-CAM, IS-CAM and SS-CAM are p times the channel sum, Group-CAM is 0."""
    bias, activation = random_normal(3), random_normal(2, 4, 6, 7)
    net = pooled_network(torch.zeros(3, 4), bias)
    p = bias.softmax(0)[[2, 0]]
    for method in (ScoreCAM(), ISCAM(steps=3), SSCAM(samples=2), SSCAM(samples=2, on="map")):
        assert_close(maps_of(net, activation, method, [2, 0]), scale_maps(p, activation.sum(1)))
    for variant in ("paper", "torchcam", "gradcam"):
        assert_close(maps_of(net, activation, ScoreCAM(variant), [2, 0]), activation.mean(1))


def test_iscam_with_one_step_and_sscam_without_noise_equal_scorecam() -> None:
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    expected = maps_of(net, inputs, ScoreCAM(), [1, 4], "third")
    same = (ISCAM(steps=1), ISCAM(steps=1, schedule="cumulative"), SSCAM(samples=3, sigma=0.0), ScoreCAM(batch_size=3))
    for method in same:
        assert_maps_close(maps_of(net, inputs, method, [1, 4], "third"), expected, 1e-12)
    for method in (ISCAM(steps=2), SSCAM(samples=3), SSCAM(samples=3, sigma=0.0, on="map")):
        assert float((maps_of(net, inputs, method, [1, 4], "third") - expected).abs().max()) > 1e-6


@pytest.mark.parametrize("schedule", ["linear", "cumulative"])
def test_iscam_of_a_linear_network(schedule: Any) -> None:
    """z(a x M) = a <M, x dz/dx> + b, for a = 1/4 ... 1, or the cumulative sums 1/4, 3/4, 6/4, 10/4."""
    net, inputs, classes, j, b = linear_example()
    activation, expected = net.conv(inputs).detach(), []
    factors = [0.25, 0.5, 0.75, 1.0] if schedule == "linear" else [0.25, 0.75, 1.5, 2.5]
    for a, x, c in zip(activation, inputs, classes, strict=True):
        masks = normalize_maps(resize_maps(a, (9, 12)))
        weights = sum(logits_under(f * masks, x, j, b).softmax(1)[:, c] for f in factors) / 4
        expected.append(torch.einsum("k,khw->hw", weights, a))
    assert_maps_close(maps_of(net, inputs, ISCAM(4, schedule), classes, "conv"), torch.stack(expected), 1e-11)


def test_sscam_on_the_map_without_noise_uses_the_resized_map_as_mask() -> None:
    net, inputs, classes, j, b = linear_example()
    activation, expected = net.conv(inputs).detach(), []
    for a, x, c in zip(activation, inputs, classes, strict=True):
        weights = logits_under(resize_maps(a, (9, 12)), x, j, b).softmax(1)[:, c]
        expected.append(torch.einsum("k,khw->hw", weights, a))
    actual = maps_of(net, inputs, SSCAM(samples=2, sigma=0.0, on="map"), classes, "conv")
    assert_maps_close(actual, torch.stack(expected), 1e-11)


@pytest.mark.parametrize("percentile", [None, 70.0])
@pytest.mark.parametrize("groups", [1, 2, 9])
def test_groupcam_of_a_linear_network(groups: int, percentile: float | None) -> None:
    """A single group is Grad-CAM, rectified and thresholded; with enough groups each channel is a group."""
    net, inputs, classes, j, b = linear_example()
    activation, expected = net.conv(inputs).detach(), []
    weights = net.head.weight.reshape(3, 4, 5, 6)[classes].mean((2, 3)).detach()
    bounds = {1: [(0, 4)], 2: [(0, 2), (2, 4)], 9: [(k, k + 1) for k in range(4)]}[groups]
    for a, x, w, c in zip(activation, inputs, weights, classes, strict=True):
        soft, total_map = blur(x, 51, 50.0, "reflect"), torch.zeros(5, 6).double()
        before = (torch.einsum("cihw,ihw->c", j, soft) + b).softmax(0)[c]
        for start, end in bounds:
            m = torch.einsum("k,khw->hw", w[start:end], a[start:end]).relu()
            if percentile is not None:
                m = torch.where(m > float(np.percentile(m.numpy(), percentile)), m, 0.0)
            mask = normalize_maps(resize_maps(m[None], (9, 12)))[0]
            mixed = x * mask + soft * (1 - mask)
            total_map += ((torch.einsum("cihw,ihw->c", j, mixed) + b).softmax(0)[c] - before) * m
        expected.append(total_map)
    actual = maps_of(net, inputs, GroupCAM(groups, percentile), classes, "conv")
    assert_maps_close(actual, torch.stack(expected), 1e-10)


def test_groupcam_is_zero_if_blurring_does_not_change_the_image() -> None:
    """A constant image, or a blur of one pixel."""
    net, inputs, classes, _, _ = linear_example()
    plain = torch.full_like(inputs, 0.7)
    assert float(net.conv(plain).detach()[0, 0].std()) > 0  # padding changes the border, so the mask is not constant
    assert_close(maps_of(net, plain, GroupCAM(2), classes, "conv"), torch.zeros(2, 5, 6).double(), atol=1e-14)
    actual = maps_of(net, inputs, GroupCAM(2, blur=1), classes, "conv")
    assert_close(actual, torch.zeros(2, 5, 6).double(), atol=1e-14)


def test_groupcam_ignores_channel_order_only_within_a_group() -> None:
    net, inputs, classes, _, _ = linear_example()
    expected = maps_of(net, inputs, GroupCAM(2), classes, "conv")
    for order, same in (([1, 0, 3, 2], True), ([0, 2, 1, 3], False)):
        other = copy.deepcopy(net)
        with torch.no_grad():
            other.conv.weight.copy_(net.conv.weight[order])
            other.conv.bias.copy_(net.conv.bias[order])
            other.head.weight.copy_(net.head.weight.reshape(3, 4, 30)[:, order].flatten(1))
        actual = maps_of(other, inputs, GroupCAM(2), classes, "conv")
        assert (float((actual - expected).abs().max()) < 1e-12) == same


def test_opticam_weights_sum_to_one() -> None:
    """The mixture of equal channels is that channel; of two different channels the better mask dominates."""
    pattern = random_normal(1, 1, 6, 7).abs()
    equal_channels = pattern.expand(1, 3, 6, 7)
    assert_close(
        maps_of(flattened_network(random_normal(2, 3, 6, 7)), equal_channels, OptiCAM(steps=5), [0]), pattern[0]
    )
    good, bad = blob(1, 1), blob(5, 5)
    weight = torch.stack([torch.stack([good - bad, good - bad]), torch.zeros(2, 8, 8)])
    activation = torch.stack([good, bad])[None] + 0.5 * (
        good + bad
    )  # an image with both blobs; each channel is larger at one
    actual = maps_of(flattened_network(weight), activation, OptiCAM(), [0])[0]
    assert float(actual[1, 1]) > 1.45 and float(actual[5, 5]) < 0.55


def mean_loss_of_windows(
    net: LinearNetwork, contributions: Tensor, starts: tuple[list[int], list[int]], window: int
) -> Tensor:
    """Return the mean contribution hidden by the windows that cover each pixel (h, w), computed by plain loops."""
    lost, counts = torch.zeros_like(contributions), torch.zeros_like(contributions)
    for top in starts[0]:
        for left in starts[1]:
            here = (slice(top, top + window), slice(left, left + window))
            lost[here] += contributions[here].sum()
            counts[here] += 1
    return lost / counts


@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_occlusion_of_a_linear_network_is_the_sum_of_hidden_contributions(baseline: float) -> None:
    """y(x) - y(covered) = the sum over the window of dy/dx (x - baseline); sides of 9 and 12, windows of 3 and 4."""
    net, inputs, classes, j, _ = linear_example()
    contributions = (j[classes] * (inputs - baseline)).sum(1)
    for method, starts, window in (
        (Occlusion(1 / 12, 1 / 12, baseline), (list(range(9)), list(range(12))), 1),
        (Occlusion(1 / 3, 1 / 6, baseline), None, 0),
        (Occlusion(1.0, 1.0, baseline), ([0], [0]), 12),
    ):
        actual = maps_of(net, inputs, method, classes, None)
        for image in range(2):
            if (
                starts is None
            ):  # round(9 / 3) = 3 every round(1.5) = 2 rows; 4 every 2 columns; the last row of windows fits exactly
                lost, counts = torch.zeros(9, 12).double(), torch.zeros(9, 12).double()
                for top in (0, 2, 4, 6):
                    for left in (0, 2, 4, 6, 8):
                        here = (slice(top, top + 3), slice(left, left + 4))
                        lost[here] += contributions[image][here].sum()
                        counts[here] += 1
                expected = lost / counts
            else:
                expected = mean_loss_of_windows(net, contributions[image], starts, window)
            assert_maps_close(actual[image][None], expected[None], 1e-11)


def maps_and_masked_inputs(net: nn.Module, inputs: Tensor, method: Any, classes: list[int]) -> tuple[Tensor, Tensor]:
    """Return the maps of a method, and all masked inputs of which the network received a batch.

    The first batch, of two rows, tests whether the network gives the same answer in channels-last memory.
    """
    rows = list[Tensor]()
    hook = net.register_forward_pre_hook(lambda module, args: rows.append(args[0].detach().clone()))
    maps = maps_of(net, inputs, method, classes, None)
    hook.remove()
    return maps, torch.cat([batch for batch in rows if len(batch) > 1][1:])


def test_rise_of_a_linear_network() -> None:
    """With masks recovered from the inputs of the network, the map is sum p m / (N P), with p known from J and b."""
    net, inputs, classes, j, b = linear_example()
    x = inputs[:1]
    maps, rows = maps_and_masked_inputs(net, x, RISE(masks=50, grid=4, p=0.3), classes[:1])
    masks = rows[:, 0] / x[:, 0]
    assert len(masks) == 50 and float(masks.min()) >= 0 and float(masks.max()) <= 1 + 1e-12
    assert_close(rows[:, 1] / x[:, 1], masks, rtol=1e-9, atol=1e-12)  # one mask for all color channels
    p = logits_under(masks, x[0], j, b).softmax(1)[:, classes[0]]
    assert_maps_close(maps, torch.einsum("n,nhw->hw", p, masks)[None] / (50 * 0.3), 1e-10)


def test_rise_peaks_at_the_relevant_pixels() -> None:
    """For two classes p is 1/2 + z/4 for small z. After subtracting the map of a network without weights, the map is
    linear in the weights, and its expectation peaks at their position."""
    image = torch.ones(1, 1, 12, 12).double()
    method = RISE(masks=1500, grid=4)

    def slope(weight: Tensor) -> Tensor:
        net = flattened_network(torch.stack([weight, torch.zeros_like(weight)])[:, None])
        return (maps_of(net, image, method, [0], None) - maps_of(flattened_network(torch.zeros(2, 1, 12, 12)), image,
                method, [0], None))[0]  # fmt: skip

    first, second = 1e-5 * blob(1, 1, side=12), 1e-5 * blob(8, 7, side=12)
    actual = slope(first), slope(second), slope(first + second)
    assert_maps_close(actual[2][None], (actual[0] + actual[1])[None], 1e-4)
    for one, (row, column) in zip(actual[:2], ((1, 1), (8, 7)), strict=True):
        peak = divmod(int(one.argmax()), 12)
        assert abs(peak[0] - row) <= 2 and abs(peak[1] - column) <= 2


def test_polycam_of_a_constant_output() -> None:
    """Hiding changes no score, so "-" is 0 everywhere; "+" refines the sums of the channels, times p."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(4, 3)).double().eval()  # fmt: skip
    with torch.no_grad():
        net[5].weight.zero_()
    inputs, classes, layers = random_normal(2, 2, 9, 9), [1, 2], ["0", "2"]
    p = net[5].bias.softmax(0)[classes].detach()
    fine, coarse = (part(inputs).detach().sum(1) for part in (net[0], net[:3]))
    fine, coarse = scale_maps(p, fine).relu(), scale_maps(p, coarse).relu()
    local = fine / resize_maps(resize_maps(fine, (4, 4)), (9, 9)).clamp(min=1e-12)
    expected = (local * resize_maps(coarse, (9, 9))).relu()
    for variant in ("+", "+-"):
        assert_maps_close(maps_of(net, inputs, PolyCAM(variant), classes, layers), expected, 1e-10)
    assert_close(maps_of(net, inputs, PolyCAM("-"), classes, layers), torch.zeros_like(expected), atol=1e-15)
