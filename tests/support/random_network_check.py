"""Compare seewhy with the references of one random network: the answer, every map, every selection of layers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

import seewhy
from support.random_networks import CLASSES, SIZE, RandomNetwork, Step, first
from support.reference import FORMULAS, Array
from support.reference_image import ReferenceImage
from support.reference_methods import ablationcam, reciprocam, scorecam

Pair = tuple[Tensor, Tensor | None]  # A and G of one call; G is None if there is no gradient
PERTURBATIONS = {"ablationcam": ablationcam, "scorecam": scorecam, "reciprocam": reciprocam}
MAX_CELLS = 40  # Recipro-CAM needs one forward pass per cell
NO_GRADIENT = "PyTorch cannot differentiate"
UNPLACED = "has 2 rows for each input"


def find_problem(steps: Sequence[Step], head: int, seed: int, *, is_prepared: bool = False) -> str:
    """Return what is wrong with the maps of a network, or of the same network after `prepare`; "" if nothing is."""
    inputs = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    target, rng = seed % CLASSES, random.Random(seed)

    def new_network() -> RandomNetwork:
        return RandomNetwork(steps, head, seed)

    def explained_network() -> Any:
        return seewhy.prepare(new_network()) if is_prepared else new_network()

    answer, expected, split = pure_reference(new_network(), inputs, target)
    with torch.no_grad():
        if not torch.allclose(new_network()(inputs.clone()), answer, rtol=1e-9, atol=1e-12):
            return "the reference computes another function than the network"
    plain = plain_reference(new_network(), inputs, target) if split else {}
    # Where a tensor and a part of it are both in use, the gradient of the tensor is that of the tensor's own uses or of all.
    others = {name: (plain or {}).get(name, (inputs, None)) for name in split}
    usable = [name for name, pair in expected.items() if is_usable(pair) and is_usable(others.get(name, pair))]
    selections = [["all"], *([rng.choice(usable)] for _ in range(2 if usable else 0))]
    if len(usable) > 1:
        selections.append(rng.sample(usable, min(3, len(usable))))
    for layers in selections if usable else []:
        kept = inputs.clone()
        try:
            e = seewhy.explain(explained_network(), inputs, methods=list(FORMULAS), layers=layers, targets=target)
        except seewhy.SeewhyError as error:
            if UNPLACED in str(error) and any(layer != "all" and len(expected[layer][0]) > 2 for layer in layers):
                continue  # one clear line
            if NO_GRADIENT in str(error) and plain_reference(new_network(), inputs, target) is None:
                return ""  # one clear line where PyTorch itself raises an error
            return f"refused: {type(error).__name__} {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if not torch.equal(inputs, kept):
            return "the inputs were changed"
        if e.logits is None or not torch.allclose(e.logits, answer, rtol=1e-8, atol=1e-10):
            return "the recorded network gives another answer"
        # Folded channels are left out if their place in the input cannot be observed.
        missing = [name for name in usable if not (name in e.layers or name in split or len(expected[name][0]) > 2)]
        if layers == ["all"] and missing:
            return f"no maps: {missing}"
        for layer in e.layers:
            pairs = [pair for pair in (expected[layer], others.get(layer)) if pair is not None]
            if not any(has_maps(e, layer, pair) for pair in pairs):
                return f"wrong map of {layer} with layers={layers}"
    # The references of methods with extra passes are slow.
    return "" if seed % 5 else perturbation_problem(new_network(), explained_network(), inputs[:1], target, rng)


def is_usable(pair: Pair) -> bool:
    activation, gradient = pair
    return gradient is not None and activation.shape[0] % 2 == 0 and min(activation.shape[2:]) >= 2


def has_maps(e: Any, layer: str, pair: Pair) -> bool:
    """Return True if the maps of all methods at a layer are those of A and G."""
    activation, gradient = pair
    if gradient is None:
        return False
    for method, formula in FORMULAS.items():
        maps = e.map(method=method, layer=layer).double().numpy()
        reference = apply_formula(formula, activation, gradient)
        if len(reference) > 2:  # folded channels: several rows for each of two images
            reference = reference.reshape(2, -1, *reference.shape[1:])
        if maps.shape != reference.shape:
            return False
        if not np.allclose(maps, reference, rtol=1e-6, atol=tolerance(reference)):
            # XGrad-CAM and Grad-CAM++ divide by sums that can be close to 0. Then a change in the last digit changes the map.
            noise = torch.randn(activation.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            moved = apply_formula(formula, activation + 1e-12 * activation.abs().max() * noise, gradient)
            moved = moved.reshape(reference.shape)
            if not np.allclose(maps, reference, rtol=1e-6, atol=1e3 * np.abs(moved - reference).max()):
                return False
    return True


def apply_formula(formula: Callable[[Array, Array], Array], activation: Tensor, gradient: Tensor) -> Array:
    return np.stack([formula(a.numpy(), g.numpy()) for a, g in zip(activation, gradient, strict=True)])


def tolerance(reference: Array) -> float:
    return float(1e-9 * max(1.0, np.abs(reference).max()))


def pure_reference(net: RandomNetwork, inputs: Tensor, target: int) -> tuple[Tensor, dict[str, Pair], set[str]]:
    """Return the output, A and G of every call, and the names of calls whose output is part of a tensor, or has parts."""
    answer, taps = net.reference(inputs.clone())
    outputs = [tap.output for tap in taps if tap.output.requires_grad]
    gradients = iter(torch.autograd.grad(answer[:, target].sum(), outputs, allow_unused=True))
    counts = Counter(tap.name for tap in taps)
    pairs: dict[str, Pair] = {}
    split = set()
    for tap in taps:
        gradient = next(gradients) if tap.output.requires_grad else None
        name = f"{tap.name}#{tap.number}" if counts[tap.name] > 1 else tap.name
        pairs[name] = tap.output.detach(), None if tap.is_constant else gradient
        if tap.cell.is_split:
            split.add(name)
    return answer.detach(), pairs, split


def plain_reference(net: nn.Module, inputs: Tensor, target: int) -> dict[str, Pair] | None:
    """Return A and G of every call from hooks that keep the output, as users write them; None if PyTorch raises an error."""
    kept: dict[tuple[str, int], tuple[Tensor, GradientEdge]] = {}
    counts: Counter[str] = Counter()

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            counts[name] += 1
            tensor = first(output)
            if torch.is_grad_enabled() and tensor.grad_fn is not None:
                kept[name, counts[name]] = tensor.detach().clone(), get_gradient_edge(tensor)

        return hook

    for name, module in net.named_modules():
        if name:
            module.register_forward_hook(hook_for(name))
    try:
        output = net(inputs.clone().requires_grad_() * 1)
        forward_calls, counts = list(kept.items()), counts.copy()  # checkpoints call modules again in the backward pass
        edges = [edge for _, (_, edge) in forward_calls]
        gradients = torch.autograd.grad(output[:, target].sum(), edges, allow_unused=True)
    except RuntimeError:
        return None
    return {
        f"{name}#{number}" if counts[name] > 1 else name: (value, gradient)
        for ((name, number), (value, _)), gradient in zip(forward_calls, gradients, strict=True)
    }


def perturbation_problem(net: RandomNetwork, explained: Any, inputs: Tensor, target: int, rng: random.Random) -> str:
    """Compare methods with extra forward passes at one convolution whose output is a tensor of its own."""
    image = ReferenceImage(net, inputs, target)
    layers = [name for name, (_, out) in zip(image.names, image.calls, strict=True) if is_small(out)]
    if not layers:
        return ""
    layer = rng.choice(layers)
    try:
        e = seewhy.explain(explained, inputs, methods=list(PERTURBATIONS), layers=[layer], targets=target)
    except seewhy.SeewhyError as error:
        return f"perturbation: {type(error).__name__} {error}"
    for method, reference in PERTURBATIONS.items():
        expected = reference(image, layer)
        if not np.allclose(e.map(method=method)[0].double().numpy(), expected, rtol=1e-5, atol=tolerance(expected)):
            return f"wrong map of {method} at {layer}"
    return ""


def is_small(output: Tensor) -> bool:
    return output.shape[0] == 1 and min(output.shape[2:]) >= 2 and output[0, 0].numel() <= MAX_CELLS
