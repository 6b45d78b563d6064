"""Closed forms of methods before a mean over the cells and a linear layer.

A is the output of a layer, G the gradient of the score with respect to A, n the number of cells;
z is a logit, p its probability.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import MethodError
from seewhy.methods import (
    CAM,
    AblationCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LaFAM,
    ReciproCAM,
)
from support.identity_maps import LINEAR, maps_of, pooled_network_with_hidden_head, scale_maps
from support.identity_networks import (
    assert_close,
    class_scores,
    flattened_network,
    linear_layer,
    mean_head_example,
    pooled_network,
    random_normal,
    sum_maps,
)


def test_cam_is_gradcam_times_the_number_of_cells() -> None:
    """The same holds for HiResCAM and XGrad-CAM; the bias is not included."""
    weight, bias, activation, classes = mean_head_example()
    net = pooled_network(weight, bias)
    cam = maps_of(net, activation, CAM(), classes)
    assert_close(cam, torch.einsum("bk,bkhw->bhw", weight[classes], activation))
    for method in LINEAR:
        assert_close(42 * maps_of(net, activation, method, classes), cam)


@pytest.mark.parametrize(("conv", "pool", "grid"), [
    (nn.Conv1d, nn.AdaptiveAvgPool1d, (9,)), (nn.Conv3d, nn.AdaptiveAvgPool3d, (3, 4, 2)),
])  # fmt: skip
def test_cam_is_gradcam_times_the_number_of_cells_in_1d_and_3d(conv: Any, pool: Any, grid: tuple[int, ...]) -> None:
    net = nn.Sequential(conv(3, 5, 1), pool(1), nn.Flatten(), nn.Linear(5, 4)).double().eval()
    inputs, n = random_normal(2, 3, *grid), int(np.prod(grid))
    cam = maps_of(net, inputs, CAM(), [1, 3])
    for method in LINEAR:
        assert_close(n * maps_of(net, inputs, method, [1, 3]), cam, rtol=1e-10)
    head, bias = net[3].weight[[1, 3]].detach(), net[3].bias[[1, 3]].detach()
    assert_close(cam, torch.einsum("bk,bk...->b...", head, net[0](inputs).detach()), rtol=1e-10)
    recipro = maps_of(net, inputs, ReciproCAM(score="logit"), [1, 3])
    assert_close(recipro, scale_maps(bias, torch.ones_like(cam)) + cam / n, rtol=1e-10)


def test_cam_requires_the_layer_that_enters_the_mean() -> None:
    """The identity holds at the tensor that enters the mean, after the ReLU: not at the bare convolution before it."""
    weight, bias, activation, classes = mean_head_example()
    net = pooled_network(weight, bias, nn.ReLU())
    after = maps_of(net, activation, CAM(), classes, "1")
    assert_close(after, torch.einsum("bk,bkhw->bhw", weight[classes], activation.relu()))
    assert_close(42 * maps_of(net, activation, GradCAM(), classes, "1"), after)
    assert float((42 * maps_of(net, activation, GradCAM(), classes) - after).abs().max()) > 0.1
    with pytest.raises(MethodError, match="other operations or layers lie in between"):
        maps_of(net, activation, CAM(), classes)


def test_linear_methods_sum_to_the_score_before_the_mean() -> None:
    """CAM / n, Grad-CAM and XGrad-CAM as well as HiResCAM."""
    weight, bias, activation, classes = mean_head_example()
    net = pooled_network(weight, bias)
    expected = class_scores(net, activation, classes) - bias[classes]
    for method in LINEAR:
        assert_close(sum_maps(maps_of(net, activation, method, classes)), expected)
    assert_close(sum_maps(maps_of(net, activation, CAM(), classes)) / 42, expected)


def test_gradcam_plusplus_is_continuous_in_the_scale_of_the_logits() -> None:
    """Its weights grow from relu(w) / 2 to 1 / mean(A) continuously, so the formula contains no epsilon."""
    weight = torch.tensor([[0.7], [-0.2]], dtype=torch.float64)
    activation = random_normal(1, 1, 5, 6).abs() + 0.1
    sizes = []
    for scale in torch.logspace(-12, 12, 49, dtype=torch.float64).tolist():
        here, there = (
            maps_of(pooled_network(s * weight), activation, GradCAMPlusPlus(), [0]) for s in (scale, 1.0001 * scale)
        )
        growth = float((there / here).amax())
        assert 1 - 1e-12 <= growth <= 1.0001 + 1e-12
        sizes.append(float((here / activation[:, 0]).mean()))
    assert all(earlier < later * (1 + 1e-12) for earlier, later in pairwise(sizes))
    assert sizes[0] / 0.7e-12 == pytest.approx(0.5, rel=1e-9)
    assert sizes[-1] == pytest.approx(1 / float(activation.mean()), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_normalized_gradcam_plusplus_is_cam_with_positive_weights(scale: float) -> None:
    """Before a mean all alphas of a channel are equal, so after normalization they are 1 / n at each scale of the logits."""
    weight, bias, activation, classes = mean_head_example()
    actual = maps_of(pooled_network(scale * weight, bias), activation, GradCAMPlusPlus(alphas="normalized"), classes)
    assert_close(
        actual / scale, torch.einsum("bk,bkhw->bhw", weight[classes].clamp(min=0), activation) / 42, rtol=1e-10
    )


def test_ablation_in_closed_form_equals_channel_ablation() -> None:
    """w_k = W_ck mean(A_k) / y, computed from the weights of the head or by ablating each channel."""
    weight, bias, activation, classes = mean_head_example()
    y = class_scores(pooled_network(weight, bias), activation, classes)
    weights = weight[classes] * activation.mean((2, 3)) / y[:, None]
    expected = torch.einsum("bk,bkhw->bhw", weights, activation)
    for net in (pooled_network(weight, bias), pooled_network_with_hidden_head(weight, bias)):
        for method in (AblationCAM(), AblationCAM(batch_size=2)):
            assert_close(maps_of(net, activation, method, classes), expected, rtol=1e-10, atol=1e-12)


def test_closed_form_of_ablation_runs_no_forward_pass() -> None:
    """Count the rows that the tail processes, to confirm that the neighboring tests use both code paths."""
    weight, bias, activation, classes = mean_head_example()
    for build, expected in ((pooled_network, 0), (pooled_network_with_hidden_head, 10)):
        net, rows = build(weight, bias), list[int]()
        net[4].register_forward_hook(lambda module, args, output, rows=rows: rows.append(len(output)))
        maps_of(net, activation, AblationCAM(), classes)
        assert sum(count for count in rows if count > 2) == expected


def test_a_pointwise_convolution_before_the_mean_is_a_linear_head() -> None:
    """The mean of W A + b is W mean(A) + b: CAM is W_c A, and the closed forms equal the definitions."""
    weight, bias, activation, classes = mean_head_example()
    head = nn.Conv2d(weight.shape[1], len(weight), 1).double()
    head.load_state_dict({"weight": weight[:, :, None, None], "bias": bias})
    net = nn.Sequential(nn.Identity(), head, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    expected = torch.einsum("bk,bkhw->bhw", weight[classes], activation)
    assert_close(maps_of(net, activation, CAM(), classes), expected, rtol=1e-12)
    for method in (AblationCAM(), ReciproCAM(score="logit")):
        pooled = maps_of(pooled_network(weight, bias), activation, method, classes)
        assert_close(maps_of(net, activation, method, classes), pooled, rtol=1e-10)


@pytest.mark.parametrize("end", [nn.Identity(), nn.Dropout(0.5)])
def test_class_maps_before_the_mean_are_the_cam(end: nn.Module) -> None:
    """After a last 1x1 convolution the score is the mean of one channel, so CAM is that channel."""
    _, _, activation, classes = mean_head_example()
    net = nn.Sequential(nn.Identity(), end, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    expected = torch.stack([activation[image, index] for image, index in enumerate(classes)])
    assert_close(maps_of(net, activation, CAM(), classes), expected)
    with pytest.raises(MethodError, match="no linear layer"):
        maps_of(nn.Sequential(*net, nn.Tanh()), activation, CAM(), classes)


def test_ablation_of_a_probability() -> None:
    """For a softmax score y_k = softmax(z - W_k mean(A_k)): a closed form without a forward pass."""
    weight, bias, activation, _ = mean_head_example()
    net = pooled_network(weight, bias)
    means = activation.mean((2, 3))
    z = means @ weight.T + bias
    without = (z[:, None] - means[:, :, None] * weight.T[None]).softmax(2)[:, :, 1]
    p = z.softmax(1)[:, 1, None]
    expected = torch.einsum("bk,bkhw->bhw", (p - without) / p, activation)
    assert_close(maps_of(net, activation, AblationCAM(), lambda logits: logits.softmax(1)[:, 1]), expected, rtol=1e-10)


def test_ablation_changes_sign_with_the_score() -> None:
    """The weights are fractions of the score, so a negative score turns negative evidence positive."""
    weight, activation = torch.tensor([[-1.0, -2.0], [1.0, 2.0]]), random_normal(1, 2, 5, 5).abs() + 0.1
    against, in_favour = (maps_of(pooled_network(weight), activation, AblationCAM(), [c]) for c in (0, 1))
    assert_close(against, in_favour)
    assert float(against.min()) > 0


def smooth_cells(maps: Tensor) -> Tensor:
    """Smooth each cell with its neighbors by (1 2 1) / 4 along each axis, with zeros beyond the border."""
    kernel = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    return F.conv2d(maps[:, None], torch.outer(kernel, kernel)[None, None], padding=1)[:, 0]


@pytest.mark.parametrize("kernel", ["point", "gaussian"])
def test_reciprocam_of_a_logit_equals_cam(kernel: Any) -> None:
    """b + CAM / n, or the smoothed CAM, from the closed form and from one forward pass per cell."""
    weight, bias, activation, classes = mean_head_example()
    cam = torch.einsum("bk,bkhw->bhw", weight[classes], activation) / 42
    expected = scale_maps(bias[classes], torch.ones_like(cam)) + (cam if kernel == "point" else smooth_cells(cam))
    method = ReciproCAM(kernel=kernel, score="logit")
    for net in (pooled_network(weight, bias), pooled_network_with_hidden_head(weight, bias)):
        assert_close(maps_of(net, activation, method, classes), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernel", ["point", "gaussian"])
def test_reciprocam_of_a_probability_is_the_softmax_of_all_cams(kernel: Any) -> None:
    """softmax_c(b + W A_ij / n), cell by cell."""
    weight, bias, activation, classes = mean_head_example()
    cams = torch.einsum("ck,bkhw->cbhw", weight, activation) / 42
    cams = cams if kernel == "point" else torch.stack([smooth_cells(cam) for cam in cams])
    table = (bias[:, None, None, None] + cams).softmax(0)
    expected = torch.stack([table[c, b] for b, c in enumerate(classes)])
    for net in (pooled_network(weight, bias), pooled_network_with_hidden_head(weight, bias)):
        assert_close(maps_of(net, activation, ReciproCAM(kernel=kernel), classes), expected, rtol=1e-10)


def test_reciprocam_before_a_linear_tail_equals_hirescam() -> None:
    """With separate weights per cell the logit of one cell is b + sum_k W_k,ij A_k,ij, which is HiResCAM plus the bias."""
    weight, activation = random_normal(3, 4, 5, 6, seed=4), random_normal(2, 4, 5, 6)
    hires = maps_of(flattened_network(weight), activation, HiResCAM(), [0, 2])
    assert_close(maps_of(flattened_network(weight), activation, ReciproCAM(score="logit"), [0, 2]), hires)


def test_ablation_before_a_linear_tail_is_the_sum_of_contributions() -> None:
    """y - y_k is the sum over the cells of G_k A_k: XGrad-CAM's weight times S_k / y."""
    weight, activation = random_normal(3, 4, 5, 6, seed=4), random_normal(2, 4, 5, 6)
    net, classes = flattened_network(weight), [0, 2]
    lost = (weight[classes] * activation).sum((2, 3)) / class_scores(net, activation, classes)[:, None]
    assert_close(
        maps_of(net, activation, AblationCAM(), classes), torch.einsum("bk,bkhw->bhw", lost, activation), rtol=1e-10
    )


