"""Every method of one layer that needs more than one run, or more than a sum over channels: equal to the slow reference.

Two images of different classes in one batch; the reference takes each alone. The nets are small, but of every kind
that has caught an error: in-place operations, a layer called twice, one and three axes, a channel that never changes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.methods import (
    CAM,
    CAMERAS,
    FEM,
    ISCAM,
    KPCACAM,
    SESS,
    SSCAM,
    AblationCAM,
    Augmented,
    DeepFeatureFactorization,
    EigenCAM,
    EigenGradCAM,
    EigenSmooth,
    FinerCAM,
    GradCAM,
    GradCAMElementwise,
    GradCAMPlusPlus,
    GroupCAM,
    GuidedGradCAM,
    HiResCAM,
    Integrated,
    LaFAM,
    LayerCAM,
    OptiCAM,
    RandomCAM,
    ReciproCAM,
    ScoreCAM,
    SegEigenCAM,
    ShapleyCAM,
    Smooth,
    SmoothGradCAMPlusPlus,
    XGradCAM,
)
from seewhy.methods.base import Method
from seewhy.targets import ClassScore
from support import reference as slow
from support import reference_methods as ref
from support.networks import Conv1dNet, Conv3dNet, FlattenNet, InplaceNet, SkipOfInplaceNet, TwiceNet, tiny_network
from support.reference_methods import Map, ReferenceImage, of


class PooledNet(nn.Module):
    """Any size of input, ReLU modules, and a mean before the head. Channel 2 of the middle layer never changes."""

    shape = (3, 13, 10)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.middle = nn.Conv2d(6, 7, 3, stride=2, padding=1)
        self.again = nn.ReLU()
        self.last = nn.Conv2d(7, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.middle.weight[2] = 0
            self.middle.bias[2] = 0.3

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        return self.head(self.last(self.again(self.middle(x))).mean((2, 3)))


LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    InplaceNet: ("second", "fourth"),
    SkipOfInplaceNet: ("first", "second"),
    TwiceNet: ("twice#1", "last"),
    FlattenNet: ("conv",),
    Conv1dNet: ("first", "second"),
    Conv3dNet: ("second",),
    PooledNet: ("first", "middle", "last"),
}
ALL = tuple(LAYERS)
# Where n cells or K n of them make the reference slow.
SMALL: dict[type[nn.Module], tuple[str, ...]] = {
    InplaceNet: ("third", "fourth"),
    TwiceNet: ("last",),
    FlattenNet: ("conv",),
    Conv1dNet: ("first", "second"),
    Conv3dNet: ("second",),
    PooledNet: ("middle", "last"),
}
SHORT = (Conv1dNet, PooledNet)
PLANE = (InplaceNet, FlattenNet, PooledNet)
ANY_SIZE = (PooledNet,)
MODULES = (SkipOfInplaceNet, PooledNet)  # every ReLU is an nn.ReLU


@dataclass(frozen=True)
class Case:
    """A method with settings, what the reference says of it, and on which nets."""

    method: Method
    reference: Map
    nets: tuple[type[nn.Module], ...] = ALL
    layers: Mapping[type[nn.Module], tuple[str, ...]] = field(default_factory=lambda: LAYERS)
    tolerance: float = 1e-9


def formula(name: str) -> Map:
    return of(slow.FORMULAS[name])


def fixed(function: Callable[..., np.ndarray], **settings: object) -> Map:
    """A formula of A and G with settings."""
    return of(partial(function, **settings))


def cases() -> Iterator[Case]:
    gradcam, layercam, plusplus, hirescam = map(formula, ("gradcam", "layercam", "gradcam++", "hirescam"))
    # gradient
    for gamma in (0.5, 2.0):
        yield Case(LayerCAM(gamma=gamma), fixed(ref.layercam_scaled, gamma=gamma))
    yield Case(GradCAMPlusPlus(), plusplus)
    yield Case(GradCAMPlusPlus(alphas="normalized"), of(ref.gradcam_plusplus_normalized))
    for centered in (True, False):
        yield Case(EigenGradCAM(centered=centered), fixed(ref.eigengradcam, centered=centered))
        yield Case(SegEigenCAM(centered=centered), fixed(ref.segeigencam, centered=centered))
    for variant in ("mean", "elementwise", "hires"):
        yield Case(ShapleyCAM(variant=variant), partial(ref.shapleycam, variant=variant), tuple(SMALL), SMALL)
    yield Case(FinerCAM(), partial(ref.finercam, base=gradcam))
    yield Case(FinerCAM(references=1, gamma=1.0), partial(ref.finercam, base=gradcam, references=1, gamma=1.0))
    yield Case(FinerCAM(LayerCAM()), partial(ref.finercam, base=layercam))
    yield Case(FinerCAM(GradCAMPlusPlus(), references=4), partial(ref.finercam, base=plusplus, references=4))
    yield Case(GuidedGradCAM(), partial(ref.guided_gradcam, base=gradcam), MODULES)
    yield Case(GuidedGradCAM(LayerCAM()), partial(ref.guided_gradcam, base=layercam), MODULES)
    finer = partial(ref.finercam, base=gradcam)
    yield Case(GuidedGradCAM(FinerCAM()), partial(ref.guided_gradcam, base=finer), ANY_SIZE)
    yield Case(GuidedGradCAM(ShapleyCAM()), partial(ref.guided_gradcam, base=ref.shapleycam), ANY_SIZE, SMALL)
    # activation
    yield Case(CAM(), partial(ref.cam, head="head"), (PooledNet,), {PooledNet: ("last",)})
    for centered in (True, False):
        yield Case(EigenCAM(centered=centered), fixed(ref.eigencam, centered=centered))
    yield Case(KPCACAM(), of(ref.kpcacam), tuple(SMALL), SMALL)
    for kernel in ("rbf", "poly", "linear", "cosine"):
        yield Case(KPCACAM(kernel=kernel), fixed(ref.kpcacam, kernel=kernel), SHORT, SMALL)
    yield Case(KPCACAM(gamma=0.5, coef0=-0.2), fixed(ref.kpcacam, gamma=0.5, coef0=-0.2), SHORT, SMALL)
    yield Case(KPCACAM("poly", degree=2), fixed(ref.kpcacam, kernel="poly", degree=2), SHORT, SMALL)
    yield Case(FEM(), of(ref.fem))
    yield Case(FEM(k=0.5), fixed(ref.fem, k=0.5))
    yield Case(LaFAM(), of(ref.lafam))
    # masking
    for variant in ("authors", "paper", "gradcam", "torchcam"):
        yield Case(ScoreCAM(variant=variant), partial(ref.scorecam, variant=variant))
    yield Case(ScoreCAM(batch_size=3), ref.scorecam)
    yield Case(SSCAM(samples=7), partial(ref.sscam, samples=7))
    yield Case(SSCAM(samples=7, on="map"), partial(ref.sscam, samples=7, on="map"))
    yield Case(SSCAM(samples=4, seed=5, sigma=1.0), partial(ref.sscam, samples=4, seed=5, sigma=1.0))
    yield Case(SSCAM(), ref.sscam, (FlattenNet,))
    yield Case(ISCAM(), ref.iscam)
    yield Case(ISCAM(schedule="cumulative"), partial(ref.iscam, schedule="cumulative"), PLANE)
    yield Case(ISCAM(steps=4), partial(ref.iscam, steps=4))
    yield Case(GroupCAM(), ref.groupcam)
    yield Case(GroupCAM(groups=3), partial(ref.groupcam, groups=3))
    yield Case(GroupCAM(groups=3, percentile=None), partial(ref.groupcam, groups=3, percentile=None))
    small = {"groups": 4, "percentile": 35.0, "blur": 5, "sigma": 2.0}
    yield Case(GroupCAM(**small), partial(ref.groupcam, **small))
    # Adam divides a slope by its own size: that of a constant channel is rounding (1e-17) over Adam's 1e-8, 50 times.
    yield Case(OptiCAM(), ref.opticam, tolerance=1e-6)
    yield Case(OptiCAM(steps=5, lr=0.5), partial(ref.opticam, steps=5, lr=0.5), PLANE, tolerance=1e-6)
    # ablation
    yield Case(AblationCAM(), ref.ablationcam)
    yield Case(AblationCAM(batch_size=4), ref.ablationcam)
    for kernel in ("point", "gaussian"):
        for score in ("probability", "logit"):
            yield Case(ReciproCAM(kernel=kernel, score=score), partial(ref.reciprocam, kernel=kernel, score=score))
    # wrappers
    yield Case(Smooth(LayerCAM()), partial(ref.smooth, base=layercam))
    yield Case(Smooth(GradCAM(), 5, 0.4, 3), partial(ref.smooth, base=gradcam, samples=5, sigma=0.4, seed=3))
    yield Case(Smooth(EigenCAM(), samples=3), partial(ref.smooth, base=of(ref.eigencam), samples=3))
    yield Case(Smooth(ScoreCAM(), samples=2), partial(ref.smooth, base=ref.scorecam, samples=2), PLANE)
    yield Case(SmoothGradCAMPlusPlus(), ref.smooth_gradcam_plusplus)
    other = {"samples": 4, "sigma": 0.3, "seed": 2}
    yield Case(SmoothGradCAMPlusPlus(**other), partial(ref.smooth_gradcam_plusplus, **other))
    yield Case(Integrated(), partial(ref.integrated, base=slow.gradcam))
    for rectified in (True, False):
        yield Case(
            Integrated(steps=7, rectified=rectified, difference=True),
            partial(ref.integrated, base=slow.gradcam, steps=7, rectified=rectified, difference=True),
        )
    yield Case(Integrated(HiResCAM(), rectified=False), partial(ref.integrated, base=slow.hirescam, rectified=False))
    yield Case(Integrated(LayerCAM(), difference=True), partial(ref.integrated, base=slow.layercam, difference=True))
    yield Case(Augmented(LayerCAM()), partial(ref.augmented, base=layercam))
    yield Case(Augmented(HiResCAM(), flip=False), partial(ref.augmented, base=hirescam, flip=False))
    yield Case(
        Augmented(GradCAM(), factors=(0.5, 2.0), sizes=(1.0, 1.4, 2.2)),
        partial(ref.augmented, base=gradcam, factors=(0.5, 2.0), sizes=(1.0, 1.4, 2.2)),
        ANY_SIZE,
    )
    yield Case(Smooth(FinerCAM(), samples=2), partial(ref.smooth, base=finer, samples=2), ANY_SIZE)
    yield Case(Smooth(ShapleyCAM(), samples=2), partial(ref.smooth, base=ref.shapleycam, samples=2), (FlattenNet,))
    yield Case(Augmented(ScoreCAM()), partial(ref.augmented, base=ref.scorecam), ANY_SIZE)
    bases = (GradCAM(), HiResCAM(), LayerCAM(), GradCAMPlusPlus(), XGradCAM(), GradCAMElementwise())
    for base in bases:
        yield Case(EigenSmooth(base), fixed(ref.eigensmooth, base=str(base)))
    yield Case(EigenSmooth(LayerCAM(), centered=False), fixed(ref.eigensmooth, base="layercam", centered=False))
    yield Case(CAMERAS(), ref.cameras, ANY_SIZE)
    yield Case(CAMERAS(sizes=3, step=0.3), partial(ref.cameras, sizes=3, step=0.3), ANY_SIZE)
    yield Case(SESS(GradCAM()), partial(ref.sess, base=gradcam), (InplaceNet,), SMALL)
    settings = {"scales": 5, "step": 0.3, "discard": 0.4}
    yield Case(SESS(LayerCAM(), **settings), partial(ref.sess, base=layercam, **settings), (InplaceNet, PooledNet))


CASES = {str(case.method): case for case in cases()}
PAIRS = [pytest.param(case, kind, id=f"{name}-{kind.__name__}") for name, case in CASES.items() for kind in case.nets]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Many tiny runs: handing each to threads costs more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def built(kind: type[nn.Module]) -> tuple[nn.Module, Tensor, Tensor, tuple[ReferenceImage, ...]]:
    """A net, two images, their classes (the first of one, another of the other), and each for the reference.

    The head is made louder: so that probabilities are far from a fifth, and differ.
    """
    net, inputs = tiny_network(kind, dtype=torch.float64)
    with torch.no_grad():
        net.head.weight *= 2 / (net(inputs) - net.head.bias).std()
        first, second = net(inputs).argsort(1, descending=True).tolist()
        classes = [first[0], next(c for c in second[1:] if c != first[0])]
    pictures = [ReferenceImage(net, inputs[i : i + 1], c) for i, c in enumerate(classes)]
    return net, inputs, torch.tensor(classes), tuple(pictures)


_expected: dict[tuple[str, type[nn.Module]], dict[str, Tensor]] = {}


def expected(case: Case, kind: type[nn.Module]) -> dict[str, Tensor]:
    """The reference's maps (2, *grid) by layer."""
    key = str(case.method), kind
    if key not in _expected:
        pictures = built(kind)[3]
        _expected[key] = {
            layer: torch.from_numpy(np.stack([case.reference(image, layer) for image in pictures]))
            for layer in case.layers[kind]
        }
    return _expected[key]


