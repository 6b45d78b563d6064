"""Max-sensitivity and tests with random weights, next to those of other packages."""

from __future__ import annotations

from typing import Any

import captum.metrics
import numpy as np
import quantus
import torch
from quantus.helpers.model.pytorch_model import PyTorchModel
from torch import Tensor, nn

from metrics_peers import Array, Case, run_quantus
from metrics_rows import Row
from seewhy.trust import map_metrics, stability


def of_sensitivity(case: Case) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    noise = (2 * torch.rand(stability.SAMPLES, *case.inputs[0].shape, generator=generator) - 1) * stability.RADIUS
    ours, theirs, others = [], [], []
    for at, target in enumerate(case.classes):

        def maps_of(images: Tensor, target: int = target) -> Tensor:
            return case.explain_pixels(case.net, images, target)

        def explain(images: Any, maps_of: Any = maps_of) -> Any:
            return (maps_of(images[0]),) if isinstance(images, tuple) else maps_of(images)

        image = case.inputs[at : at + 1]
        ours.append(stability.max_sensitivity(maps_of, image[0]))
        theirs.append(float(captum.metrics.sensitivity_max(explain, image, perturb_func=lambda images: images + noise)))
        torch.manual_seed(0)
        others.append(float(captum.metrics.sensitivity_max(explain, image)))
    rows = [Row("`max_sensitivity`", "captum sensitivity_max, same noise", "signed", ours, theirs)]
    steps = iter(noise.flatten(1).numpy())
    metric = quantus.MaxSensitivity(
        nr_samples=len(noise), perturb_func=lambda arr, indices, **_: arr + next(steps), disable_warnings=True
    )
    maps = case.quantus_explain(case.net, case.x, case.y)[:, 0]
    found = run_quantus(metric, case, maps, explain=case.quantus_explain)
    rows.append(Row("`max_sensitivity`", "Quantus MaxSensitivity, same noise", "signed", ours, found))
    rows.append(
        Row(
            "`max_sensitivity`",
            "captum sensitivity_max",
            "signed",
            ours,
            others,
            "other random noise; radius and number of samples are equal by default",
        )
    )
    np.random.seed(0)
    metric = quantus.MaxSensitivity(nr_samples=len(noise), disable_warnings=True)
    found = run_quantus(metric, case, maps, explain=case.quantus_explain)
    rows.append(
        Row(
            "`max_sensitivity`",
            "Quantus MaxSensitivity, 10 samples",
            "signed",
            ours,
            found,
            "default radius 0.2 instead of 0.02 (and 200 samples)",
        )
    )

    def blank_map(images: Any) -> Any:
        return (torch.zeros(len(images[0]), 4, 4),) if isinstance(images, tuple) else torch.zeros(len(images), 4, 4)

    value = float(captum.metrics.sensitivity_max(blank_map, case.inputs[:1]))
    rows.append(
        Row(
            "`max_sensitivity`",
            "captum sensitivity_max",
            "blank",
            stability.max_sensitivity(blank_map, case.inputs[0]),
            value,
            "a norm of 0 is replaced by 1, so a blank map is called stable",
        )
    )
    return rows