def test_lafam_equals_cam_of_a_class_with_equal_weights() -> None:
    """LaFAM = CAM / K for weights of 1; Grad-CAM of that class is LaFAM K / n."""
    activation = random_normal(2, 5, 6, 7)
    net = pooled_network(torch.ones(2, 5))
    for method, factor in ((LaFAM(), 5.0), (CAM(), 1.0), (GradCAM(), 42.0)):
        assert_close(factor * maps_of(net, activation, method, [0, 1]), activation.sum(1))


class NormalizedHead(nn.Linear):
    """The cosine of features and weights, as in ArcFace."""

    def forward(self, x: Tensor) -> Tensor:
        return 20 * F.linear(F.normalize(x), F.normalize(self.weight))


class AdaptedHead(nn.Linear):
    """A linear layer with a low-rank update next to its weight (LoRA)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.sum(1, keepdim=True) * torch.arange(len(self.weight)).to(x)


class StandardizedHead(nn.Conv2d):
    """A 1x1 convolution that standardizes its weights on each call."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class ChangedWeight(nn.Linear):
    """A linear layer that restores its weights after each call."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.mul_(3)
            y = super().forward(x)
            self.weight.div_(3)
        return y


def padded_head(inputs: int, outputs: int) -> nn.Module:
    """The last convolution of the first SqueezeNet."""
    return nn.Conv2d(inputs, outputs, 1, padding=1)


def hooked_head(inputs: int, outputs: int) -> nn.Module:
    head = nn.Linear(inputs, outputs)
    head.register_forward_hook(lambda module, args, output: 3 * output)
    return head


class HeadNetwork(nn.Module):
    """The layer "cnn", a head before or after the mean, and an operation on the scores."""

    def __init__(self, head: nn.Module, end: Any = None) -> None:
        super().__init__()
        self.cnn, self.head, self.end = nn.Conv2d(3, 8, 1), head, end

    def tail(self, a: Tensor) -> Tensor:
        scores = self.head(a.mean((2, 3))) if isinstance(self.head, nn.Linear) else self.head(a).mean((2, 3))
        return scores if self.end is None else self.end(scores)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.cnn(x))


def masked_(scores: Tensor) -> Tensor:
    scores[:, 0] = -100
    return scores


ENDS: dict[str, Any] = {
    "divided in place": lambda scores: scores.div_(0.1),
    "prior added in place": lambda scores: scores.add_(torch.arange(4).to(scores)),
    "sigmoid in place": lambda scores: scores.sigmoid_(),
    "centered in place": lambda scores: scores.sub_(scores.mean(1, keepdim=True)),
    "a class masked in place": masked_,
    "relu": torch.relu,
    "relu in place": torch.relu_,
    "clamp": lambda scores: scores.clamp(max=5),
}
NONLINEAR = {
    **{kind.__name__: kind for kind in (NormalizedHead, AdaptedHead, ChangedWeight)},
    "StandardizedHead": lambda inputs, outputs: StandardizedHead(inputs, outputs, 1),
    "padded": padded_head,
    "hooked": hooked_head,
    **{name: lambda inputs, outputs, end=end: (nn.Linear(inputs, outputs), end) for name, end in ENDS.items()},
}


def head_network(name: str) -> HeadNetwork:
    """Return a network whose scores are not one linear layer of the mean. All scores of small inputs are positive."""
    torch.manual_seed(0)
    built = NONLINEAR[name](8, 4)
    net = HeadNetwork(*built) if isinstance(built, tuple) else HeadNetwork(built)
    net.double().eval().requires_grad_(False)
    net.head.bias.fill_(4.0)
    return net


@pytest.mark.parametrize("name", NONLINEAR)
@pytest.mark.parametrize("images", [1, 2])
def test_no_closed_form_if_the_head_is_not_linear(name: str, images: int) -> None:
    """A module of class nn.Linear can compute anything, and an operation in place changes the scores after it."""
    net, x, c = head_network(name), random_normal(images, 3, 3, 4), 1
    a, maps = net.cnn(x), {method: [] for method in ("ablationcam", "reciprocam(score=logit)")}
    for own in a:
        score, ablated = net.tail(own[None].clone())[0, c], torch.zeros(3, 4).double()
        for k in range(8):
            without = own.clone()
            without[k] = 0
            ablated += (score - net.tail(without[None])[0, c]) / score * own[k]
        masks = torch.eye(12).double().view(12, 1, 3, 4)
        maps["ablationcam"].append(ablated)
        maps["reciprocam(score=logit)"].append(torch.stack([net.tail((own * m)[None])[0, c] for m in masks]).view(3, 4))
    for method, expected in maps.items():
        assert_close(maps_of(net, x, method, c, "cnn"), torch.stack(expected), rtol=1e-9, atol=1e-12)
    with pytest.raises(MethodError, match="must be one linear layer of this layer's mean"):
        maps_of(net, x, CAM(), c, "cnn")


def test_other_linear_layers_next_to_the_head() -> None:
    """Two heads on the same mean, as for auxiliary outputs: the one that returns the scores is used, whichever runs last."""
    weight, bias, activation, classes = mean_head_example()

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cnn, self.head, self.other = (
                pooled_network(weight, bias)[0],
                linear_layer(weight, bias),
                nn.Linear(5, 4),
            )
            self.double()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean = self.cnn(x).mean((2, 3))
            return self.head(mean), self.other(mean)

    assert_close(
        maps_of(TwoHeads().eval(), activation, CAM(), classes, "cnn"),
        torch.einsum("bk,bkhw->bhw", weight[classes], activation),
    )


def test_heads_whose_weights_are_computed() -> None:
    """The weights of a parametrized layer are those of the call; the closed form holds."""
    net = HeadNetwork(nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))).double().eval().requires_grad_(False)
    x = random_normal(2, 3, 3, 4)
    cam = torch.einsum("k,bkhw->bhw", net.head.weight[1], net.cnn(x))
    assert_close(maps_of(net, x, CAM(), 1, "cnn"), cam, rtol=1e-10)
