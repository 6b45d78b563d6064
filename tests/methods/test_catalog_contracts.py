"""Contracts of every method of the catalog: independence of batch, targets, other methods and layers; float32."""

from __future__ import annotations

import pytest
import torch

import seewhy
from seewhy.targets import ClassScore
from support.catalog_networks import (
    CLASSES,
    CONVOLUTIONAL_METHODS,
    NAMES,
    SETTINGS,
    TOLERANCES,
    TRANSFORMER_METHODS,
    example_for,
    explain_maps,
    maps_of_example,
)
from support.identity_maps import assert_all_maps_close, assert_maps_close


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_finite_and_not_constant(name: str) -> None:
    """The maps that the other tests compare are finite, float64 and not constant."""
    for maps in maps_of_example(name).values():
        assert maps.dtype == torch.float64 and bool(maps.isfinite().all())
    spread = [float((m.flatten(1).amax(1) - m.flatten(1).amin(1)).amax()) for m in maps_of_example(name).values()]
    assert min(spread) > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_map_does_not_depend_on_the_batch(name: str) -> None:
    """An image of low contrast has the same map with and without a bright image in its batch."""
    net, inputs, layers = example_for(name)
    for image, c in enumerate(CLASSES):
        alone = explain_maps(net, inputs[image : image + 1], SETTINGS.get(name, name), layers, ClassScore(c))
        assert_all_maps_close(
            alone, {k: m[image : image + 1] for k, m in maps_of_example(name).items()}, TOLERANCES.get(name, 1e-9)
        )


@pytest.mark.parametrize("name", NAMES)
def test_several_targets_equal_separate_calls(name: str) -> None:
    net, inputs, layers = example_for(name)
    classes = list(range(net.head.out_features))
    method = SETTINGS.get(name, name)
    together = seewhy.explain(net, inputs, methods=method, layers=layers, targets=classes)
    for c in classes:
        alone = explain_maps(net, inputs, method, layers, ClassScore(c))
        assert_all_maps_close(
            {(m, signals): maps for (m, t, signals), maps in together.maps.items() if t == str(c)}, alone, 1e-11
        )


@pytest.mark.parametrize(
    "names", [CONVOLUTIONAL_METHODS, sorted(TRANSFORMER_METHODS)], ids=["convolutions", "attention"]
)
def test_several_methods_equal_separate_calls(names: list[str]) -> None:
    net, inputs, layers = example_for(names[0])
    chosen = [SETTINGS.get(name, name) for name in names if name != "cam"]  # supports only one of the layers
    together = explain_maps(net, inputs, chosen, layers)
    alone = {key: maps for name in names if name != "cam" for key, maps in maps_of_example(name).items()}
    assert set(together) == set(alone)
    for key, maps in alone.items():
        assert_maps_close(together[key], maps, 1e-11)


@pytest.mark.parametrize("name", CONVOLUTIONAL_METHODS)
def test_several_layers_equal_separate_calls(name: str) -> None:
    """All layers in one call or one at a time; methods that combine layers require several."""
    if name in ("polycam", "refinecam", "layercamfusion", "cam"):
        assert len(maps_of_example(name)) == 1
        return
    net, inputs, layers = example_for(name)
    for layer in layers or ():
        alone = explain_maps(net, inputs, SETTINGS.get(name, name), [layer])
        assert_all_maps_close(
            alone,
            {k: m for k, m in maps_of_example(name).items() if k[1] in (layer, "network")},
            TOLERANCES.get(name, 1e-11),
        )


# SESS divides by the number of positive values, so a rounded 0 counts as one more. The first steps of Adam in Opti-CAM
# follow the sign of the gradient, also of one that is 0 up to rounding: on one processor one map of six differed by 0.016.
FLOAT32_TOLERANCES = {"opticam": 0.05, "sess": 0.1}


@pytest.mark.parametrize("name", NAMES)
def test_float32_equals_float64_up_to_rounding(name: str) -> None:
    net, inputs, layers = example_for(name)
    actual = explain_maps(net.float(), inputs.float(), SETTINGS.get(name, name), layers)
    assert all(maps.dtype == torch.float32 for maps in actual.values())
    assert_all_maps_close(
        {key: maps.double() for key, maps in actual.items()}, maps_of_example(name), FLOAT32_TOLERANCES.get(name, 2e-4)
    )
