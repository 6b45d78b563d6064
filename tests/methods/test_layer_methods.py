"""Methods of one layer, compared with independent float64 references.

Two images of different classes share a batch; the reference processes each alone. The networks are small and cover
what has caused errors: in-place operations, a layer that is called twice, one and three axes, a constant channel.
"""

from __future__ import annotations

import copy
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.methods import (
    CAM,
    CAMERAS,
    FEM,
    SESS,
    Augmented,
    DeepFeatureFactorization,
    Integrated,
    RandomCAM,
    ReciproCAM,
    ScoreCAM,
    Smooth,
    SmoothGradCAMPlusPlus,
)
from seewhy.methods.base import Method
from seewhy.targets import ClassScore
from support import reference_methods as ref
from support.layer_method_cases import (
    ALL,
    CASES,
    LAYERS,
    PAIRS,
    PLANE,
    Case,
    PooledNet,
    built,
    expected,
    explained,
    peaks,
)
from support.networks import tiny_network
from support.reference_methods import Map, ReferenceImage, of


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
