"""What must hold by algebra for every method, on nets small enough to know every number; the first six also stand in
`test_identities`. Numbers such as 2.6 are those of METHODS, chapter 2.

A is the output of a layer, G the derivative of the score by it, n its number of cells; z a logit, p its probability.
U is linear resizing, N from minimum to maximum on [0, 1].
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.errors import MethodError
from seewhy.methods import (
    CAM,
    CAMERAS,
    FEM,
    ISCAM,
    KPCACAM,
    RISE,
    SESS,
    SSCAM,
    AblationCAM,
    AttentionRelevance,
    AttentionRollout,
    Augmented,
    DeepFeatureFactorization,
    EigenCAM,
    EigenGradCAM,
    EigenSmooth,
    FinerCAM,
    FullGrad,
    GradCAM,
    GradCAMElementwise,
    GradCAMPlusPlus,
    GradECLIP,
    GroupCAM,
    GuidedGradCAM,
    HiResCAM,
    Integrated,
    LaFAM,
    LayerCAM,
    LayerCAMFusion,
    LeGrad,
    Occlusion,
    OptiCAM,
    PolyCAM,
    ReciproCAM,
    RefineCAM,
    ScoreCAM,
    SegEigenCAM,
    ShapleyCAM,
    Smooth,
    SmoothGradCAMPlusPlus,
    ViTReciproCAM,
    XGradCAM,
)
from seewhy.methods.base import Method, NetworkMethod, VariantMethod
from seewhy.methods.catalog import METHODS
from seewhy.methods.parsing import as_methods
from seewhy.signals.layer import Need, Signals, Variant
from seewhy.signals.model import ModelSignals
from seewhy.targets import ClassScore
from support.identity_networks import (
    CONVOLUTIONS,
    blob,
    close,
    flattened,
    linear,
    mean_head,
    passing,
    pooled,
    random,
    rectified,
    score,
    total,
)
from support.networks import InplaceNet, tiny_network
from support.parameters import stable_id

LINEAR = (GradCAM(), HiResCAM(), XGradCAM())  # maps that are linear in the score
BASES = (*LINEAR, LayerCAM(), GradCAMPlusPlus(), GradCAMElementwise(), EigenGradCAM(), SegEigenCAM())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- nets and maps ----------------------------------------------------------------------------------------------------


def maps_of(net: nn.Module, inputs: Tensor, method: Any, target: Any, layers: Any = "0") -> Tensor:
    """The signed maps (B, *grid) of one method at one layer, for a class of each image, or a function of the logits."""
    target = ClassScore(torch.tensor(target)) if isinstance(target, list) else target
    (maps,) = seewhy.explain(net, inputs, methods=method, layers=layers, targets=target).maps.values()
    return maps


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Equal, each image's map relative to its own largest value."""
    assert found.shape == expected.shape
    apart = (found - expected).flatten(1).abs().amax(1)
    assert bool((apart <= tolerance * expected.flatten(1).abs().amax(1)).all()), apart  # NaN is wrong too


def alike(found: dict[Any, Tensor], expected: dict[Any, Tensor], tolerance: float = 1e-9, scale: float = 1.0) -> None:
    """Every map of one explanation is `scale` times that of another."""
    assert list(found) == list(expected) and expected
    for key, maps in expected.items():
        near(found[key], scale * maps, tolerance)


def times(values: Tensor, maps: Tensor) -> Tensor:
    """One value a image, times its map."""
    return values.reshape(-1, *[1] * (maps.dim() - 1)) * maps


def hidden(weight: Tensor, bias: Tensor) -> nn.Module:
    """As `pooled`, with one more linear layer that changes nothing: the head is not seen, so nothing is in closed form."""
    net = pooled(weight, bias)
    return nn.Sequential(*net, linear(torch.eye(len(weight)))).eval()


def normalized(maps: Tensor) -> Tensor:
    """N of each map (B, *grid); of a constant 0."""
    low, high = maps.flatten(1).amin(1), maps.flatten(1).amax(1)
    return torch.stack([(m - a) / (b - a) if b > a else m * 0 for m, a, b in zip(maps, low, high, strict=True)])


def resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def blurred(image: Tensor, width: int, sigma: float, border: str) -> Tensor:
    """(..., h, w) under a Gaussian, line by line."""
    found = image.numpy()
    for axis in (-2, -1):
        wide = min(width, 2 * found.shape[axis] - 1)
        bell = np.exp(-((np.arange(wide) - wide // 2) ** 2) / (2 * sigma**2))

        def line(values: np.ndarray, bell: np.ndarray = bell) -> np.ndarray:
            return np.convolve(np.pad(values, len(bell) // 2, mode=border), bell / bell.sum(), "valid")

        found = np.apply_along_axis(line, axis, found)
    return torch.from_numpy(found)


def jacobian(function: Callable[[Tensor], Tensor], signals: Tensor) -> Tensor:
    """The derivative (classes, *shape) of the logits of one image (1, *shape)."""
    return torch.autograd.functional.jacobian(function, signals)[0, :, 0].detach()


# --- a mean over the cells and a linear layer -------------------------------------------------------------------------


def test_cam_is_gradcam_times_the_cells() -> None:
    """2.1: and so are HiResCAM and XGrad-CAM; the bias is no part of it."""
    weight, bias, activation, classes = mean_head()
    net = pooled(weight, bias)
    cam = maps_of(net, activation, CAM(), classes)
    close(cam, torch.einsum("bk,bkhw->bhw", weight[classes], activation))
    for method in LINEAR:
        close(42 * maps_of(net, activation, method, classes), cam)


@pytest.mark.parametrize(("conv", "pool", "grid"), [
    (nn.Conv1d, nn.AdaptiveAvgPool1d, (9,)), (nn.Conv3d, nn.AdaptiveAvgPool3d, (3, 4, 2)),
])  # fmt: skip
def test_cam_is_gradcam_times_the_cells_in_other_ranks(conv: Any, pool: Any, grid: tuple[int, ...]) -> None:
    net = nn.Sequential(conv(3, 5, 1), pool(1), nn.Flatten(), nn.Linear(5, 4)).double().eval()
    inputs, n = random(2, 3, *grid), int(np.prod(grid))
    cam = maps_of(net, inputs, CAM(), [1, 3])
    for method in LINEAR:
        close(n * maps_of(net, inputs, method, [1, 3]), cam, rtol=1e-10)
    head, bias = net[3].weight[[1, 3]].detach(), net[3].bias[[1, 3]].detach()
    close(cam, torch.einsum("bk,bk...->b...", head, net[0](inputs).detach()), rtol=1e-10)
    recipro = maps_of(net, inputs, ReciproCAM(score="logit"), [1, 3])
    close(recipro, times(bias, torch.ones_like(cam)) + cam / n, rtol=1e-10)


def test_cam_belongs_where_the_mean_is_taken() -> None:
    """2.1 holds at the tensor that enters the mean, after the ReLU: not at the bare convolution before it."""
    weight, bias, activation, classes = mean_head()
    net = pooled(weight, bias, nn.ReLU())
    after = maps_of(net, activation, CAM(), classes, "1")
    close(after, torch.einsum("bk,bkhw->bhw", weight[classes], activation.relu()))
    close(42 * maps_of(net, activation, GradCAM(), classes, "1"), after)
    assert float((42 * maps_of(net, activation, GradCAM(), classes) - after).abs().max()) > 0.1
    with pytest.raises(MethodError, match="other operations or layers lie in between"):
        maps_of(net, activation, CAM(), classes)


def test_before_the_mean_every_linear_map_sums_to_the_score() -> None:
    """2.2: CAM / n, Grad-CAM and XGrad-CAM as well as HiResCAM."""
    weight, bias, activation, classes = mean_head()
    net = pooled(weight, bias)
    expected = score(net, activation, classes) - bias[classes]
    for method in LINEAR:
        close(total(maps_of(net, activation, method, classes)), expected)
    close(total(maps_of(net, activation, CAM(), classes)) / 42, expected)


def test_gradcam_plusplus_is_continuous_in_the_scale_of_the_logits() -> None:
    """2.4: its weights grow from relu(w) / 2 to 1 / mean(A) without a jump, so no epsilon can be hidden in it."""
    weight = torch.tensor([[0.7], [-0.2]], dtype=torch.float64)
    activation = random(1, 1, 5, 6).abs() + 0.1
    sizes = []
    for scale in torch.logspace(-12, 12, 49, dtype=torch.float64).tolist():
        here, there = (maps_of(pooled(s * weight), activation, GradCAMPlusPlus(), [0]) for s in (scale, 1.0001 * scale))
        growth = float((there / here).amax())
        assert 1 - 1e-12 <= growth <= 1.0001 + 1e-12
        sizes.append(float((here / activation[:, 0]).mean()))
    assert all(earlier < later * (1 + 1e-12) for earlier, later in pairwise(sizes))
    assert sizes[0] / 0.7e-12 == pytest.approx(0.5, rel=1e-9)
    assert sizes[-1] == pytest.approx(1 / float(activation.mean()), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_normalized_gradcam_plusplus_is_cam_with_positive_weights(scale: float) -> None:
    """Before a mean all alphas of a channel are equal: divided by their sum they are 1 / n at each scale of the logits."""
    weight, bias, activation, classes = mean_head()
    found = maps_of(pooled(scale * weight, bias), activation, GradCAMPlusPlus(alphas="normalized"), classes)
    close(found / scale, torch.einsum("bk,bkhw->bhw", weight[classes].clamp(min=0), activation) / 42, rtol=1e-10)


def test_ablation_in_closed_form_is_the_slow_path() -> None:
    """2.5: w_k = W_ck mean(A_k) / y, whether the head is seen or each channel is taken away."""
    weight, bias, activation, classes = mean_head()
    y = score(pooled(weight, bias), activation, classes)
    weights = weight[classes] * activation.mean((2, 3)) / y[:, None]
    expected = torch.einsum("bk,bkhw->bhw", weights, activation)
    for net in (pooled(weight, bias), hidden(weight, bias)):
        for method in (AblationCAM(), AblationCAM(batch_size=2)):
            close(maps_of(net, activation, method, classes), expected, rtol=1e-10, atol=1e-12)


def test_only_the_visible_head_is_asked_nothing() -> None:
    """Both paths of the tests around are really two: rows of the tail are counted."""
    weight, bias, activation, classes = mean_head()
    for build, expected in ((pooled, 0), (hidden, 10)):
        net, rows = build(weight, bias), list[int]()
        net[4].register_forward_hook(lambda module, args, output, rows=rows: rows.append(len(output)))
        maps_of(net, activation, AblationCAM(), classes)
        assert sum(count for count in rows if count > 2) == expected


def test_ablation_of_a_probability() -> None:
    """2.5: for a softmax score y_k = softmax(z - W_k mean(A_k)): one table, no network."""
    weight, bias, activation, _ = mean_head()
    net = pooled(weight, bias)
    means = activation.mean((2, 3))
    z = means @ weight.T + bias
    without = (z[:, None] - means[:, :, None] * weight.T[None]).softmax(2)[:, :, 1]
    p = z.softmax(1)[:, 1, None]
    expected = torch.einsum("bk,bkhw->bhw", (p - without) / p, activation)
    close(maps_of(net, activation, AblationCAM(), lambda logits: logits.softmax(1)[:, 1]), expected, rtol=1e-10)


def test_ablation_turns_its_sign_with_the_score() -> None:
    """It is a share of the score: below 0, evidence against the class gets a positive share."""
    weight, activation = torch.tensor([[-1.0, -2.0], [1.0, 2.0]]), random(1, 2, 5, 5).abs() + 0.1
    against, in_favour = (maps_of(pooled(weight), activation, AblationCAM(), [c]) for c in (0, 1))
    close(against, in_favour)
    assert float(against.min()) > 0


def smeared(maps: Tensor) -> Tensor:
    """Each cell and its neighbours, by (1 2 1) / 4 along each axis, nothing beyond the border."""
    kernel = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    return F.conv2d(maps[:, None], torch.outer(kernel, kernel)[None, None], padding=1)[:, 0]


@pytest.mark.parametrize("kernel", ["point", "gaussian"])
def test_reciprocam_of_a_logit_is_cam(kernel: Any) -> None:
    """2.6: b + CAM / n, or the CAM blurred; the same where each cell is really kept alone."""
    weight, bias, activation, classes = mean_head()
    cam = torch.einsum("bk,bkhw->bhw", weight[classes], activation) / 42
    expected = times(bias[classes], torch.ones_like(cam)) + (cam if kernel == "point" else smeared(cam))
    method = ReciproCAM(kernel=kernel, score="logit")
    for net in (pooled(weight, bias), hidden(weight, bias)):
        close(maps_of(net, activation, method, classes), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernel", ["point", "gaussian"])
def test_reciprocam_of_a_probability_is_the_softmax_of_all_cams(kernel: Any) -> None:
    """2.6: softmax_c(b + W A_ij / n), cell by cell."""
    weight, bias, activation, classes = mean_head()
    cams = torch.einsum("ck,bkhw->cbhw", weight, activation) / 42
    cams = cams if kernel == "point" else torch.stack([smeared(cam) for cam in cams])
    table = (bias[:, None, None, None] + cams).softmax(0)
    expected = torch.stack([table[c, b] for b, c in enumerate(classes)])
    for net in (pooled(weight, bias), hidden(weight, bias)):
        close(maps_of(net, activation, ReciproCAM(kernel=kernel), classes), expected, rtol=1e-10)


def test_a_linear_tail_one_cell_alone_is_hirescam() -> None:
    """With weights of its own for each cell the logit of one cell is b + sum_k W_k,ij A_k,ij: HiResCAM and the bias."""
    weight, activation = random(3, 4, 5, 6, seed=4), random(2, 4, 5, 6)
    hires = maps_of(flattened(weight), activation, HiResCAM(), [0, 2])
    close(maps_of(flattened(weight), activation, ReciproCAM(score="logit"), [0, 2]), hires)


def test_a_linear_tail_ablation_is_the_sum_of_contributions() -> None:
    """y - y_k is the sum over the cells of G_k A_k: XGrad-CAM's weight times S_k / y."""
    weight, activation = random(3, 4, 5, 6, seed=4), random(2, 4, 5, 6)
    net, classes = flattened(weight), [0, 2]
    lost = (weight[classes] * activation).sum((2, 3)) / score(net, activation, classes)[:, None]
    close(maps_of(net, activation, AblationCAM(), classes), torch.einsum("bk,bkhw->bhw", lost, activation), rtol=1e-10)


def test_the_mean_of_the_channels_is_a_class_with_equal_weights() -> None:
    """LaFAM = CAM / K for weights of 1; Grad-CAM of that class is LaFAM K / n."""
    activation = random(2, 5, 6, 7)
    net = pooled(torch.ones(2, 5))
    for method, factor in ((LaFAM(), 5.0), (CAM(), 1.0), (GradCAM(), 42.0)):
        close(factor * maps_of(net, activation, method, [0, 1]), activation.sum(1))


# --- curvature --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SecondOrder(Method):
    """The contributions to second order of the score itself: sum_k (G - HA / 2) A."""

    needs = Need.GRADIENTS | Need.CURVATURE

    def __call__(self, signals: Signals) -> Tensor:
        return ((signals.gradients - signals.curvature / 2) * signals.activations).sum(1)


class Quadratic(nn.Module):
    """y_c = A' Q_c A / 2 + b_c' A + c_c for each class: every derivative known. The layer of A is "conv"."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        size = int(np.prod(shape))
        self.conv = passing(shape[0])
        half = random(3, size, size, seed=5)
        self.q, self.b, self.c = half + half.mT, random(3, size, seed=6), random(3, seed=7)

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv(x).flatten(1)
        return torch.einsum("bi,cij,bj->bc", a, self.q, a) / 2 + a @ self.b.T + self.c


def test_a_quadratic_score_is_complete_to_second_order() -> None:
    """2.11: the sum of G A - A HA / 2 is y(A) - y(0); each cell is sum_k (b + QA / 2) A."""
    net, activation, classes = Quadratic((2, 3, 4)).eval(), random(2, 2, 3, 4), [2, 0]
    maps = maps_of(net, activation, SecondOrder(), classes, "conv")
    close(total(maps), score(net, activation, classes) - net.c[classes], rtol=1e-10)
    flat = activation.flatten(1)
    half = torch.einsum("bij,bj->bi", net.q[classes], flat) / 2
    expected = ((net.b[classes] + half) * flat).reshape(activation.shape).sum(1)
    close(maps, expected, rtol=1e-10)
    first = maps_of(net, activation, HiResCAM(), classes, "conv")
    close(first - maps, (half * flat).reshape(activation.shape).sum(1), rtol=1e-10)  # so the curvature matters


@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_a_logit_of_a_relu_net_has_no_curvature(layer: str) -> None:
    """2.7: so ShapleyCAM of a logit would be Grad-CAM, and to second order it is HiResCAM."""
    net, inputs = rectified(bias=True), random(2, 3, 12, 12)
    close(maps_of(net, inputs, SecondOrder(), [1, 4], layer), maps_of(net, inputs, HiResCAM(), [1, 4], layer), atol=0)


def shapley(gradient: Tensor, curvature: Tensor, activation: Tensor, variant: str) -> Tensor:
    values = gradient - curvature / 2
    if variant == "mean":
        return torch.einsum("bk,bkhw->bhw", values.mean((2, 3)), activation)
    terms = values * activation
    return (terms.clamp(min=0) if variant == "elementwise" else terms).sum(1)


@pytest.mark.parametrize("variant", ["mean", "elementwise", "hires"])
def test_shapleycam_before_the_mean_in_closed_form(variant: Any) -> None:
    """For z_c + log p_c: G = W'(2 e_c - p) / n, HA = W'u / n with q = z - b and u = -p (q - p.q)."""
    weight, bias, activation, classes = mean_head()
    q = activation.mean((2, 3)) @ weight.T
    p = (q + bias).softmax(1)
    u = -p * (q - (p * q).sum(1, keepdim=True))
    chosen = 2 * torch.eye(4, dtype=torch.float64)[classes] - p
    gradient, curvature = ((part @ weight / 42)[:, :, None, None].expand_as(activation) for part in (chosen, u))
    assert float(curvature.abs().max()) > 1e-3 * float(gradient.abs().max())
    expected = shapley(gradient, curvature, activation, variant)
    close(maps_of(pooled(weight, bias), activation, ShapleyCAM(variant), classes), expected, rtol=1e-10)


@pytest.mark.parametrize("variant", ["mean", "elementwise", "hires"])
@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_shapleycam_of_a_relu_net_bends_only_in_the_softmax(layer: str, variant: Any) -> None:
    """A piecewise linear tail: HA = J' Hz J A, with Hz = -(diag p - p p') of log p."""
    net, inputs, classes = rectified(bias=True), random(2, 3, 12, 12), [1, 4]
    tail = net[int(layer) + 1 :]
    activation = net[: int(layer) + 1](inputs).detach()
    gradients, curvatures = [], []
    for a, c in zip(activation, classes, strict=True):
        j = jacobian(lambda rows: tail(rows.clone()), a[None]).flatten(1)
        p = tail(a[None].clone())[0].softmax(0).detach()
        gradients.append(j.T @ (2 * torch.eye(5, dtype=torch.float64)[c] - p))
        curvatures.append(-j.T @ ((torch.diag(p) - torch.outer(p, p)) @ (j @ a.flatten())))
    gradient, curvature = (torch.stack(parts).reshape(activation.shape) for parts in (gradients, curvatures))
    assert float(curvature.abs().max()) > 1e-3 * float(gradient.abs().max())
    expected = shapley(gradient, curvature, activation, variant)
    close(maps_of(net, inputs, ShapleyCAM(variant), classes, layer), expected, rtol=1e-9, atol=1e-12)


# --- Finer-CAM and the algebra of targets -----------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES, ids=stable_id)
def test_finer_without_gamma_is_the_base(base: Method) -> None:
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    expected = maps_of(net, inputs, base, [1, 4], "third")
    near(maps_of(net, inputs, FinerCAM(base, gamma=0.0), [1, 4], "third"), expected, 1e-12)
    changed = maps_of(net, inputs, FinerCAM(base), [1, 4], "third")
    assert float((changed - expected).abs().max() / expected.abs().max()) > 0.01


@pytest.mark.parametrize("references", [1, 2, 4, 9])
@pytest.mark.parametrize("base", LINEAR, ids=stable_id)
def test_finer_is_the_map_less_those_of_the_nearest_classes(base: Method, references: int) -> None:
    """2.13: linear methods are linear in the target; the nearest are those of the closest logits, above or below."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    classes = [int(c) for c in net(inputs).argsort(1)[:, 2]]  # in the middle: there are rivals on both sides
    each = torch.stack([maps_of(net, inputs, base, c, "third") for c in range(5)])
    expected = []
    for image, c in enumerate(classes):
        z = net(inputs)[image].tolist()
        others = sorted((d for d in range(5) if d != c), key=lambda d, z=z, c=c: abs(z[d] - z[c]))[:references]
        expected.append(each[c, image] - 0.7 * each[others, image].mean(0))
    found = maps_of(net, inputs, FinerCAM(base, references=references, gamma=0.7), classes, "third")
    near(found, torch.stack(expected), 1e-11)


@pytest.mark.parametrize("base", LINEAR, ids=stable_id)
def test_log_softmax_is_a_contrast_weighted_by_probability(base: Method) -> None:
    """2.13: log p_c = map_c - sum p_d map_d, which is 1 - p_c times a contrast; p_c itself is p_c times that."""
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    each = torch.stack([maps_of(net, inputs, base, c, "third") for c in range(5)])
    p = net(inputs).softmax(1).detach()
    others = torch.einsum("bd,dbhw->bhw", torch.cat([p[:, :2], 0 * p[:, 2:3], p[:, 3:]], 1), each)
    contrast = each[2] - times(1 / (1 - p[:, 2]), others)  # gamma = 1, p-weighted references
    log = maps_of(net, inputs, base, lambda z: z.log_softmax(1)[:, 2], "third")
    near(log, times(1 - p[:, 2], contrast), 1e-11)
    near(maps_of(net, inputs, base, lambda z: z.softmax(1)[:, 2], "third"), times(p[:, 2], log), 1e-11)


def test_of_two_classes_log_softmax_is_finer() -> None:
    """2.13: log p_0 = p_1 (map_0 - map_1), and the only rival of 0 is 1."""
    weight, activation = random(2, 4, 5, 6, seed=4) / 5, random(2, 4, 5, 6)
    net = flattened(weight)
    p = net(activation).softmax(1).detach()
    for base in LINEAR:
        finer = maps_of(net, activation, FinerCAM(base, gamma=1.0), [0, 0])
        near(maps_of(net, activation, base, lambda z: z.log_softmax(1)[:, 0]), times(p[:, 1], finer), 1e-11)
        near(maps_of(net, activation, FinerCAM(base, gamma=1.0), [1, 1]), -finer, 1e-11)


# --- where a layer is watched -----------------------------------------------------------------------------------------


def test_a_batchnorm_moves_a_map_by_its_shift() -> None:
    """2.12: A' = s A + t, so Grad-CAM' = Grad-CAM + sum mean(G_k) t_k / s_k, and HiResCAM' the same cell by cell."""
    norm = nn.BatchNorm2d(4).double()
    with torch.no_grad():
        norm.running_mean.copy_(random(4, seed=1))
        norm.running_var.copy_(random(4, seed=2).abs() + 0.5)
        norm.weight.copy_(random(4, seed=3).abs() + 0.5)
        norm.bias.copy_(random(4, seed=4))
    weight = random(3, 4, 5, 6, seed=5)
    net = flattened(weight, nn.Sequential(norm, nn.Tanh()))
    activation, classes = random(2, 4, 5, 6), [0, 2]
    s = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    t = norm.bias.detach() - norm.running_mean * s
    leaf = activation.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[[0, 1], classes].sum(), leaf)
    shift = gradient * (t / s)[:, None, None]
    before, after = (
        {m: maps_of(net, activation, m, classes, layer) for m in (GradCAM(), HiResCAM())} for layer in ("0", "1.0")
    )
    near(after[GradCAM()], before[GradCAM()] + times(shift.mean((2, 3)).sum(1), torch.ones(2, 5, 6)), 1e-11)
    near(after[HiResCAM()], before[HiResCAM()] + shift.sum(1), 1e-11)


# --- principal components ---------------------------------------------------------------------------------------------


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


# --- methods without a class, by hand ---------------------------------------------------------------------------------


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


# --- masks on a linear net: all is known ------------------------------------------------------------------------------


class Straight(nn.Module):
    """Convolutions and a linear head without anything between: the logits are J x + b. The layer is "conv"."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1).double()
        self.head = nn.Linear(4 * 5 * 6, classes).double()
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(random(*parameter.shape, seed=20 + i) / max(1, parameter[0].numel()) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


@cache
def straight() -> tuple[Straight, Tensor, list[int], Tensor, Tensor]:
    """The net, two images, their classes, J (classes, 2, 9, 12) and b."""
    net, inputs = Straight().eval(), random(2, 2, 9, 12, seed=9)
    j = jacobian(net, inputs[:1])
    return net, inputs, [2, 0], j, (net(inputs) - torch.einsum("cihw,bihw->bc", j, inputs))[0].detach()


def logits_under(masks: Tensor, x: Tensor, j: Tensor, b: Tensor) -> Tensor:
    """The logits (N, classes) of a image x (2, h, w) behind masks (N, h, w)."""
    return torch.einsum("nhw,cihw,ihw->nc", masks, j, x) + b


@pytest.mark.parametrize("variant", ["authors", "paper", "gradcam", "torchcam"])
def test_scorecam_of_a_linear_net(variant: Any) -> None:
    """2.15: z(x M) = <M, x dz/dx> + b: no forward is needed to know every weight."""
    net, inputs, classes, j, b = straight()
    activation, expected = net.conv(inputs).detach(), []
    for a, x, c in zip(activation, inputs, classes, strict=True):
        corners = F.interpolate(a[:, None], (9, 12), mode="bilinear", align_corners=True)[:, 0]
        masks = {"gradcam": normalized(corners), "torchcam": resized(normalized(a), (9, 12))}
        z = logits_under(masks.get(variant, normalized(resized(a, (9, 12)))), x, j, b)
        weights = z.softmax(1)[:, c] if variant == "authors" else z[:, c].softmax(0)
        expected.append(torch.einsum("k,khw->hw", weights, a))
    near(maps_of(net, inputs, ScoreCAM(variant), classes, "conv"), torch.stack(expected), 1e-11)


def test_scorecam_of_one_channel_and_of_a_silent_one() -> None:
    """A channel of zeros masks nothing: it is skipped, or (as package grad-cam has it) takes its share of the softmax."""
    activation, weight = random(2, 3, 6, 7), random(2, 4, 6, 7, seed=1)
    both = torch.cat([activation, torch.zeros(2, 1, 6, 7)], 1)
    for variant in ("authors", "paper", "torchcam"):
        alone = maps_of(flattened(weight[:, :3]), activation, ScoreCAM(variant), [0, 1])
        near(maps_of(flattened(weight), both, ScoreCAM(variant), [0, 1]), alone, 1e-11)
    single = maps_of(flattened(weight[:, :1]), activation[:, :1], ScoreCAM("paper"), [0, 1])
    close(single, activation[:, 0])  # the softmax of one channel is 1
    net, classes = flattened(weight), [0, 1]
    masks = [activation[i][:, None] * 0 + both[i] * normalized(activation[i])[:, None] for i in range(2)]
    z = torch.stack([net(rows)[:, c].detach() for rows, c in zip(masks, classes, strict=True)])
    share = z.exp() / (z.exp().sum(1, keepdim=True) + 1)  # the empty image has the logit 0
    expected = torch.einsum("bk,bkhw->bhw", share, activation)
    near(maps_of(net, both, ScoreCAM("gradcam"), classes), expected, 1e-10)


def test_where_the_answer_is_always_the_same_masks_weigh_the_same() -> None:
    """A net that answers its biases: Score-CAM, IS-CAM and SS-CAM are p times the sum of the channels, Group-CAM 0."""
    bias, activation = random(3), random(2, 4, 6, 7)
    net = pooled(torch.zeros(3, 4), bias)
    p = bias.softmax(0)[[2, 0]]
    for method in (ScoreCAM(), ISCAM(steps=3), SSCAM(samples=2), SSCAM(samples=2, on="map")):
        close(maps_of(net, activation, method, [2, 0]), times(p, activation.sum(1)))
    for variant in ("paper", "torchcam", "gradcam"):
        close(maps_of(net, activation, ScoreCAM(variant), [2, 0]), activation.mean(1))


def test_iscam_of_one_step_and_sscam_without_noise_are_scorecam() -> None:
    net, inputs = tiny_network(InplaceNet, dtype=torch.float64)
    expected = maps_of(net, inputs, ScoreCAM(), [1, 4], "third")
    same = (ISCAM(steps=1), ISCAM(steps=1, schedule="cumulative"), SSCAM(samples=3, sigma=0.0), ScoreCAM(batch_size=3))
    for method in same:
        near(maps_of(net, inputs, method, [1, 4], "third"), expected, 1e-12)
    for method in (ISCAM(steps=2), SSCAM(samples=3), SSCAM(samples=3, sigma=0.0, on="map")):
        assert float((maps_of(net, inputs, method, [1, 4], "third") - expected).abs().max()) > 1e-6


@pytest.mark.parametrize("schedule", ["linear", "cumulative"])
def test_iscam_of_a_linear_net(schedule: Any) -> None:
    """z(a x M) = a <M, x dz/dx> + b, for a = 1/4 ... 1, or their sums 1/4, 3/4, 6/4, 10/4."""
    net, inputs, classes, j, b = straight()
    activation, expected = net.conv(inputs).detach(), []
    factors = [0.25, 0.5, 0.75, 1.0] if schedule == "linear" else [0.25, 0.75, 1.5, 2.5]
    for a, x, c in zip(activation, inputs, classes, strict=True):
        masks = normalized(resized(a, (9, 12)))
        weights = sum(logits_under(f * masks, x, j, b).softmax(1)[:, c] for f in factors) / 4
        expected.append(torch.einsum("k,khw->hw", weights, a))
    near(maps_of(net, inputs, ISCAM(4, schedule), classes, "conv"), torch.stack(expected), 1e-11)


def test_sscam_on_the_map_without_noise_masks_with_the_bare_map() -> None:
    net, inputs, classes, j, b = straight()
    activation, expected = net.conv(inputs).detach(), []
    for a, x, c in zip(activation, inputs, classes, strict=True):
        weights = logits_under(resized(a, (9, 12)), x, j, b).softmax(1)[:, c]
        expected.append(torch.einsum("k,khw->hw", weights, a))
    found = maps_of(net, inputs, SSCAM(samples=2, sigma=0.0, on="map"), classes, "conv")
    near(found, torch.stack(expected), 1e-11)


@pytest.mark.parametrize("percentile", [None, 70.0])
@pytest.mark.parametrize("groups", [1, 2, 9])
def test_groupcam_of_a_linear_net(groups: int, percentile: float | None) -> None:
    """One group is Grad-CAM itself, rectified and cut off; with as many groups as channels each stands for itself."""
    net, inputs, classes, j, b = straight()
    activation, expected = net.conv(inputs).detach(), []
    weights = net.head.weight.reshape(3, 4, 5, 6)[classes].mean((2, 3)).detach()
    bounds = {1: [(0, 4)], 2: [(0, 2), (2, 4)], 9: [(k, k + 1) for k in range(4)]}[groups]
    for a, x, w, c in zip(activation, inputs, weights, classes, strict=True):
        soft, total_map = blurred(x, 51, 50.0, "reflect"), torch.zeros(5, 6).double()
        before = (torch.einsum("cihw,ihw->c", j, soft) + b).softmax(0)[c]
        for start, end in bounds:
            m = torch.einsum("k,khw->hw", w[start:end], a[start:end]).relu()
            if percentile is not None:
                m = torch.where(m > float(np.percentile(m.numpy(), percentile)), m, 0.0)
            mask = normalized(resized(m[None], (9, 12)))[0]
            mixed = x * mask + soft * (1 - mask)
            total_map += ((torch.einsum("cihw,ihw->c", j, mixed) + b).softmax(0)[c] - before) * m
        expected.append(total_map)
    found = maps_of(net, inputs, GroupCAM(groups, percentile), classes, "conv")
    near(found, torch.stack(expected), 1e-10)


def test_groupcam_gains_nothing_where_blurring_changes_nothing() -> None:
    """A image of one color, or a blur of one pixel."""
    net, inputs, classes, _, _ = straight()
    plain = torch.full_like(inputs, 0.7)
    assert float(net.conv(plain).detach()[0, 0].std()) > 0  # at the border: so there is something to mask with
    close(maps_of(net, plain, GroupCAM(2), classes, "conv"), torch.zeros(2, 5, 6).double(), atol=1e-14)
    found = maps_of(net, inputs, GroupCAM(2, blur=1), classes, "conv")
    close(found, torch.zeros(2, 5, 6).double(), atol=1e-14)


def test_groupcam_knows_the_order_of_its_groups_but_not_within_one() -> None:
    net, inputs, classes, _, _ = straight()
    expected = maps_of(net, inputs, GroupCAM(2), classes, "conv")
    for order, same in (([1, 0, 3, 2], True), ([0, 2, 1, 3], False)):
        other = copy.deepcopy(net)
        with torch.no_grad():
            other.conv.weight.copy_(net.conv.weight[order])
            other.conv.bias.copy_(net.conv.bias[order])
            other.head.weight.copy_(net.head.weight.reshape(3, 4, 30)[:, order].flatten(1))
        found = maps_of(other, inputs, GroupCAM(2), classes, "conv")
        assert (float((found - expected).abs().max()) < 1e-12) == same


def test_opticam_mixes_channels_with_weights_that_sum_to_one() -> None:
    """So channels that are all alike give that one back, whatever the mixture; of two the better mask wins."""
    pattern = random(1, 1, 6, 7).abs()
    alike_channels = pattern.expand(1, 3, 6, 7)
    close(maps_of(flattened(random(2, 3, 6, 7)), alike_channels, OptiCAM(steps=5), [0]), pattern[0])
    good, bad = blob(1, 1), blob(5, 5)
    weight = torch.stack([torch.stack([good - bad, good - bad]), torch.zeros(2, 8, 8)])
    activation = torch.stack([good, bad])[None] + 0.5 * (good + bad)  # a image with both; each channel prefers one
    found = maps_of(flattened(weight), activation, OptiCAM(), [0])[0]
    assert float(found[1, 1]) > 1.45 and float(found[5, 5]) < 0.55


def occluded(net: Straight, contributions: Tensor, starts: tuple[list[int], list[int]], window: int) -> Tensor:
    """The mean over the windows at each pixel of what each hides (h, w), by plain loops."""
    lost, times_seen = torch.zeros_like(contributions), torch.zeros_like(contributions)
    for top in starts[0]:
        for left in starts[1]:
            here = (slice(top, top + window), slice(left, left + window))
            lost[here] += contributions[here].sum()
            times_seen[here] += 1
    return lost / times_seen


@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_occlusion_of_a_linear_net_is_the_sum_of_what_is_hidden(baseline: float) -> None:
    """y(x) - y(covered) = the sum over the window of dy/dx (x - baseline); sides of 9 and 12, windows of 3 and 4."""
    net, inputs, classes, j, _ = straight()
    contributions = (j[classes] * (inputs - baseline)).sum(1)
    for method, starts, window in (
        (Occlusion(1 / 12, 1 / 12, baseline), (list(range(9)), list(range(12))), 1),
        (Occlusion(1 / 3, 1 / 6, baseline), None, 0),
        (Occlusion(1.0, 1.0, baseline), ([0], [0]), 12),
    ):
        found = maps_of(net, inputs, method, classes, None)
        for image in range(2):
            if starts is None:  # round(9 / 3) = 3 every round(1.5) = 2 rows; 4 every 2 columns; the last row's is whole
                lost, seen = torch.zeros(9, 12).double(), torch.zeros(9, 12).double()
                for top in (0, 2, 4, 6):
                    for left in (0, 2, 4, 6, 8):
                        here = (slice(top, top + 3), slice(left, left + 4))
                        lost[here] += contributions[image][here].sum()
                        seen[here] += 1
                expected = lost / seen
            else:
                expected = occluded(net, contributions[image], starts, window)
            near(found[image][None], expected[None], 1e-11)


def shown(net: nn.Module, inputs: Tensor, method: Any, classes: list[int]) -> tuple[Tensor, Tensor]:
    """A method's maps, and every row that the network was shown of a image (one image, each in a batch of many)."""
    rows = list[Tensor]()
    hook = net.register_forward_pre_hook(lambda module, args: rows.append(args[0].detach().clone()))
    maps = maps_of(net, inputs, method, classes, None)
    hook.remove()
    return maps, torch.cat([batch for batch in rows if len(batch) > 1])


def test_rise_of_a_linear_net() -> None:
    """The masks are read off what the network was shown: the map is sum p m / (N P), with p known from J and b."""
    net, inputs, classes, j, b = straight()
    x = inputs[:1]
    maps, rows = shown(net, x, RISE(masks=50, grid=4, p=0.3), classes[:1])
    masks = rows[:, 0] / x[:, 0]
    assert len(masks) == 50 and float(masks.min()) >= 0 and float(masks.max()) <= 1 + 1e-12
    close(rows[:, 1] / x[:, 1], masks, rtol=1e-9, atol=1e-12)  # one mask for all colors
    p = logits_under(masks, x[0], j, b).softmax(1)[:, classes[0]]
    near(maps, torch.einsum("n,nhw->hw", p, masks)[None] / (50 * 0.3), 1e-10)


def test_rise_finds_the_pixels_that_count() -> None:
    """Of two classes p is 1/2 + z/4 for small z: less the map of a net without weights it is linear in them, and its
    expectation is highest where they are."""
    image = torch.ones(1, 1, 12, 12).double()
    method = RISE(masks=1500, grid=4)

    def slope(weight: Tensor) -> Tensor:
        net = flattened(torch.stack([weight, torch.zeros_like(weight)])[:, None])
        return (maps_of(net, image, method, [0], None) - maps_of(flattened(torch.zeros(2, 1, 12, 12)), image,
                method, [0], None))[0]  # fmt: skip

    first, second = 1e-5 * blob(1, 1, side=12), 1e-5 * blob(8, 7, side=12)
    found = slope(first), slope(second), slope(first + second)
    near(found[2][None], (found[0] + found[1])[None], 1e-4)
    for one, (row, column) in zip(found[:2], ((1, 1), (8, 7)), strict=True):
        peak = divmod(int(one.argmax()), 12)
        assert abs(peak[0] - row) <= 2 and abs(peak[1] - column) <= 2


def test_polycam_where_the_answer_is_always_the_same() -> None:
    """Nothing is lost by hiding: "-" is 0 everywhere; "+" sharpens the plain sums of the channels, times p."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(4, 3)).double().eval()  # fmt: skip
    with torch.no_grad():
        net[5].weight.zero_()
    inputs, classes, layers = random(2, 2, 9, 9), [1, 2], ["0", "2"]
    p = net[5].bias.softmax(0)[classes].detach()
    fine, coarse = (part(inputs).detach().sum(1) for part in (net[0], net[:3]))
    fine, coarse = times(p, fine).relu(), times(p, coarse).relu()
    local = fine / resized(resized(fine, (4, 4)), (9, 9)).clamp(min=1e-12)
    expected = (local * resized(coarse, (9, 9))).relu()
    for variant in ("+", "+-"):
        near(maps_of(net, inputs, PolyCAM(variant), classes, layers), expected, 1e-10)
    close(maps_of(net, inputs, PolyCAM("-"), classes, layers), torch.zeros_like(expected), atol=1e-15)


# --- methods of another method ----------------------------------------------------------------------------------------


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


# --- the full model ------------------------------------------------------------------------------------------------


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


# --- attention by hand ------------------------------------------------------------------------------------------------


class Head(nn.Module):
    """Attention with one head, and no projection after it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))

    def forward(self, t: Tensor) -> Tensor:
        q, k, v = (part(t)[:, None] for part in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v)[:, 0]


class Block(nn.Module):
    """One head of attention and a skip; `norm` may do nothing."""

    def __init__(self, dim: int, normed: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if normed else nn.Identity()
        self.head = Head(dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.head(self.norm(x))


class InOne(Block):
    """The same, with the attention in the block's own forward."""

    def forward(self, x: Tensor) -> Tensor:
        t = self.norm(x)
        q, k, v = (part(t)[:, None] for part in (self.head.q, self.head.k, self.head.v))
        return x + F.scaled_dot_product_attention(q, k, v)[:, 0]


class OneHead(nn.Module):
    """2x3 patches and a class token, no places, one head a block, a linear head: each derivative is a line of algebra."""

    def __init__(self, depth: int = 1, normed: bool = False, kind: type[Block] = Block) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 4, 3, stride=3)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.blocks = nn.ModuleList(kind(4, normed) for _ in range(depth))
        self.head = nn.Linear(4, 4)
        self.double().eval()
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(random(*parameter.shape, seed=40 + i))
            self.patches.weight /= 4

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])

    def seen(self, inputs: Tensor) -> list[dict[str, Tensor]]:
        """For each block x, t, q, k, v (B, N, 4) and A (B, N, N)."""
        x = self.patches(inputs).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        found = []
        for block in self.blocks:
            t = block.norm(x)
            q, k, v = block.head.q(t), block.head.k(t), block.head.v(t)
            raw = torch.exp(q @ k.mT / 2)
            a = raw / raw.sum(2, keepdim=True)
            found.append({"x": x, "t": t, "q": q, "k": k, "v": v, "a": a})
            x = x + a @ v
        return [{name: value.detach() for name, value in one.items()} for one in found]


LOOKED_AT = random(2, 2, 6, 9, seed=8)


def patches(row: Tensor) -> Tensor:
    """(B, 7), one a token, as a map (B, 2, 3)."""
    return row[:, 1:].reshape(-1, 2, 3)


def test_rollout_of_one_head_is_the_mean_of_attention_and_identity() -> None:
    """Rows of A sum to 1, so A + I divided by its rows is (A + I) / 2; layers multiply, the last from the left."""
    for depth in (1, 2):
        net, rolled = OneHead(depth), torch.eye(7).double()
        for one in net.seen(LOOKED_AT):
            rolled = (one["a"] + torch.eye(7)) / 2 @ rolled
        for heads in ("mean", "max", "min"):  # of one head all are the same
            close(maps_of(net, LOOKED_AT, AttentionRollout(heads), [0, 2], None), patches(rolled[:, 0]), rtol=1e-11)


def test_relevance_of_one_head() -> None:
    """y = w (x_0 + sum_j A_0j v_j) + b, so dA_0j = w v_j, and a patch has relu(A_0j w v_j)."""
    net, classes = OneHead(1), [0, 2]
    (one,), w = net.seen(LOOKED_AT), net.head.weight[classes].detach()
    share = one["a"][:, 0] * torch.einsum("bd,bnd->bn", w, one["v"])
    assert float(share.min()) < 0 < float(share.max())
    close(maps_of(net, LOOKED_AT, AttentionRelevance(), classes, None), patches(share.relu()), rtol=1e-11)


def test_legrad_of_one_head() -> None:
    """The score of the mean token is w mean_i(x_i + sum_j A_ij v_j) + b: its slope is w v_j / N in each row i."""
    net, classes = OneHead(2), [0, 2]
    w = net.head.weight[classes].detach()
    slopes = [torch.einsum("bd,bnd->bn", w, one["v"]).relu() / 7 for one in net.seen(LOOKED_AT)]
    close(maps_of(net, LOOKED_AT, LeGrad(last=1), classes, None), patches(slopes[1]), rtol=1e-11)
    for method in (LeGrad(), LeGrad(last=None)):
        close(maps_of(net, LOOKED_AT, method, classes, None), patches(slopes[0] + slopes[1]), rtol=1e-11)


def test_gradeclip_of_one_head() -> None:
    """dy/do is w: each patch has w v_i, times how alike its key is to the class token's query, on [0, 1]."""
    net, classes = OneHead(1), [0, 2]
    (one,), w = net.seen(LOOKED_AT), net.head.weight[classes].detach()
    alike_keys = torch.einsum("bd,bnd->bn", one["q"][:, 0], one["k"]) / one["k"].norm(dim=2)  # |q| is one for all
    loosened = normalized(alike_keys[:, 1:])
    expected = loosened * torch.einsum("bd,bnd->bn", w, one["v"][:, 1:])
    close(maps_of(net, LOOKED_AT, GradECLIP(), classes, None), expected.reshape(2, 2, 3), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("score_of", ["logit", "probability"])
def test_vit_reciprocam_of_one_head(score_of: Any) -> None:
    """A masked token has key and value 0 but keeps its place in the softmax: exp(0) = 1 below the line."""
    net, classes = OneHead(2, normed=True), [0, 2]
    one, head = net.seen(LOOKED_AT)[-1], net.head
    expected = torch.zeros(2, 6).double()
    for image, c in enumerate(classes):
        q, k, v = (one[name][image] for name in "qkv")
        raw = torch.exp(k @ q[0] / 2)
        for cell in range(6):
            kept = [0, cell + 1]
            o = (raw[kept, None] * v[kept]).sum(0) / (raw[kept].sum() + 5)
            z = (head.weight @ (one["x"][image, 0] + o) + head.bias).detach()
            expected[image, cell] = (z if score_of == "logit" else z.softmax(0))[c]
    found = maps_of(net, LOOKED_AT, ViTReciproCAM(-1, "point", score_of), classes, None)
    close(found, expected.reshape(2, 2, 3), rtol=1e-10)


@pytest.mark.parametrize("name", ["attentionrollout", "attentionrelevance", "legrad", "gradeclip", "vitreciprocam"])
def test_attention_in_the_blocks_own_forward(name: str) -> None:
    """It is the same attention in the same block, whether a module of its own computes it or not."""
    method = SETTINGS.get(name, name)
    expected = maps_of(OneHead(2, normed=True), LOOKED_AT, method, [0, 2], None)
    close(maps_of(OneHead(2, normed=True, kind=InOne), LOOKED_AT, method, [0, 2], None), expected)


# --- every method of the catalog --------------------------------------------------------------------------------------

SETTINGS = {
    "sscam": "sscam(samples=2)",
    "opticam": "opticam(steps=3)",
    "groupcam": "groupcam(groups=3)",
    "occlusion": "occlusion(window=0.4,stride=0.31)",  # 5 of 13 every 4, 4 of 9 every 3: to both borders
    "rise": "rise(masks=30,grid=3)",
    "smooth": "smooth(samples=2)",
    "smoothgradcam++": "smoothgradcam++(samples=2)",
    "integrated": "integrated(steps=3)",
    "cameras": "cameras(sizes=2)",
    "sess": "sess(scales=2)",
    "vitreciprocam": "vitreciprocam(block=-1)",
}
NAMES = [entry.name for entry in METHODS]
TRANSFORMERS = {"attentionrollout", "attentionrelevance", "legrad", "gradeclip", "vitreciprocam"}
CONVOLUTIONAL = [name for name in NAMES if name not in TRANSFORMERS]
LOOSE = {"opticam": 1e-6}  # Adam divides a slope by its own size


class Small(nn.Module):
    """Two convolutions with ReLU, mean pooling, a linear head; `end` is where CAM belongs. Left is as right."""

    def __init__(self, width: int = 3, stride: int = 2, border: str = "zeros") -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, width, padding=width // 2, padding_mode=border)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(6, 7, width, stride, padding=width // 2, padding_mode=border)
        self.end = nn.ReLU()
        self.head = nn.Linear(7, 4)
        self.double().eval()
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(1.5 * random(*parameter.shape, seed=60 + i) / max(1, parameter[0].numel()) ** 0.5)
            for conv in (self.first, self.second):
                conv.weight.copy_((conv.weight + conv.weight.flip(-1)) / 2)
            self.head.weight *= 3
            self.head.bias.copy_(torch.tensor([3.0, 4.0, 5.0, 6.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.end(self.second(self.relu(self.first(x)))).mean((2, 3)))


CLASSES = [3, 0, 1]


def stage(name: str) -> tuple[nn.Module, Tensor, list[str] | None]:
    """A net for the method, three images of its size (one faint, one bright), and the layers to explain."""
    sizes = torch.tensor([1.0, 0.05, 20.0], dtype=torch.float64)[:, None, None, None]
    if name in TRANSFORMERS:
        return OneHead(2, normed=True), random(3, 2, 6, 9, seed=1) * sizes.clamp(0.5, 2), None
    return Small(), (random(3, 2, 9, 13, seed=1) + 0.3) * sizes, ["end"] if name == "cam" else ["first", "end"]


def explained(net: nn.Module, inputs: Tensor, methods: Any, layers: Any, target: Any = None) -> dict[Any, Tensor]:
    """Every map of one call, by method and layer."""
    target = ClassScore(torch.tensor(CLASSES[: len(inputs)])) if target is None else target
    e = seewhy.explain(net, inputs, methods=methods, layers=layers, targets=target)
    return {(method, layer): maps for (method, _, layer), maps in e.maps.items()}


@cache
def as_it_is(name: str) -> dict[Any, Tensor]:
    """The maps of a method on its net, unchanged."""
    net, inputs, layers = stage(name)
    return explained(net, inputs, SETTINGS.get(name, name), layers)


@pytest.mark.parametrize("name", NAMES)
def test_the_maps_below_say_something(name: str) -> None:
    """What is compared is worth comparing: finite, in float64, and not one value everywhere."""
    for maps in as_it_is(name).values():
        assert maps.dtype == torch.float64 and bool(maps.isfinite().all())
    spread = [float((m.flatten(1).amax(1) - m.flatten(1).amin(1)).amax()) for m in as_it_is(name).values()]
    assert min(spread) > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_pictures(name: str) -> None:
    """A faint image beside a bright one keeps its own map to the last digits."""
    net, inputs, layers = stage(name)
    for image, c in enumerate(CLASSES):
        alone = explained(net, inputs[image : image + 1], SETTINGS.get(name, name), layers, ClassScore(c))
        alike(alone, {k: m[image : image + 1] for k, m in as_it_is(name).items()}, LOOSE.get(name, 1e-9))


@pytest.mark.parametrize("name", NAMES)
def test_several_classes_are_a_loop(name: str) -> None:
    net, inputs, layers = stage(name)
    classes = list(range(net.head.out_features))
    method = SETTINGS.get(name, name)
    together = seewhy.explain(net, inputs, methods=method, layers=layers, targets=classes)
    for c in classes:
        alone = explained(net, inputs, method, layers, ClassScore(c))
        alike({(m, signals): maps for (m, t, signals), maps in together.maps.items() if t == str(c)}, alone, 1e-11)


@pytest.mark.parametrize("names", [CONVOLUTIONAL, sorted(TRANSFORMERS)], ids=["convolutions", "attention"])
def test_methods_together_are_methods_alone(names: list[str]) -> None:
    net, inputs, layers = stage(names[0])
    chosen = [SETTINGS.get(name, name) for name in names if name != "cam"]  # which fits one of the layers only
    together = explained(net, inputs, chosen, layers)
    alone = {key: maps for name in names if name != "cam" for key, maps in as_it_is(name).items()}
    assert set(together) == set(alone)
    for key, maps in alone.items():
        near(together[key], maps, 1e-11)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_one_layer_is_what_it_is_among_all(name: str) -> None:
    """All layers at once or one alone; methods of several layers need several."""
    if name in ("polycam", "refinecam", "layercamfusion", "cam"):
        assert len(as_it_is(name)) == 1
        return
    net, inputs, layers = stage(name)
    for layer in layers or ():
        alone = explained(net, inputs, SETTINGS.get(name, name), [layer])
        alike(alone, {k: m for k, m in as_it_is(name).items() if k[1] in (layer, "network")}, LOOSE.get(name, 1e-11))


# SESS divides by how many values are above 0: a rounded 0 is one more. The first steps of Adam in Opti-CAM go by the sign of
# a gradient, also where that is 0 but for rounding: on one processor one map of six was off by 0.016.
ROUNDED = {"opticam": 0.05, "sess": 0.1}


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_float64_but_for_rounding(name: str) -> None:
    net, inputs, layers = stage(name)
    found = explained(net.float(), inputs.float(), SETTINGS.get(name, name), layers)
    assert all(maps.dtype == torch.float32 for maps in found.values())
    alike({key: maps.double() for key, maps in found.items()}, as_it_is(name), ROUNDED.get(name, 2e-4))


def permuted(net: Small) -> Small:
    """The same function, with the channels of both layers in another order."""
    other, first, second = copy.deepcopy(net), [4, 0, 5, 2, 1, 3], [6, 2, 0, 5, 3, 1, 4]
    with torch.no_grad():
        other.first.weight.copy_(net.first.weight[first])
        other.first.bias.copy_(net.first.bias[first])
        other.second.weight.copy_(net.second.weight[second][:, first])
        other.second.bias.copy_(net.second.bias[second])
        other.head.weight.copy_(net.head.weight[:, second])
    return other


ORDERED = {"groupcam", "randomcam", "sscam", "deepfeaturefactorization"}  # groups, seeds a channel, a random start


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name not in ORDERED])
def test_channels_have_no_order(name: str) -> None:
    net, inputs, layers = stage(name)
    assert isinstance(net, Small)
    found = explained(permuted(net), inputs, SETTINGS.get(name, name), layers)
    alike(found, as_it_is(name), LOOSE.get(name, 1e-8))


def rescaled(net: Small, by: Tensor) -> Small:
    """The same function, with each channel k of both layers divided by s_k and the next weights multiplied by it."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        for conv, s in ((other.first, by[:6]), (other.second, by[:7])):
            conv.weight /= s[:, None, None, None]
            conv.bias /= s
        other.second.weight *= by[:6][:, None, None]
        other.head.weight *= by[:7]
    return other


# Methods that take A alone: its scale is that of the map (and the kernel of KPCA-CAM bends with it).
OF_A = {
    "eigencam", "fem", "lafam", "randomcam", "deepfeaturefactorization", "scorecam", "sscam", "iscam", "opticam",
    "polycam", "ablationcam",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name not in OF_A | {"kpcacam"}])
def test_the_units_of_a_channel_are_no_matter(name: str) -> None:
    """A_k / s_k with the next weights times s_k: the net is the same, and so is each map made of G times A.

    Grad-CAM++ too: g S_k has no units, and g A_k neither.
    """
    net, inputs, layers = stage(name)
    assert isinstance(net, Small)
    other = rescaled(net, torch.tensor([0.3, 5.0, 1.0, 2.0, 0.7, 9.0, 0.1], dtype=torch.float64))
    close(other(inputs), net(inputs), rtol=1e-10)
    alike(explained(other, inputs, SETTINGS.get(name, name), layers), as_it_is(name), LOOSE.get(name, 1e-8))


@pytest.mark.parametrize("name", sorted(OF_A))
def test_the_units_of_a_layer_are_those_of_its_map(name: str) -> None:
    """All channels divided by 4: the masks and their scores are the same, and what is summed up is a quarter.

    Ablation-CAM too: its weights are shares of the score.
    """
    net, inputs, layers = stage(name)
    assert isinstance(net, Small)
    found = explained(rescaled(net, torch.full((7,), 4.0)), inputs, SETTINGS.get(name, name), layers)
    alike(found, as_it_is(name), LOOSE.get(name, 1e-8), scale=0.25)


# How many times the logit's scale is in a map.
DEGREES = {
    **dict.fromkeys(["gradcam", "hirescam", "layercam", "xgradcam", "gradcamelementwise", "eigengradcam"], 1),
    **dict.fromkeys(["segeigencam", "finercam", "cam", "smooth", "integrated", "augmented", "eigensmooth"], 1),
    **dict.fromkeys(["cameras", "occlusion", "gradeclip"], 1),
    "guidedgradcam": 2,  # a gradient in both factors
    **dict.fromkeys(["ablationcam", "fullgrad", "layercamfusion"], 0),  # shares
    **dict.fromkeys(["eigencam", "kpcacam", "fem", "lafam", "randomcam", "deepfeaturefactorization"], 0),
    "attentionrollout": 0,
    "legrad": 1,
}


def louder(net: Any, by: float) -> nn.Module:
    """The logits times a number."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.weight *= by
        other.head.bias *= by
    return other


@pytest.mark.parametrize("name", list(DEGREES))
def test_the_scale_of_the_logits_is_a_factor(name: str) -> None:
    net, inputs, layers = stage(name)
    found = explained(louder(net, 3.0), inputs, SETTINGS.get(name, name), layers)
    alike(found, as_it_is(name), 1e-9, scale=3.0 ** DEGREES[name])


def test_the_scale_of_the_logits_is_a_factor_for_normalized_alphas() -> None:
    net, inputs, layers = stage("gradcam++")
    method = GradCAMPlusPlus(alphas="normalized")
    plain = explained(net, inputs, method, ["end"])
    for by in (1e-4, 1e4):  # before the mean the gradient is one value, and g S_k then cancels
        alike(explained(louder(net, by), inputs, method, ["end"]), plain, 1e-9, scale=by)
    assert layers == ["first", "end"]


SCALED = {
    "gradcam++", "smoothgradcam++", "refinecam", "shapleycam", "scorecam", "sscam", "iscam", "groupcam", "reciprocam",
    "polycam", "rise", "sess", "attentionrelevance", "vitreciprocam",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SCALED))
def test_the_scale_of_the_logits_changes_these(name: str) -> None:
    """Probabilities, 1 / (2 + g S), products of layers: no factor takes the map back."""
    net, inputs, layers = stage(name)
    found = explained(louder(net, 3.0), inputs, SETTINGS.get(name, name), layers)
    apart = []
    for key, maps in as_it_is(name).items():
        one, other = maps.flatten(1), found[key].flatten(1)
        factor = (one * other).sum(1) / (one * one).sum(1).clamp(min=1e-300)
        apart.append(float(((other - factor[:, None] * one).abs().amax(1) / other.abs().amax(1)).nan_to_num(0).amax()))
    assert max(apart) > 1e-4


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ablationcam"])
def test_a_constant_added_to_all_logits_is_no_evidence(name: str) -> None:
    """Neither gradients nor probabilities nor differences see it; only Ablation-CAM divides by the score."""
    net, inputs, layers = stage(name)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.bias += 2.5
    alike(explained(other, inputs, SETTINGS.get(name, name), layers), as_it_is(name), LOOSE.get(name, 1e-9))


def test_a_constant_added_to_all_logits_where_it_is_seen() -> None:
    """Ablation-CAM times y is unchanged; Recipro-CAM of a logit moves by the constant."""
    net, inputs, layers = stage("ablationcam")
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.bias += 2.5
    y = score(net, inputs, CLASSES)
    for layer in layers or ():
        before, after = (maps_of(which, inputs, AblationCAM(), CLASSES, layer) for which in (net, other))
        near(times(y + 2.5, after), times(y, before), 1e-8)
        before, after = (maps_of(which, inputs, ReciproCAM(score="logit"), CLASSES, layer) for which in (net, other))
        close(after - before, torch.full_like(before, 2.5), rtol=1e-9)


# Noise and random masks know left from right, a random start cells.
SIDED = {"rise", "smooth", "smoothgradcam++", "sscam", "deepfeaturefactorization"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SIDED])
def test_a_mirrored_picture_has_a_mirrored_map(name: str) -> None:
    """For kernels whose left is as their right (or none, in attention without places)."""
    net, inputs, layers = stage(name)
    if name in TRANSFORMERS:
        with torch.no_grad():
            net.patches.weight.copy_((net.patches.weight + net.patches.weight.flip(-1)) / 2)
    plain, mirrored = (explained(net, x, SETTINGS.get(name, name), layers) for x in (inputs, inputs.flip(-1)))
    alike({key: maps.flip(-1) for key, maps in mirrored.items()}, plain, LOOSE.get(name, 1e-8))


# Methods that resize no mask and ask for no window: what they do to one cell they do to all.
SHIFTED = [
    "gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "gradcamelementwise", "eigengradcam", "segeigencam",
    "shapleycam", "finercam", "eigencam", "kpcacam", "fem", "lafam", "randomcam", "ablationcam", "reciprocam",
    "integrated", "eigensmooth",
]  # fmt: skip


@pytest.mark.parametrize("name", SHIFTED)
def test_a_picture_moved_by_the_stride_has_its_map_moved_by_a_cell(name: str) -> None:
    """On a torus, where nothing gets lost at a border."""
    net = Small(border="circular")
    inputs = random(3, 2, 8, 12, seed=1) + 0.3
    plain, moved = (explained(net, x, name, ["first", "end"]) for x in (inputs, inputs.roll((2, 4), (2, 3))))
    for (method, layer), maps in plain.items():
        cells = (2, 4) if layer == "first" else (1, 2)
        near(moved[method, layer], maps.roll(cells, (1, 2)), 1e-8)


# --- images and layers that hold nothing ----------------------------------------------------------------------------

# Random masks and noise have places of their own, windows that are cut off at a border hide less.
UNEVEN = {"rise", "smooth", "occlusion"}


@pytest.mark.parametrize("value", [0.0, 0.7, -1.3])
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_of_one_colour_has_a_map_of_one_value(name: str, value: float) -> None:
    """Convolutions of one cell, attention without places: no cell knows where it is. And 0 / 0 is nowhere."""
    net, inputs, layers = stage(name)
    if name not in TRANSFORMERS:
        net = Small(1, stride=2 if name == "polycam" else 1)  # which needs two grids, but no gradient
    plain = torch.full_like(inputs, value)
    method = SETTINGS.get(name, name).replace("block=-1", "block=-1,kernel=point")  # a wider one is cut at the border
    for maps in explained(net, plain, method, layers).values():
        assert bool(maps.isfinite().all())
        flat = maps.flatten(1)
        # how one color is shared out between concepts hangs on their start at random, cell by cell
        if name not in UNEVEN | {"deepfeaturefactorization"}:
            assert bool((flat.amax(1) - flat.amin(1) <= 1e-9 * flat.abs().amax(1) + 1e-12).all())


def test_the_concepts_of_one_colour_add_up_to_one_value() -> None:
    net, inputs, layers = Small(1), torch.full((1, 2, 9, 13), 0.7).double(), ["end"]
    (maps,) = explained(net, inputs, DeepFeatureFactorization(concepts=1), layers).values()
    near(maps, maps.mean((1, 2), keepdim=True).expand_as(maps), 1e-9)
    assert float(maps.min()) > 0


AGAINST = ("gradcam", "hirescam", "xgradcam", "cam", "smooth", "integrated(rectified=false)", "augmented", "layercam",
           "gradcam++", "gradcamelementwise", "eigensmooth(centered=False)", "eigengradcam(centered=False)",
           "guidedgradcam", "smoothgradcam++")  # fmt: skip


@pytest.mark.parametrize("text", AGAINST)
def test_what_speaks_only_against_the_class_is_flagged(text: str) -> None:
    """Weights below 0 on activations above 0: nothing is positive, the heat map is blank, and it says so."""
    net = nn.Sequential(nn.ReLU(), passing(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        linear(torch.tensor([[-1.0, -2.0], [1.0, 1.0]]))).eval()  # fmt: skip
    inputs = random(1, 2, 6, 7).abs() + 5
    (method,) = as_methods(text.replace("false", "False")).values()
    e = seewhy.explain(net, inputs, methods=method, layers="1", targets=0)
    assert "no_evidence" in e.flags()[0] and not e.heatmap().any()
    assert bool((e.map() <= 0).all())
    turned = seewhy.explain(net, inputs, methods=method, layers="1", targets=1)
    assert "no_evidence" not in turned.flags()[0] and float(turned.heatmap().amax()) == pytest.approx(1)


def test_methods_together_flag_each_for_itself() -> None:
    """A blank map of one method is no matter to another at the same layer."""
    net, activation = pooled(torch.tensor([[-1.0, -2.0], [1.0, 1.0]])), random(2, 2, 5, 5).abs() + 0.1
    e = seewhy.explain(net, activation, methods=["gradcam", "layercam", "eigencam"], layers="0", targets=[0, 1])
    flags = {(m, t): e.flags(method=m, target=t)[0] for m in ("gradcam", "layercam", "eigencam") for t in ("0", "1")}
    assert flags["gradcam", "0"] == ("no_evidence",)
    assert flags["layercam", "0"] == ("no_evidence", "constant")
    assert all(not found for key, found in flags.items() if key[1] == "1" or key[0] == "eigencam")


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name not in ORDERED | {"lafam", "kpcacam"}])
def test_a_channel_of_zeros_says_nothing(name: str) -> None:
    """One more channel in both layers, 0 everywhere but with weights after it: no map changes (0 / 0 is no weight)."""
    net, inputs, layers = stage(name)
    assert isinstance(net, Small)
    wider = copy.deepcopy(net)
    wider.first, wider.second, wider.head = nn.Conv2d(2, 7, 3, padding=1), nn.Conv2d(7, 8, 3, 2, 1), nn.Linear(8, 4)
    wider.double()
    with torch.no_grad():
        for own, old in ((wider.first, net.first), (wider.second, net.second)):
            own.weight.zero_()
            own.bias.zero_()
            own.weight[: old.out_channels, : old.in_channels] = old.weight
            own.bias[: old.out_channels] = old.bias
        wider.second.weight[:7, 6] = 1.7
        wider.head.weight[:, :7], wider.head.weight[:, 7] = net.head.weight, 2.3
        wider.head.bias.copy_(net.head.bias)
    close(wider(inputs), net(inputs), rtol=1e-12)
    found, expected = explained(wider, inputs, SETTINGS.get(name, name), layers), as_it_is(name)
    if name == "opticam":  # the softmax shares with it; what is left is in the same proportions at the first step only
        assert all(bool(maps.isfinite().all()) for maps in found.values())
        return
    alike(found, expected, 1e-9)


