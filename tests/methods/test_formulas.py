"""Every convolution of eight torchvision nets and of the tiny ones, six methods: equal to the slow reference."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.explanation.result import Explanation
from seewhy.targets import ClassScore
from support.networks import TINY_NETWORKS, TORCHVISION_NAMES, SkipOfInplaceNet, calibrated_network, tiny_network
from support.reference import METHODS, Slow, logits_of

KINDS = {kind.__name__: kind for kind in TINY_NETWORKS}


@dataclass(frozen=True)
class Case:
    """One net, what the library says of it and what the reference says of it: maps by layer, then method."""

    net: nn.Module
    inputs: Tensor
    slow: Slow
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
    slow = Slow(net, inputs, classes)
    explanation = seewhy.explain(net, inputs, methods=list(METHODS), layers="every", targets=ClassScore(classes))
    return Case(net, inputs, slow, explanation, {layer: slow.maps(layer) for layer in slow.layers})


# --- the library ------------------------------------------------------------------------------------------------------


def test_the_layers_are_the_convolutions_with_a_grid(case: Case) -> None:
    assert case.explanation.layers == case.slow.layers


@pytest.mark.parametrize("method", METHODS)
def test_maps_equal_the_reference(case: Case, method: str) -> None:
    wrong = {}
    for layer, maps in case.reference.items():
        expected, found = maps[method], case.explanation.map(method=method, layer=layer)
        assert found.dtype == torch.float64
        assert found.shape == expected.shape, layer
        apart = peaks(found - expected) / peaks(expected)
        if not bool((apart <= 1e-9).all()):  # so that NaN is wrong too
            wrong[layer] = apart.tolist()
    assert wrong == {}


# --- the nets: what is compared is worth comparing --------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_map_is_far_from_zero(case: Case, method: str) -> None:
    assert len(case.reference) > 0
    for layer, maps in case.reference.items():
        assert float(peaks(maps[method]).min()) > 1e-6, layer
        assert float(maps[method].max()) > 1e-6, f"{layer}: no evidence for the class in any picture"


def test_the_formulas_with_poles_are_not_near_one(case: Case) -> None:
    """Grad-CAM++ divides by 2 + g S and XGrad-CAM by S: at 1e-16 / 1e-6 the comparison at 1e-9 would mean little."""
    for layer in case.slow.layers:
        activation, gradient = case.slow.activation(layer), case.slow.gradient(layer)
        totals = activation.flatten(2).sum(2)
        sizes = activation.flatten(2).abs().sum(2)
        grown = gradient.flatten(2) * totals[:, :, None]
        assert float((2 + grown)[gradient.flatten(2) > 0].abs().min()) > 1e-6, layer
        assert float((totals.abs() / sizes)[sizes > 0].min()) > 1e-6, layer


# --- the reference: checked alone ---------------------------------------------------------------------------------


def test_the_reference_runs_the_same_net(case: Case) -> None:
    """Handing on a layer's own output changes nothing: in-place operations after it included."""
    with torch.no_grad():
        logits = logits_of(case.net(case.inputs))
        scores = logits[torch.arange(len(logits)), case.slow.classes]
        for layer in case.slow.layers:
            found = case.slow.tail(layer, case.slow.activation(layer))
            torch.testing.assert_close(found, scores, rtol=1e-12, atol=0)


def test_the_reference_gradients_are_slopes(case: Case) -> None:
    """G against central differences: in each image at the steepest cell and a random one, at three layers."""
    random = torch.Generator().manual_seed(0)
    layers = case.slow.layers
    for layer in {layers[0], layers[len(layers) // 2], layers[-1]}:
        gradient = case.slow.gradient(layer)
        for image, own in enumerate(gradient):
            flat = [int(own.abs().argmax()), int(torch.randint(own.numel(), (1,), generator=random))]
            cells = [(image, *(int(i) for i in torch.unravel_index(torch.tensor(i), own.shape))) for i in flat]
            slopes = case.slow.slopes(layer, cells)
            expected = torch.stack([gradient[cell] for cell in cells])
            torch.testing.assert_close(slopes, expected, rtol=0, atol=1e-5 * float(own.abs().max()))


def test_the_reference_takes_each_picture_alone() -> None:
    for kind in TINY_NETWORKS:
        net, inputs = tiny_network(kind, dtype=torch.float64)
        classes = torch.tensor([1, 3])
        together = Slow(net, inputs, classes)
        for layer in together.layers:
            alone = [Slow(net, inputs[i : i + 1], classes[i : i + 1]).gradient(layer) for i in range(2)]
            torch.testing.assert_close(together.gradient(layer), torch.cat(alone), rtol=0, atol=1e-12)


def test_an_inplace_operation_can_be_part_of_the_function() -> None:
    """Why the reference clones instead of switching `inplace` off."""
    net, inputs = tiny_network(SkipOfInplaceNet, dtype=torch.float64)
    before = net(inputs)
    net.relu.inplace = False
    assert float((net(inputs) - before).detach().abs().max()) > 0.01


def peaks(maps: Tensor) -> Tensor:
    """The maximum absolute value of each image's map."""
    return maps.flatten(1).abs().amax(1)