def peaks(maps: Tensor) -> Tensor:
    """The maximum absolute value of each image's map."""
    return maps.flatten(1).abs().amax(1)


def explained(method: Method, kind: type[nn.Module], layers: tuple[str, ...]) -> seewhy.Explanation:
    net, inputs, classes, _ = built(kind)
    return seewhy.explain(net, inputs, methods=[method], layers=list(layers), targets=ClassScore(classes))


# --- the library ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case, kind", PAIRS)
def test_maps_equal_the_reference(case: Case, kind: type[nn.Module]) -> None:
    explanation = explained(case.method, kind, case.layers[kind])
    wrong = {}
    for layer, maps in expected(case, kind).items():
        found = explanation.map(method=str(case.method), layer=layer)
        assert found.dtype == torch.float64
        assert found.shape == maps.shape, layer
        apart = peaks(found - maps) / peaks(maps)
        if not bool((apart <= case.tolerance).all()):  # so that NaN is wrong too
            wrong[layer] = apart.tolist()
    assert wrong == {}


@pytest.mark.parametrize("kind", ALL)
def test_all_methods_and_layers_together_are_each_alone(kind: type[nn.Module]) -> None:
    """One call for everything: what runs and signals are shared between methods and layers changes no map."""
    chosen = [case for case in CASES.values() if kind in case.nets and not isinstance(case.method, CAM | SESS)]
    net, inputs, classes, _ = built(kind)
    methods = [case.method for case in chosen]
    explanation = seewhy.explain(
        net, inputs, methods=methods, layers=list(LAYERS[kind]), targets=[ClassScore(int(c)) for c in classes]
    )
    wrong = {}
    for case in chosen:
        for layer, maps in expected(case, kind).items():
            for place, c in enumerate(classes.tolist()):
                if layer not in LAYERS[kind]:
                    continue
                found = explanation.map(method=str(case.method), layer=layer, target=str(c))[place]
                apart = float((found - maps[place]).abs().max() / maps[place].abs().max())
                if not apart <= case.tolerance:
                    wrong[str(case.method), layer, c] = apart
    assert wrong == {}