# --- after an exception -----------------------------------------------------------------------------------------------


class Stop(Exception):
    """Nothing that seewhy raises or expects."""


@dataclass(frozen=True)
class Raises(Method):
    """Raises at once, in the middle of the pass that others share, or while the network runs again."""

    where: str = "at once"

    @property
    def needs(self) -> Need:  # type: ignore[override]
        return {"in curvature": Need.GRADIENTS | Need.CURVATURE, "at once": Need.GRADIENTS}.get(
            self.where, Need.GRADIENTS | Need.EVALUATOR
        )

    def __call__(self, signals: Signals) -> Tensor:
        def build(rows: slice) -> Tensor:
            raise Stop

        match self.where:
            case "in inputs":
                signals.score_inputs(0, 3, build)
            case "in activations":
                signals.score_activations(0, 3, build)
            case "after guided":
                assert signals.guided_gradients.any()
            case "after a score":
                with torch.enable_grad():
                    assert signals.differentiable_scores(0, signals.inputs.clone().requires_grad_()).requires_grad
        raise Stop


class Bad(Variant):
    """A variant that cannot be made."""

    def __call__(self, inputs: Tensor) -> Tensor:
        raise Stop


@dataclass(frozen=True)
class RaisesLater(VariantMethod):
    """Raises after the first variant, or with a variant that cannot be made."""

    bad: bool = False
    needs = Need.GRADIENTS | Need.EVALUATOR

    def passes(self, signals: Signals) -> Generator[Variant, Signals, Tensor]:
        from seewhy.methods.variants import ScaledInputs

        yield Bad() if self.bad else ScaledInputs(0.5)
        raise Stop


