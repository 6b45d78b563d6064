"""Stability and sanity tests: how maps change with noise, another class, or random weights."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from seewhy.trust.metrics.map_metrics import histogram_entropy
from seewhy.trust.metrics.not_defined import NotDefined
from seewhy.trust.metrics.shared_masks import correlations

MapOf = Callable[[Tensor], Tensor]  # inputs (n, C, *size) -> signed maps (n, *grid)
MapOfModel = Callable[[nn.Module], Tensor]  # -> the signed map (*grid) of one image

SAMPLES = 10
RADIUS = 0.02


def max_sensitivity(
    map_of: MapOf, image: Tensor, *, samples: int = SAMPLES, radius: float = RADIUS, seed: int = 0
) -> float:
    """Return the largest relative change of a map under small noise; lower is better.

    The maximum over `samples` of ||map(x + d) - map(x)|| / ||map(x)||, with uniform noise |d| <= radius. It rises with
    the number of samples. A constant map has 0, so this is not evidence that a map is right.

    Args:
        map_of: Computes maps.
        image: One input `(C, *size)`.
        samples: Number of noisy inputs.
        radius: Largest noise, in units of the input.
        seed: Seed of the noise.

    Returns:
        At least 0; NaN for an all-zero map.

    References:
        Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019
    """
    generator = torch.Generator().manual_seed(seed)
    noise = (2 * torch.rand(samples, *image.shape, generator=generator) - 1) * radius
    maps = map_of(torch.cat([image[None], image[None] + noise.to(image)])).double().flatten(1)
    length = maps[0].norm()
    return float((maps[1:] - maps[0]).norm(dim=1).max() / length) if length > 0 else math.nan


def rank_similarity(first: Tensor, second: Tensor) -> float:
    """Return Spearman's correlation of two maps of one grid; NaN where one is constant."""
    ranks = [rankdata(one.detach().double().cpu().numpy().ravel()) for one in (first, second)]
    return float(correlations(ranks[0][None], ranks[1])[0])


def class_sensitivity(first: Tensor, second: Tensor) -> float:
    """Return Spearman's correlation of the signed maps of two classes of one image; lower is more specific to the class.

    Similar classes share evidence, so a high value can be right. A method that ignores the class has 1.

    Args:
        first, second: Signed maps of one grid. Absolute or rectified values would hide opposite signs.

    Returns:
        In [-1, 1]; NaN where one map is constant.

    References:
        Sixt, Granz, Landgraf, "When explanations lie", ICML 2020
    """
    return rank_similarity(first, second)


def randomized(model: nn.Module, *, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Yield copies of a model in which more and more layers have random weights, from the last one to the first.

    A layer with `reset_parameters` is initialized again, with another seed for each layer. Parameters of other modules, such as
    attention projections, tokens and parametrized weights, are shuffled, which keeps their scale. Running statistics of norms
    are kept: with those of a new layer, activations would vanish or explode.
    """
    changed = copy.deepcopy(model)
    layers = [
        (name, module)
        for name, module in changed.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    for number, (name, layer) in enumerate(reversed(layers)):
        buffers = {key: value.clone() for key, value in layer.named_buffers(recurse=False)}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed + number)
            randomize(layer)
        for key, value in buffers.items():
            getattr(layer, key).copy_(value)
        yield name, changed


def randomize(layer: nn.Module) -> None:
    """Replace the parameters of a layer by random ones, in place."""
    before = {name: parameter.clone() for name, parameter in layer.named_parameters(recurse=False)}
    reset = getattr(layer, "reset_parameters", None)
    if reset is not None and not is_parametrized(layer):
        with contextlib.suppress(TypeError):  # it takes an argument
            reset()
    for name, parameter in layer.named_parameters(recurse=False):
        if torch.equal(parameter, before[name]) and parameter.numel() > 1:
            parameter.copy_(
                parameter.flatten()[torch.randperm(parameter.numel()).to(parameter.device)].reshape(parameter.shape)
            )


def fully_random(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Return a copy of a model in which all layers have random weights. Raises NotDefined if it has no parameters."""
    *_, last = [("", None), *randomized(model, seed=seed)]
    if last[1] is None:
        raise NotDefined("the model has no parameters")
    return last[1]


def mprt(map_of: MapOfModel, model: nn.Module, *, seed: int = 0) -> dict[str, float]:
    """Return the similarity of a map with those of models with more and more random layers (MPRT); low is expected.

    A necessary test: a map that does not change ignores the weights. A lower value is not a better method, because noise
    lowers it too.

    Args:
        map_of: Computes the map of one image with a model.
        model: The trained model.
        seed: Seed of the random weights.

    Returns:
        Spearman's correlation by the name of the first random layer, from the last layer to the first.

    References:
        Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018
    """
    original = map_of(model)
    return {name: rank_similarity(original, map_of(changed)) for name, changed in randomized(model, seed=seed)}


def smooth_mprt(
    maps_of: Callable[[nn.Module, Tensor], Tensor], model: nn.Module, image: Tensor, *, samples: int = 50,
    noise: float = 0.1, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Return `mprt` of maps that are averaged over noisy versions of the image, which removes the effect of noise in the map.

    Args:
        maps_of: Computes the maps `(n, *grid)` of inputs `(n, C, *size)` with a model.
        model: The trained model.
        image: One input `(C, *size)`.
        samples: Number of noisy inputs; with `noise` 0, the result is that of `mprt`.
        noise: Standard deviation as a fraction of the range of the image.
        seed: Seed of the noise and of the random weights.

    References:
        Hedstroem et al., "Sanity checks revisited", NeurIPS Workshops 2023
    """
    scale = noise * float(image.max() - image.min())
    generator = torch.Generator().manual_seed(seed)
    inputs = image[None] + scale * torch.randn(samples, *image.shape, generator=generator).to(image)
    return mprt(lambda changed: maps_of(changed, inputs).double().mean(0), model, seed=seed)


def efficient_mprt(map_of: MapOfModel, model: nn.Module, *, seed: int = 0) -> float:
    """Return the relative rise of the entropy of a map's values when all layers have random weights (eMPRT).

    It ignores positions. A map that becomes blank has -1, the lowest value, although it reacted: report `mprt` next to it. NaN
    if the original map is constant.

    References:
        Hedstroem et al., "Sanity checks revisited", NeurIPS Workshops 2023
    """
    return relative_entropy(map_of(model), map_of(fully_random(model, seed=seed)))


def relative_entropy(original: Tensor, changed: Tensor) -> float:
    """Return the relative rise of the entropy of a map's values; NaN if the original map is constant."""
    before = histogram_entropy(as_array(original))
    return (histogram_entropy(as_array(changed)) - before) / before if before else math.nan


def as_array(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return array