@pytest.mark.parametrize("kind", ALL)
def test_random_weights_are_those_of_the_seed(kind: type[nn.Module]) -> None:
    """One weight in (-1, 1) for each channel, the same for each image: had back from the map by least squares."""
    found = {}
    for method in (RandomCAM(), RandomCAM(seed=1)):
        explanation = explained(method, kind, LAYERS[kind])
        for layer in LAYERS[kind]:
            maps, pictures = explanation.map(method=str(method), layer=layer), built(kind)[3]
            cells = np.concatenate([ref.flat(image.a(layer)) for image in pictures])
            weights, *_ = np.linalg.lstsq(cells, maps.flatten().numpy(), rcond=None)
            assert np.abs(cells @ weights - maps.flatten().numpy()).max() < 1e-10
            assert np.abs(weights).max() < 1
            assert np.abs(weights).max() > 0.3
            found[str(method), layer] = weights
    for layer in LAYERS[kind]:
        assert np.abs(found[str(RandomCAM()), layer] - found[str(RandomCAM(seed=1)), layer]).max() > 0.1


@pytest.mark.parametrize("kind", ALL)
def test_one_concept_is_the_first_singular_vector(kind: type[nn.Module]) -> None:
    """The best factorisation of a matrix without negatives into one column and one row: no start matters."""
    method = DeepFeatureFactorization(concepts=1)
    explanation = explained(method, kind, LAYERS[kind])
    for layer in LAYERS[kind]:
        found = explanation.map(method=f"{method}#1", layer=layer)
        for image, one in zip(built(kind)[3], found, strict=True):
            u, s, _ = np.linalg.svd(ref.flat(ref.relu(image.a(layer))), full_matrices=False)
            # W is the one before the last update of H, so it lags by one step: 1e-9 after 200 steps of s2 / s1.
            np.testing.assert_allclose(one.flatten().numpy(), np.abs(s[0] * u[:, 0]), rtol=0, atol=1e-9 * s[0])


