"""`measure`: the metrics of all maps of an explanation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from torch import nn

from seewhy.engine.progress import Progress, counter
from seewhy.engine.rescoring import Rescoring, open_rescoring
from seewhy.errors import UsageError
from seewhy.explanation.curves import RemovalCurve, RemovalCurves
from seewhy.explanation.data import MapKey
from seewhy.explanation.flags import find_flags
from seewhy.explanation.result import Explanation
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.loading import load_model
from seewhy.trust.fillers import as_filler
from seewhy.trust.map_checks.map_check import MEGABYTE, UNUSABLE
from seewhy.trust.metrics.evidence import ImageEvidence, MapEvidence
from seewhy.trust.metrics.measurements import MapMeasurement, Measurements
from seewhy.trust.metrics.metric import Metric, choose_metrics
from seewhy.trust.metrics.metric_list import DEFAULT, METRICS
from seewhy.trust.metrics.repetition import Repetition
from seewhy.trust.scorer import on_prepared

FILLERS = ("blur", "mean")
UNRANKED = ("non_finite", "no_gradient", "constant", "no_grid")  # flags of maps without any order
EARLY = 0.2  # fraction of the units; a random order must not have lowered the score by
SMALL_DROP = 0.02  # of a probability, if the entire image is covered
MOST = 0.7  # of the total drop until then


def measure(
    model: nn.Module | LoadedModel,
    explanation: Explanation,
    metrics: str | Iterable[str] = DEFAULT,
    *,
    fillers: str | Iterable[str] = FILLERS,
    arguments: Mapping[str, object] | None = None,
    memory: float = 256,
    progress: Progress | None = None,
) -> Measurements:
    """Compute metrics for every map of an explanation: how well does it predict what the model reads?

    Args:
        model: The model that was explained.
        explanation: As `explain` returned it, of one or several images.
        metrics: Names of metrics, or "all"; `seewhy metrics` lists them.
        fillers: What covered parts of an image show: "blur", "mean", "linear". Metrics that cover parts have one value for
            each, because their size depends on it.
        arguments: Keyword arguments for the model that were passed to `explain`.
        memory: Megabytes for one batch of changed images.
        progress: Called with (forward passes done, in total).

    Returns:
        One row for each map and image, and the curves of the removal tests.

    Raises:
        UnknownName: A metric or filler does not exist.
        UsageError: The explanation was loaded, so it contains no input; or the model is not the one that was explained.

    Example:
        >>> import seewhy, torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> measured = measure(net, seewhy.explain(net, torch.rand(1, 3, 32, 32)), ["srg", "sparseness"], fillers="mean")
        >>> measured.columns
        ('srg', 'sparseness')
    """
    chosen, names = check_names(metrics, fillers)

    def run(loaded: LoadedModel) -> Measurements:
        rescoring = open_rescoring(loaded, explanation, arguments=arguments, memory=int(memory * MEGABYTE))
        if progress is not None:
            rescoring.evaluator.on_progress = counter(progress, count_passes(explanation, chosen, names))
        repetition = Repetition(loaded, explanation, arguments, memory)
        return measure_maps(rescoring, explanation, repetition, chosen, names)

    return on_prepared(load_model(model), run)


def check_names(
    metrics: str | Iterable[str] | None, fillers: str | Iterable[str] | None
) -> tuple[list[Metric], list[str]]:
    """Return the metrics and the names of the fillers; None selects the defaults. Raises UnknownName and UsageError."""
    chosen = choose_metrics(METRICS, DEFAULT if metrics is None else metrics)
    names = FILLERS if fillers is None else (fillers,) if isinstance(fillers, str) else tuple(fillers)
    if not names:
        raise UsageError("no fillers: give at least one, such as 'blur'.")
    for name in names:
        as_filler(name)
    return chosen, list(dict.fromkeys(names))


def measure_maps(
    rescoring: Rescoring,
    explanation: Explanation,
    repetition: Repetition,
    metrics: Sequence[Metric],
    fillers: Sequence[str],
) -> Measurements:
    """Return the metrics of all maps."""
    rows: list[MapMeasurement] = []
    curves: dict[MapKey, list[dict[str, RemovalCurves]]] = {key: [] for key in explanation.maps}
    random: dict[str, list[dict[str, RemovalCurve]]] = {target: [] for target in explanation.targets}
    notes: dict[str, None] = {}
    columns = list(column_names(metrics, fillers))
    for image in range(len(explanation)):
        for target in explanation.targets:
            shared = ImageEvidence(rescoring, explanation, image, target, repetition)
            for key in (key for key in explanation.maps if key[1] == target):
                evidence = MapEvidence(shared, key)
                reason = why_unranked(explanation, key, image)
                cells = [
                    (np.nan, reason) if reason else metric.value(evidence, filler) for _, metric, filler in columns
                ]
                values = {name: value for (name, _, _), (value, _) in zip(columns, cells, strict=True)}
                reasons = {name: text for (name, _, _), (_, text) in zip(columns, cells, strict=True) if text}
                rows.append(MapMeasurement(image, *key, values, reasons))
                curves[key].append(dict(evidence.measured_curves))
            orders = {filler: shared.random(filler) for filler in shared.measured_fillers}
            random[target].append(orders)
            name = shared.result.for_image(image, explanation.labels).name
            prefix = f"image {image}: " if len(explanation) > 1 else ""
            notes.update((f"{prefix}{note}", None) for note in filler_notes(orders, name, shared.is_class))
    return Measurements(
        tuple(name for name, _, _ in columns), tuple(rows), {key: tuple(found) for key, found in curves.items()},
        {target: tuple(found) for target, found in random.items()}, tuple(notes),
    )  # fmt: skip


def column_names(metrics: Sequence[Metric], fillers: Sequence[str]) -> Iterator[tuple[str, Metric, str]]:
    """Yield name, metric and filler of each column: "srg(mean)" if there are several fillers."""
    for metric in metrics:
        for filler in fillers if metric.uses_filler else [""]:
            yield (f"{metric.name}({filler})" if filler and len(fillers) > 1 else metric.name), metric, filler


def count_passes(e: Explanation, metrics: Sequence[Metric], fillers: Sequence[str]) -> int:
    """Return about how many forward passes the metrics need."""
    cells, groups = len(e.maps) * len(e), len(e.targets) * len(e)
    total, seen = 0, set()
    for metric in metrics:
        times = len(fillers) if metric.uses_filler else 1
        if metric.shares and metric.shares in seen:
            continue
        seen.add(metric.shares)
        total += times * (metric.passes * cells + metric.shared_passes * groups)
    return total


def why_unranked(e: Explanation, key: MapKey, image: int) -> str:
    """Return why a map has no metrics, or ""."""
    gradient = e.has_gradient.get(key[1:])
    at = slice(image, image + 1)
    flags = find_flags(e.maps[key][at], None if gradient is None else gradient[at])[0]
    return next((UNUSABLE[flag] for flag in flags if flag in UNRANKED), "")


def filler_notes(curves: Mapping[str, RemovalCurve], target: str, is_probability: bool) -> Iterator[str]:
    """Yield a note for each filler that lowers the score at any place, or hardly at all."""
    for filler, curve in curves.items():
        first, last = curve.scores[0], curve.scores[-1]
        early = float(curve.at(np.array([EARLY]))[0])
        if not first > last + (SMALL_DROP if is_probability else 0):
            yield (
                f"filler '{filler}': covering the entire image changes {target} from {first:.3g} to {last:.3g}, so deletion, "
                "insertion and SRG with it show little. Use another filler."
            )
        elif first - early > MOST * (first - last):
            yield (
                f"filler '{filler}': covering a random {EARLY:.0%} of the image lowers {target} from {first:.3g} to "
                f"{early:.3g}, wherever it is. Such values depend on the filler more than on the map: compare fillers."
            )
