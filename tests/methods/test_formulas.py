"""The methods of `FORMULAS` at every convolution of torchvision and tiny networks, compared with float64 references."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.explanation.result import Explanation
from seewhy.targets import ClassScore
from support.networks import TINY_NETWORKS, TORCHVISION_NAMES, SkipOfInplaceNet, calibrated_network, tiny_network
from support.reference import METHODS, ReferenceNetwork, logits_of

KINDS = {kind.__name__: kind for kind in TINY_NETWORKS}


@dataclass(frozen=True)
class Case:
    """A network, its explanation by the library, and the maps of the reference by layer and method."""

    net: nn.Module
    inputs: Tensor
    reference_network: ReferenceNetwork
    explanation: Explanation
    reference: dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module", params=[*TORCHVISION_NAMES, *KINDS])
def case(request: pytest.FixtureRequest) -> Case:
    name = request.param
    build = (
        tiny_network(KINDS[name], dtype=torch.float64)
        if name in KINDS
        else calibrated_network(name, dtype=torch.float64)
    )
    net, inputs = build
    with torch.no_grad():
        classes = logits_of(net(inputs)).argmax(1)
    reference_network = ReferenceNetwork(net, inputs, classes)
    explanation = seewhy.explain(net, inputs, methods=list(METHODS), layers="every", targets=ClassScore(classes))
    return Case(
        net,
        inputs,
        reference_network,
        explanation,
        {layer: reference_network.maps(layer) for layer in reference_network.layers},
    )


# --- Library ----------------------------------------------------------------------------------------------------------


def test_layers_are_all_convolutions_with_a_grid(case: Case) -> None:
    assert case.explanation.layers == case.reference_network.layers


@pytest.mark.parametrize("method", METHODS)
def test_maps_equal_the_reference(case: Case, method: str) -> None:
    wrong = {}
    for layer, maps in case.reference.items():
        expected, actual = maps[method], case.explanation.map(method=method, layer=layer)
        assert actual.dtype == torch.float64
        assert actual.shape == expected.shape, layer
        errors = peaks(actual - expected) / peaks(expected)
        if not bool((errors <= 1e-9).all()):  # NaN fails as well
            wrong[layer] = errors.tolist()
    assert wrong == {}


# --- Reference maps are suitable for a comparison ---------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_map_is_far_from_zero(case: Case, method: str) -> None:
    assert len(case.reference) > 0
    for layer, maps in case.reference.items():
        assert float(peaks(maps[method]).min()) > 1e-6, layer
        assert float(maps[method].max()) > 1e-6, f"{layer}: no positive evidence for the class in any image"


def test_denominators_are_far_from_zero(case: Case) -> None:
    """Grad-CAM++ divides by 2 + g S and XGrad-CAM by S: below 1e-6 they amplify rounding beyond the tolerance of 1e-9."""
    for layer in case.reference_network.layers:
        activation, gradient = case.reference_network.activation(layer), case.reference_network.gradient(layer)
        totals = activation.flatten(2).sum(2)
        sizes = activation.flatten(2).abs().sum(2)
        grown = gradient.flatten(2) * totals[:, :, None]
        assert float((2 + grown)[gradient.flatten(2) > 0].abs().min()) > 1e-6, layer
        assert float((totals.abs() / sizes)[sizes > 0].min()) > 1e-6, layer


# --- Checks of the reference --------------------------------------------------------------------------------------


def test_reference_computes_the_scores_of_the_network(case: Case) -> None:
    """Replacing a layer's output with the same values changes no score, also before in-place operations."""
    with torch.no_grad():
        logits = logits_of(case.net(case.inputs))
        scores = logits[torch.arange(len(logits)), case.reference_network.classes]
        for layer in case.reference_network.layers:
            actual = case.reference_network.tail(layer, case.reference_network.activation(layer))
            torch.testing.assert_close(actual, scores, rtol=1e-12, atol=0)


def test_reference_gradients_equal_central_differences(case: Case) -> None:
    """Compare G with central differences at three layers, per image at the largest entry and a random one."""
    random = torch.Generator().manual_seed(0)
    layers = case.reference_network.layers
    for layer in {layers[0], layers[len(layers) // 2], layers[-1]}:
        gradient = case.reference_network.gradient(layer)
        for image, own in enumerate(gradient):
            flat = [int(own.abs().argmax()), int(torch.randint(own.numel(), (1,), generator=random))]
            cells = [(image, *(int(i) for i in torch.unravel_index(torch.tensor(i), own.shape))) for i in flat]
            central_differences = case.reference_network.central_differences(layer, cells)
            expected = torch.stack([gradient[cell] for cell in cells])
            torch.testing.assert_close(central_differences, expected, rtol=0, atol=1e-5 * float(own.abs().max()))


def test_reference_gradients_do_not_depend_on_the_batch() -> None:
    for kind in TINY_NETWORKS:
        net, inputs = tiny_network(kind, dtype=torch.float64)
        classes = torch.tensor([1, 3])
        together = ReferenceNetwork(net, inputs, classes)
        for layer in together.layers:
            alone = [ReferenceNetwork(net, inputs[i : i + 1], classes[i : i + 1]).gradient(layer) for i in range(2)]
            torch.testing.assert_close(together.gradient(layer), torch.cat(alone), rtol=0, atol=1e-12)


def test_disabling_inplace_changes_the_function() -> None:
    """This is why the reference clones tensors instead of setting `inplace` to False."""
    net, inputs = tiny_network(SkipOfInplaceNet, dtype=torch.float64)
    before = net(inputs)
    net.relu.inplace = False
    assert float((net(inputs) - before).detach().abs().max()) > 0.01


def peaks(maps: Tensor) -> Tensor:
    """Return the maximum absolute value of each map."""
    return maps.flatten(1).abs().amax(1)