@pytest.mark.parametrize("kind", PLANE)
def test_concepts_are_a_factorisation_at_rest(kind: type[nn.Module]) -> None:
    """After many updates another one changes nothing; the maps come in the units of A, the largest first."""
    method = DeepFeatureFactorization(concepts=3, iterations=3000)
    explanation = explained(method, kind, LAYERS[kind])
    for layer in LAYERS[kind]:
        found = torch.stack([explanation.map(method=f"{method}#{j}", layer=layer) for j in (1, 2, 3)], 1)
        for image, maps in zip(built(kind)[3], found.flatten(2).numpy(), strict=True):
            v = ref.flat(ref.relu(image.a(layer)))
            sizes = np.linalg.norm(maps, axis=1)
            assert (maps >= 0).all()
            assert (np.diff(sizes) <= 0).all()
            assert sizes.min() > 1e-2 * sizes.max()
            w, h = maps.T.copy(), np.full((3, v.shape[1]), 0.5)
            for _ in range(3000):  # the H that belongs to these maps
                h = h * (w.T @ v) / np.maximum(w.T @ w @ h, 1e-300)
            np.testing.assert_allclose(np.linalg.norm(h, axis=1), 1, rtol=1e-2)
            again, _ = ref.factorized(v, w, h, 1)
            assert np.linalg.norm(again - w) < 1e-2 * np.linalg.norm(w)
            assert np.linalg.norm(v - w @ h) < 0.75 * np.linalg.norm(v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "method, reference",
    [(FEM(), of(ref.fem)), *((ScoreCAM(v), partial(ref.scorecam, variant=v)) for v in ("authors", "gradcam"))],
    ids=["fem", "scorecam", "scorecam(variant=gradcam)"],
)
def test_a_constant_channel_is_constant_at_any_value(method: Method, reference: Map, dtype: torch.dtype) -> None:
    """The mean of equal numbers is not always that number, nor is what lies between two of them."""
    net, inputs = tiny_network(PooledNet, dtype=torch.float64)
    for value in (0.15, 0.3, 0.35, 0.5, 0.7, 0.9):
        with torch.no_grad():
            net.middle.bias[2] = value
        cast = copy.deepcopy(net).to(dtype)
        score_function = partial(seewhy.explain, cast, methods=[method], layers=["middle"], targets=ClassScore(1))
        found = score_function(inputs.to(dtype)).map(method=str(method), layer="middle").double()
        for image, one in zip(inputs, found, strict=True):
            there = torch.from_numpy(reference(ReferenceImage(net, image[None], 1), "middle"))
            assert float((one - there).abs().max() / there.abs().max()) < 1e-4, value