@dataclass(frozen=True)
class RaisesForAll(NetworkMethod):
    """Raises while biases are recorded."""

    def __call__(self, signals: ModelSignals) -> Tensor:
        def consume(bias: Tensor, gradient: Tensor) -> None:
            raise Stop

        return signals.visit_biases(consume)


def stopping(output: Tensor) -> Tensor:
    """A target that answers the recorded forward only."""
    if not output.requires_grad:
        raise Stop
    return output[:, 0]


BREAKING: list[tuple[Any, Any]] = [
    *((Raises(where), 1) for where in ("at once", "in curvature", "in inputs", "in activations", "after guided")),
    (Raises("after a score"), 1), (RaisesLater(), 1), (RaisesLater(bad=True), 1), (RaisesForAll(), 1),
    ("ablationcam", stopping),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target"), BREAKING, ids=stable_id)
@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_is_left_of_a_method_that_raised(method: Any, target: Any, frozen: bool) -> None:
    """No hook, no gradient, no changed mode: the model trains on as if nothing had been asked."""
    net, inputs, _ = stage("gradcam")
    net.train()
    net.second.eval()
    net.first.weight.grad = torch.ones_like(net.first.weight)
    net.second.requires_grad_(not frozen)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    dicts = {name: set(module.__dict__) for name, module in net.named_modules()}
    with pytest.raises(Stop):
        explained(net, inputs, ["gradcam", method, "smooth(samples=2)"], ["first", "second"], target)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    for name, module in net.named_modules():
        assert module.training == (name != "second")
        assert not any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks))
        assert set(module.__dict__) == dicts[name]
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad == (not (frozen and name.startswith("second")))
        assert (parameter.grad is None) == (name != "first.weight")
    assert bool((net.first.weight.grad == 1).all())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    alike(explained(net, inputs, "gradcam", ["first", "end"]), as_it_is("gradcam"), 1e-12)
