"""Methods of one layer with settings, their references, and the networks on which the two are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import pytest
import torch
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
from support import reference as base_formulas
from support import reference_methods as ref
from support import reference_wrappers as wrappers
from support.networks import Conv1dNet, Conv3dNet, FlattenNet, InplaceNet, SkipOfInplaceNet, TwiceNet, tiny_network
from support.reference_image import (
    Map,
    ReferenceImage,
    formula_map,
)


class PooledNet(nn.Module):
    """A network with ReLU modules and mean pooling for any input size. Channel 2 of the middle layer is constant."""

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


# Small layers, for references with a loop over n or K n values.
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
    """A method with settings, its reference, and the networks and layers to compare."""

    method: Method
    reference: Map
    nets: tuple[type[nn.Module], ...] = ALL
    layers: Mapping[type[nn.Module], tuple[str, ...]] = field(default_factory=lambda: LAYERS)
    tolerance: float = 1e-9


def map_from_formula(name: str) -> Map:
    return formula_map(base_formulas.FORMULAS[name])


def formula_with_settings(function: Callable[..., np.ndarray], **settings: object) -> Map:
    """Return the reference of a formula of A and G with settings."""
    return formula_map(partial(function, **settings))


def cases() -> Iterator[Case]:
    gradcam, layercam, plusplus, hirescam = map(map_from_formula, ("gradcam", "layercam", "gradcam++", "hirescam"))
    # gradient
    for gamma in (0.5, 2.0):
        yield Case(LayerCAM(gamma=gamma), formula_with_settings(ref.layercam_scaled, gamma=gamma))
    yield Case(GradCAMPlusPlus(), plusplus)
    yield Case(GradCAMPlusPlus(alphas="normalized"), formula_map(ref.gradcam_plusplus_normalized))
    for centered in (True, False):
        yield Case(EigenGradCAM(centered=centered), formula_with_settings(ref.eigengradcam, centered=centered))
        yield Case(SegEigenCAM(centered=centered), formula_with_settings(ref.segeigencam, centered=centered))
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
        yield Case(EigenCAM(centered=centered), formula_with_settings(ref.eigencam, centered=centered))
    yield Case(KPCACAM(), formula_map(ref.kpcacam), tuple(SMALL), SMALL)
    for kernel in ("rbf", "poly", "linear", "cosine"):
        yield Case(KPCACAM(kernel=kernel), formula_with_settings(ref.kpcacam, kernel=kernel), SHORT, SMALL)
    yield Case(KPCACAM(gamma=0.5, coef0=-0.2), formula_with_settings(ref.kpcacam, gamma=0.5, coef0=-0.2), SHORT, SMALL)
    yield Case(KPCACAM("poly", degree=2), formula_with_settings(ref.kpcacam, kernel="poly", degree=2), SHORT, SMALL)
    yield Case(FEM(), formula_map(ref.fem))
    yield Case(FEM(k=0.5), formula_with_settings(ref.fem, k=0.5))
    yield Case(LaFAM(), formula_map(ref.lafam))
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
    # Adam divides a gradient by its absolute value; for a constant channel it amplifies rounding (1e-17 / 1e-8, 50 steps).
    yield Case(OptiCAM(), ref.opticam, tolerance=1e-6)
    yield Case(OptiCAM(steps=5, lr=0.5), partial(ref.opticam, steps=5, lr=0.5), PLANE, tolerance=1e-6)
    # ablation
    yield Case(AblationCAM(), ref.ablationcam)
    yield Case(AblationCAM(batch_size=4), ref.ablationcam)
    for kernel in ("point", "gaussian"):
        for score in ("probability", "logit"):
            yield Case(ReciproCAM(kernel=kernel, score=score), partial(ref.reciprocam, kernel=kernel, score=score))
    # wrappers
    yield Case(Smooth(LayerCAM()), partial(wrappers.smooth, base=layercam))
    yield Case(Smooth(GradCAM(), 5, 0.4, 3), partial(wrappers.smooth, base=gradcam, samples=5, sigma=0.4, seed=3))
    yield Case(Smooth(EigenCAM(), samples=3), partial(wrappers.smooth, base=formula_map(ref.eigencam), samples=3))
    yield Case(Smooth(ScoreCAM(), samples=2), partial(wrappers.smooth, base=ref.scorecam, samples=2), PLANE)
    yield Case(SmoothGradCAMPlusPlus(), wrappers.smooth_gradcam_plusplus)
    other = {"samples": 4, "sigma": 0.3, "seed": 2}
    yield Case(SmoothGradCAMPlusPlus(**other), partial(wrappers.smooth_gradcam_plusplus, **other))
    yield Case(Integrated(), partial(wrappers.integrated, base=base_formulas.gradcam))
    for rectified in (True, False):
        yield Case(
            Integrated(steps=7, rectified=rectified, difference=True),
            partial(wrappers.integrated, base=base_formulas.gradcam, steps=7, rectified=rectified, difference=True),
        )
    yield Case(
        Integrated(HiResCAM(), rectified=False),
        partial(wrappers.integrated, base=base_formulas.hirescam, rectified=False),
    )
    yield Case(
        Integrated(LayerCAM(), difference=True),
        partial(wrappers.integrated, base=base_formulas.layercam, difference=True),
    )
    yield Case(Augmented(LayerCAM()), partial(wrappers.augmented, base=layercam))
    yield Case(Augmented(HiResCAM(), flip=False), partial(wrappers.augmented, base=hirescam, flip=False))
    yield Case(
        Augmented(GradCAM(), factors=(0.5, 2.0), sizes=(1.0, 1.4, 2.2)),
        partial(wrappers.augmented, base=gradcam, factors=(0.5, 2.0), sizes=(1.0, 1.4, 2.2)),
        ANY_SIZE,
    )
    yield Case(Smooth(FinerCAM(), samples=2), partial(wrappers.smooth, base=finer, samples=2), ANY_SIZE)
    yield Case(Smooth(ShapleyCAM(), samples=2), partial(wrappers.smooth, base=ref.shapleycam, samples=2), (FlattenNet,))
    yield Case(Augmented(ScoreCAM()), partial(wrappers.augmented, base=ref.scorecam), ANY_SIZE)
    bases = (GradCAM(), HiResCAM(), LayerCAM(), GradCAMPlusPlus(), XGradCAM(), GradCAMElementwise())
    for base in bases:
        yield Case(EigenSmooth(base), formula_with_settings(wrappers.eigensmooth, base=str(base)))
    yield Case(
        EigenSmooth(LayerCAM(), centered=False),
        formula_with_settings(wrappers.eigensmooth, base="layercam", centered=False),
    )
    yield Case(CAMERAS(), wrappers.cameras, ANY_SIZE)
    yield Case(CAMERAS(sizes=3, step=0.3), partial(wrappers.cameras, sizes=3, step=0.3), ANY_SIZE)
    yield Case(SESS(GradCAM()), partial(wrappers.sess, base=gradcam), (InplaceNet,), SMALL)
    settings = {"scales": 5, "step": 0.3, "discard": 0.4}
    yield Case(SESS(LayerCAM(), **settings), partial(wrappers.sess, base=layercam, **settings), (InplaceNet, PooledNet))


CASES = {str(case.method): case for case in cases()}


PAIRS = [pytest.param(case, kind, id=f"{name}-{kind.__name__}") for name, case in CASES.items() for kind in case.nets]


@cache
def network_with_references(kind: type[nn.Module]) -> tuple[nn.Module, Tensor, Tensor, tuple[ReferenceImage, ...]]:
    """Return a network, two images, their classes (top of the first, another of the second), and their references.

    The head is scaled, so that the probabilities of the five classes differ.
    """
    net, inputs = tiny_network(kind, dtype=torch.float64)
    with torch.no_grad():
        net.head.weight *= 2 / (net(inputs) - net.head.bias).std()
        first, second = net(inputs).argsort(1, descending=True).tolist()
        classes = [first[0], next(c for c in second[1:] if c != first[0])]
    references = [ReferenceImage(net, inputs[i : i + 1], c) for i, c in enumerate(classes)]
    return net, inputs, torch.tensor(classes), tuple(references)


_expected_maps: dict[tuple[str, type[nn.Module]], dict[str, Tensor]] = {}


def expected_maps(case: Case, kind: type[nn.Module]) -> dict[str, Tensor]:
    """Return the reference maps (2, *grid) by layer."""
    key = str(case.method), kind
    if key not in _expected_maps:
        references = network_with_references(kind)[3]
        _expected_maps[key] = {
            layer: torch.from_numpy(np.stack([case.reference(image, layer) for image in references]))
            for layer in case.layers[kind]
        }
    return _expected_maps[key]


def peaks(maps: Tensor) -> Tensor:
    """Return the maximum absolute value of each map."""
    return maps.flatten(1).abs().amax(1)


def explain_case(method: Method, kind: type[nn.Module], layers: tuple[str, ...]) -> seewhy.Explanation:
    net, inputs, classes, _ = network_with_references(kind)
    return seewhy.explain(net, inputs, methods=[method], layers=list(layers), targets=ClassScore(classes))
