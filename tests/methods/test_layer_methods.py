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
    expected_maps,
    explain_case,
    network_with_references,
    peaks,
)
from support.networks import tiny_network
from support.reference_image import (
    Map,
    ReferenceImage,
    cells_by_channels,
    formula_map,
    relu,
)


@pytest.mark.parametrize("case, kind", PAIRS)
def test_maps_equal_the_reference(case: Case, kind: type[nn.Module]) -> None:
    explanation = explain_case(case.method, kind, case.layers[kind])
    wrong = {}
    for layer, maps in expected_maps(case, kind).items():
        actual = explanation.map(method=str(case.method), layer=layer)
        assert actual.dtype == torch.float64
        assert actual.shape == maps.shape, layer
        errors = peaks(actual - maps) / peaks(maps)
        if not bool((errors <= case.tolerance).all()):  # NaN fails as well
            wrong[layer] = errors.tolist()
    assert wrong == {}


@pytest.mark.parametrize("kind", ALL)
def test_all_methods_and_layers_in_one_call_equal_the_reference(kind: type[nn.Module]) -> None:
    """Passes and signals that methods and layers share change no map."""
    cases = [case for case in CASES.values() if kind in case.nets and not isinstance(case.method, CAM | SESS)]
    net, inputs, classes, _ = network_with_references(kind)
    methods = [case.method for case in cases]
    explanation = seewhy.explain(
        net, inputs, methods=methods, layers=list(LAYERS[kind]), targets=[ClassScore(int(c)) for c in classes]
    )
    wrong = {}
    for case in cases:
        for layer, maps in expected_maps(case, kind).items():
            for index, c in enumerate(classes.tolist()):
                if layer not in LAYERS[kind]:
                    continue
                actual = explanation.map(method=str(case.method), layer=layer, target=str(c))[index]
                errors = float((actual - maps[index]).abs().max() / maps[index].abs().max())
                if not errors <= case.tolerance:
                    wrong[str(case.method), layer, c] = errors
    assert wrong == {}


@pytest.mark.parametrize("kind", ALL)
def test_randomcam_weights_depend_only_on_the_seed(kind: type[nn.Module]) -> None:
    """Weights recovered by least squares: one in (-1, 1) per channel, equal for all images."""
    actual = {}
    for method in (RandomCAM(), RandomCAM(seed=1)):
        explanation = explain_case(method, kind, LAYERS[kind])
        for layer in LAYERS[kind]:
            maps, references = explanation.map(method=str(method), layer=layer), network_with_references(kind)[3]
            cells = np.concatenate([cells_by_channels(image.a(layer)) for image in references])
            weights, *_ = np.linalg.lstsq(cells, maps.flatten().numpy(), rcond=None)
            assert np.abs(cells @ weights - maps.flatten().numpy()).max() < 1e-10
            assert np.abs(weights).max() < 1
            assert np.abs(weights).max() > 0.3
            actual[str(method), layer] = weights
    for layer in LAYERS[kind]:
        assert np.abs(actual[str(RandomCAM()), layer] - actual[str(RandomCAM(seed=1)), layer]).max() > 0.1


@pytest.mark.parametrize("kind", ALL)
def test_single_concept_is_the_first_singular_vector(kind: type[nn.Module]) -> None:
    """The best rank-1 factorization of a nonnegative matrix does not depend on the initial values."""
    method = DeepFeatureFactorization(concepts=1)
    explanation = explain_case(method, kind, LAYERS[kind])
    for layer in LAYERS[kind]:
        actual = explanation.map(method=f"{method}#1", layer=layer)
        for image, one in zip(network_with_references(kind)[3], actual, strict=True):
            u, s, _ = np.linalg.svd(cells_by_channels(relu(image.a(layer))), full_matrices=False)
            # W precedes the last update of H, so it lags by one step: an error of 1e-9 after 200 steps of s2 / s1.
            np.testing.assert_allclose(one.flatten().numpy(), np.abs(s[0] * u[:, 0]), rtol=0, atol=1e-9 * s[0])