def of_random_weights(case: Case) -> list[Row]:
    """MPRT and eMPRT for the last state, in which all layers are random."""
    maps = case.quantus_explain(case.net, case.x, case.y)[:, 0]
    *_, (_, changed) = PyTorchModel(case.net, channel_first=True).get_random_layer_generator(order="top_down", seed=42)
    again = [
        case.explain_pixels(changed, case.inputs[at : at + 1], target)[0] for at, target in enumerate(case.classes)
    ]
    metric = quantus.MPRT(
        skip_layers=True, return_last_correlation=True, abs=False, normalise=False, disable_warnings=True
    )
    found = run_quantus(metric, case, maps, explain=case.quantus_explain)
    ours = [stability.rank_similarity(torch.from_numpy(one), other) for one, other in zip(maps, again, strict=True)]
    rows = [Row("`rank_similarity` (MPRT)", "Quantus MPRT, same random weights", "signed", ours, found)]
    *_, (_, own) = stability.randomized(case.net)
    similar = [
        stability.rank_similarity(
            torch.from_numpy(maps[at]), case.explain_pixels(own, case.inputs[at : at + 1], target)[0]
        )
        for at, target in enumerate(case.classes)
    ]
    variances = [module.running_var for module in changed.modules() if isinstance(module, nn.BatchNorm2d)]
    reset = all(bool((variance == 1).all()) for variance in variances)
    what = (
        "one seed for all layers; statistics of norms are reset to mean 0 and variance 1 "
        f"({'in all' if reset else 'not in all'} of {len(variances)}); the logits have a standard deviation of "
        f"{spread_of(changed, case):.1e}, and {spread_of(own, case):.1e} with seewhy's random weights "
        f"({spread_of(case.net, case):.1e} if trained)"
    )
    rows.append(Row("`mprt`, all layers random", "Quantus MPRT (abs=False)", "signed", similar, found, what, ours))
    metric = quantus.MPRT(skip_layers=True, return_last_correlation=True, disable_warnings=True)
    default = run_quantus(metric, case, maps, explain=case.quantus_explain)
    absolute = [
        stability.rank_similarity(torch.from_numpy(np.abs(one)), other.abs())
        for one, other in zip(maps, again, strict=True)
    ]
    rows.append(
        Row(
            "`mprt`, all layers random",
            "Quantus MPRT",
            "signed",
            similar,
            default,
            "default: absolute values of the maps as well",
            absolute,
        )
    )
    *_, (_, upward) = PyTorchModel(case.net, channel_first=True).get_random_layer_generator(order="bottom_up", seed=42)
    metric = quantus.EfficientMPRT(disable_warnings=True)
    found = run_quantus(metric, case, maps, explain=case.quantus_explain)
    ours, redone = [], []
    for at, target in enumerate(case.classes):
        ours.append(
            stability.efficient_mprt(
                lambda net, at=at, target=target: case.explain_pixels(net, case.inputs[at : at + 1], target)[0],
                case.net,
            )
        )
        before, after = (
            map_metrics.histogram_entropy(
                stability.as_array(case.explain_pixels(net, case.inputs[at : at + 1], target)[0])
            )
            for net in (case.net, upward)
        )
        redone.append((after - before) / before)
    rows.append(Row("`efficient_mprt`", "Quantus EfficientMPRT, same random weights", "signed", redone, found))
    rows.append(
        Row(
            "`efficient_mprt`",
            "Quantus EfficientMPRT",
            "signed",
            ours,
            found,
            "other random weights, as for MPRT",
            redone,
        )
    )
    return [*rows, of_smooth(case)]


def spread_of(net: nn.Module, case: Case) -> float:
    """Return the standard deviation of the logits over classes, the mean of the photos."""
    with torch.inference_mode():
        return float(net(case.inputs).std(1).mean())


def of_smooth(case: Case) -> Row:
    """Smooth MPRT of an edge map, which does not depend on the weights: the similarity must be 1."""
    calls = []

    def edges(model: Any, inputs: Any, targets: Any, **_: Any) -> Array:
        calls.append(model)
        return np.abs(np.gradient(np.asarray(inputs).mean(1), axis=1))[:, None]

    maps = edges(None, case.x, case.y)[:, 0]
    calls.clear()
    metric = quantus.SmoothMPRT(
        nr_samples=2,
        noise_magnitude=0,
        skip_layers=True,
        return_last_correlation=True,
        abs=False,
        normalise=False,
        disable_warnings=True,
    )
    found = run_quantus(metric, case, maps, explain=edges)

    def of_edges(net: Any, images: Tensor) -> Tensor:
        return torch.from_numpy(edges(net, images.numpy(), None)[:, 0])

    called = "is never called" if not calls else f"is called {len(calls)} times"
    ours = [
        list(stability.smooth_mprt(of_edges, case.net, image, samples=2, noise=0).values())[-1] for image in case.inputs
    ]
    what = f"the given explanation function {called}: gradients of Quantus are compared instead"
    return Row(
        "`smooth_mprt`, all layers random", "Quantus SmoothMPRT, noise 0", "edges of the photo", ours, found, what
    )