class SilentNet(nn.Module):
    """Without a bias: a image of zeros is zeros at each layer."""

    shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(4, 5, 3, padding=1, bias=False)
        self.head = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.relu(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_layer_of_zeros_has_a_map_of_zeros(case: Case) -> None:
    """No channel that says anything, 0 / 0 in every mask; the other image of the batch keeps its own map."""
    net, inputs = tiny_network(SilentNet, dtype=torch.float64)
    inputs[0] = 0
    score_function = partial(seewhy.explain, net, methods=[case.method], layers=["last"])
    both = score_function(inputs, targets=ClassScore(torch.tensor([1, 3]))).map(method=str(case.method), layer="last")
    assert bool(both.isfinite().all())
    if isinstance(case.method, ReciproCAM):  # its map is a score, which the head's bias has without any cell
        assert float(both[0].max() - both[0].min()) < 1e-12
    elif not isinstance(case.method, Smooth | Integrated | Augmented | SmoothGradCAMPlusPlus | SESS | CAMERAS):
        assert not both[0].any()
    alone = score_function(inputs[1:], targets=ClassScore(3)).map(method=str(case.method), layer="last")[0]
    assert float(alone.abs().max()) > 0
    torch.testing.assert_close(both[1], alone, rtol=0, atol=1e-9 * float(alone.abs().max()))


def test_cam_at_a_rectified_layer() -> None:
    """Where CAM belongs: at what enters the mean."""
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)]
    net, inputs = nn.Sequential(*parts).double().eval(), torch.randn(2, 3, 9, 8, dtype=torch.float64)
    classes = torch.tensor([1, 3])
    explanation = seewhy.explain(net, inputs, methods=[CAM()], layers=["1"], targets=ClassScore(classes))
    maps = torch.einsum("bk,bkhw->bhw", net[4].weight[classes], net[:2](inputs)).detach()
    torch.testing.assert_close(explanation.map(method="cam", layer="1"), maps, rtol=1e-12, atol=1e-12)