@pytest.mark.parametrize("kind", PLANE)
def test_concepts_are_a_converged_factorization(kind: type[nn.Module]) -> None:
    """After many updates one more changes nothing; the maps have the units of A, with the largest first."""
    method = DeepFeatureFactorization(concepts=3, iterations=3000)
    explanation = explain_case(method, kind, LAYERS[kind])
    for layer in LAYERS[kind]:
        actual = torch.stack([explanation.map(method=f"{method}#{j}", layer=layer) for j in (1, 2, 3)], 1)
        for image, maps in zip(network_with_references(kind)[3], actual.flatten(2).numpy(), strict=True):
            v = cells_by_channels(relu(image.a(layer)))
            sizes = np.linalg.norm(maps, axis=1)
            assert (maps >= 0).all()
            assert (np.diff(sizes) <= 0).all()
            assert sizes.min() > 1e-2 * sizes.max()
            w, h = maps.T.copy(), np.full((3, v.shape[1]), 0.5)
            for _ in range(3000):  # solve for the H of these maps
                h = h * (w.T @ v) / np.maximum(w.T @ w @ h, 1e-300)
            np.testing.assert_allclose(np.linalg.norm(h, axis=1), 1, rtol=1e-2)
            again, _ = ref.factorized(v, w, h, 1)
            assert np.linalg.norm(again - w) < 1e-2 * np.linalg.norm(w)
            assert np.linalg.norm(v - w @ h) < 0.75 * np.linalg.norm(v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "method, reference",
    [(FEM(), formula_map(ref.fem)), *((ScoreCAM(v), partial(ref.scorecam, variant=v)) for v in ("authors", "gradcam"))],
    ids=["fem", "scorecam", "scorecam(variant=gradcam)"],
)
def test_constant_channel_at_values_that_round(method: Method, reference: Map, dtype: torch.dtype) -> None:
    """Rounding may make the mean and the interpolation of equal numbers differ from the number."""
    net, inputs = tiny_network(PooledNet, dtype=torch.float64)
    for value in (0.15, 0.3, 0.35, 0.5, 0.7, 0.9):
        with torch.no_grad():
            net.middle.bias[2] = value
        cast = copy.deepcopy(net).to(dtype)
        score_function = partial(seewhy.explain, cast, methods=[method], layers=["middle"], targets=ClassScore(1))
        actual = score_function(inputs.to(dtype)).map(method=str(method), layer="middle").double()
        for image, one in zip(inputs, actual, strict=True):
            there = torch.from_numpy(reference(ReferenceImage(net, image[None], 1), "middle"))
            assert float((one - there).abs().max() / there.abs().max()) < 1e-4, value


class BiasFreeNet(nn.Module):
    """A network without biases before the head: an image of zeros is zero at each layer."""

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
def test_layer_of_zeros_has_a_map_of_zeros(case: Case) -> None:
    """A layer of zeros has no evidence (0 / 0 in every mask); the other image of the batch keeps its map."""
    net, inputs = tiny_network(BiasFreeNet, dtype=torch.float64)
    inputs[0] = 0
    score_function = partial(seewhy.explain, net, methods=[case.method], layers=["last"])
    both = score_function(inputs, targets=ClassScore(torch.tensor([1, 3]))).map(method=str(case.method), layer="last")
    assert bool(both.isfinite().all())
    if isinstance(case.method, ReciproCAM):  # its map is a score, which includes the bias of the head
        assert float(both[0].max() - both[0].min()) < 1e-12
    elif not isinstance(case.method, Smooth | Integrated | Augmented | SmoothGradCAMPlusPlus | SESS | CAMERAS):
        assert not both[0].any()
    alone = score_function(inputs[1:], targets=ClassScore(3)).map(method=str(case.method), layer="last")[0]
    assert float(alone.abs().max()) > 0
    torch.testing.assert_close(both[1], alone, rtol=0, atol=1e-9 * float(alone.abs().max()))


def test_cam_after_a_relu() -> None:
    """CAM applies to the layer that enters the mean."""
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)]
    net, inputs = nn.Sequential(*parts).double().eval(), torch.randn(2, 3, 9, 8, dtype=torch.float64)
    classes = torch.tensor([1, 3])
    explanation = seewhy.explain(net, inputs, methods=[CAM()], layers=["1"], targets=ClassScore(classes))
    maps = torch.einsum("bk,bkhw->bhw", net[4].weight[classes], net[:2](inputs)).detach()
    torch.testing.assert_close(explanation.map(method="cam", layer="1"), maps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case, kind", PAIRS)
def test_every_map_is_far_from_zero(case: Case, kind: type[nn.Module]) -> None:
    for layer, maps in expected_maps(case, kind).items():
        assert bool(maps.isfinite().all()), layer
        assert float(peaks(maps).min()) > 1e-6, layer
        assert float((maps[0] - maps[1]).abs().max()) > 1e-6, f"{layer}: both images have the same map"


def test_every_setting_changes_the_map() -> None:
    """No two settings of a method have the same maps, so no setting is ignored."""
    for one, other in combinations(CASES.values(), 2):
        if type(one.method) is not type(other.method) or "batch_size" in f"{one.method}{other.method}":
            continue
        errors = [
            float((peaks(maps - expected_maps(other, kind)[layer]) / peaks(maps)).max())
            for kind in set(one.nets) & set(other.nets)
            for layer, maps in expected_maps(one, kind).items()
            if layer in expected_maps(other, kind)
        ]
        assert max(errors, default=1.0) > 1e-4, (str(one.method), str(other.method))
