"""Compare the outputs of an exported file with the class scores and maps of `explain`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.engine.explain import explain
from seewhy.errors import UsageError, shorten_error
from seewhy.integrations.model_export.file_formats import Run
from seewhy.integrations.model_export.mapped_layer import MappedLayer, device_of
from seewhy.models.loaded_model import LoadedModel
from seewhy.targets.class_scores import logits
from seewhy.targets.classes import ClassScore
from seewhy.tensors.map_functions import divide_by_max, rectify, resize
from seewhy.tracing.twin import make_twin

TOLERANCE = 1e-4  # of the maximum; float32 in another order of summation differs by 1e-6 to 1e-5
COMPARED_CLASSES = 8  # of the classes in a file, evenly spaced


@dataclass(frozen=True)
class Comparison:
    """Largest differences of scores, maps and heatmaps, divided by the maximum of ours."""

    scores: float
    maps: float


def compare(
    run: Run, model: LoadedModel, inputs: Tensor, layer: MappedLayer, method: str, top: int, *, multilabel: bool
) -> Comparison:
    """Run a file on images and compare its outputs with ours.

    Raises:
        UsageError: The file does not run, or differs by more than rounding.
    """
    try:
        scores, classes, maps, *heatmap = run(inputs)
    except Exception as error:
        raise UsageError(
            f"the exported network does not run ({shorten_error(error)}); export another layer or map"
        ) from error
    with torch.no_grad():
        ours = logits(make_twin(model.module)(inputs.to(device_of(model)))).cpu()
    score_difference = relative_difference(scores, ours)
    if top:
        score_difference = max(
            score_difference, relative_difference(ours.gather(1, classes), ours.topk(top, dim=1).values)
        )
    numbers = range(0, classes.shape[1], max(1, classes.shape[1] // COMPARED_CLASSES))
    targets = [ClassScore(classes[:, i]) for i in numbers]
    e = explain(
        model, inputs.to(device_of(model)), methods=method, layers=layer.name, targets=targets, multilabel=multilabel
    )
    expected = torch.stack([own.cpu() for own in e.maps.values()], 1)
    found = maps[:, list(numbers)]
    difference = relative_difference(found, expected)
    if heatmap:
        flat = divide_by_max(resize(rectify(expected.flatten(0, 1)), inputs.shape[2:]))
        drawn = heatmap[0][:, list(numbers)].flatten(0, 1)
        difference = max(difference, relative_difference(drawn, flat))
    if not max(score_difference, difference) <= TOLERANCE:
        raise UsageError(
            f"nothing was written: the exported network differs from the model (scores by {score_difference:.1e}, maps by "
            f"{difference:.1e} of their maximum). Export another layer or map, and report this."
        )
    return Comparison(score_difference, difference)


def relative_difference(values: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference, divided by the maximum of `expected`; infinite for other shapes or NaN."""
    if values.shape != expected.shape:
        return float("inf")
    largest = float((values.double() - expected.double()).abs().amax())
    maximum = float(expected.abs().amax())
    return float("inf") if largest != largest else largest / maximum if maximum else largest