# --- the cases: what is compared is worth comparing -------------------------------------------------------------------


@pytest.mark.parametrize("case, kind", PAIRS)
def test_every_map_is_far_from_zero(case: Case, kind: type[nn.Module]) -> None:
    for layer, maps in expected(case, kind).items():
        assert bool(maps.isfinite().all()), layer
        assert float(peaks(maps).min()) > 1e-6, layer
        assert float((maps[0] - maps[1]).abs().max()) > 1e-6, f"{layer}: both pictures have one map"


def test_settings_matter() -> None:
    """No two settings of a method have the same maps: a setting that is not heeded is seen."""
    for one, other in combinations(CASES.values(), 2):
        if type(one.method) is not type(other.method) or "batch_size" in f"{one.method}{other.method}":
            continue
        apart = [
            float((peaks(maps - expected(other, kind)[layer]) / peaks(maps)).max())
            for kind in set(one.nets) & set(other.nets)
            for layer, maps in expected(one, kind).items()
            if layer in expected(other, kind)
        ]
        assert max(apart, default=1.0) > 1e-4, (str(one.method), str(other.method))


# --- the reference: checked alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(12, 9), (5, 7), (3, 20), (4, 4)])
@pytest.mark.parametrize("corners", [False, True])
def test_the_reference_resizes_as_torch(size: tuple[int, int], corners: bool) -> None:
    values = torch.randn(3, 5, 7, dtype=torch.float64)
    there = F.interpolate(values[None], size, mode="bilinear", align_corners=corners)[0]
    torch.testing.assert_close(ref.resize(values, size, corners), there, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", [InplaceNet, TwiceNet, PooledNet])
def test_the_reference_hessian_is_a_slope_of_gradients(kind: type[nn.Module]) -> None:
    for layer in SMALL[kind]:
        image, step = built(kind)[3][0], 1e-5
        slopes = []
        for sign in (1, -1):
            leaf = (image.activation(layer) * (1 + sign * step)).requires_grad_()
            slopes.append(torch.autograd.grad(image.with_score(ref.rest).tail(layer, leaf).sum(), leaf)[0][0].numpy())
        found, there = ref.hessian_times_a(image, layer), (slopes[0] - slopes[1]) / (2 * step)
        np.testing.assert_allclose(found, there, rtol=0, atol=1e-7 * np.abs(found).max())


def test_the_reference_knows_the_closed_forms_before_a_mean() -> None:
    """METHODS 2.5, 2.6: with logits Ablation-CAM is W Abar / y and Recipro-CAM is b + CAM / n."""
    net, _, _, pictures = built(PooledNet)
    for image in pictures:
        a, weight, bias = image.a("last"), net.head.weight[image.c].tolist(), net.head.bias[image.c].item()
        cam, count = ref.cam(image, "last", "head"), a[0].size
        y = image.run(image.x)
        ablated = ref.weighted([w * channel.mean() / y for w, channel in zip(weight, a, strict=True)], a)
        np.testing.assert_allclose(ref.ablationcam(image, "last"), ablated, rtol=0, atol=1e-12)
        found = ref.reciprocam(image, "last", score="logit")
        np.testing.assert_allclose(found, bias + cam / count, rtol=0, atol=1e-12)


def test_wrappers_that_change_nothing_are_the_base() -> None:
    for image in built(InplaceNet)[3]:
        for base in map(formula, slow.METHODS):
            there = base(image, "second")
            for found in (
                ref.smooth(image, "second", base, samples=2, sigma=0.0),
                ref.augmented(image, "second", base, flip=False, factors=(1.0,)),
                ref.finercam(image, "second", base, gamma=0.0),
            ):
                np.testing.assert_allclose(found, there, rtol=0, atol=1e-12 * np.abs(there).max())
