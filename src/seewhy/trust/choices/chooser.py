"""`choose`: which method and layer to use for a model, measured on a sample of the user's images.

Half of the images select: all candidates are screened with masks that they share, and the best are compared by their symmetric
relevance gain (SRG), on more and more images. The other half confirms, because a winner that is tested on the images that
selected it seems better than it is: among 60 equal candidates, that prefers one in 75 % of the runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from seewhy.engine.options import Options
from seewhy.engine.pipeline import Explainer
from seewhy.engine.progress import Progress
from seewhy.errors import UsageError
from seewhy.explanation.components import LayerInfo
from seewhy.fast.prepared import as_prepared
from seewhy.methods.base import AnyMethod, NetworkMethod
from seewhy.methods.parsing import MethodSpec, as_methods
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.loading import load_model
from seewhy.targets import as_targets
from seewhy.trust.choices.candidates import COARSE, REFERENCE, Candidate, CandidateScores
from seewhy.trust.choices.choice import Choice
from seewhy.trust.choices.choice_rules import CLEAR, Finalist, apply_witnesses, judge
from seewhy.trust.choices.comparison import compare_all, mean_and_error
from seewhy.trust.choices.rounds import Rounds, Screening
from seewhy.trust.metrics.removal import STEPS
from seewhy.trust.metrics.shared_masks import SUBSETS

Array = NDArray[np.float64]

METHODS = ("gradcam", "gradcampp", "hirescam", "layercam", "xgradcam")  # share one backward pass
LAYERS = ("stages", "suggested")
FILLERS = ("blur", "mean")  # the first decides, the second is a witness
LEAST_IMAGES = 16
KEPT, FINALISTS = 8, 3  # candidates after the screening, and in the confirmation
MORE = 2  # candidates that may stay in addition, because their difference from the last one is uncertain
UNCERTAIN = 2  # standard errors
FEWER = 2  # every second image is enough for what only adds a note or decides between two finalists


def choose(
    model: nn.Module | LoadedModel,
    images: Sequence[Any],
    *,
    methods: MethodSpec = METHODS,
    layers: Sequence[str] | str = LAYERS,
    targets: Any = None,
    seed: int = 0,
    memory: float = 256,
    progress: Progress | None = None,
) -> Choice:
    """Compare methods and layers for a model on a sample of images, and recommend one.

    Args:
        model: The model.
        images: At least 16: paths, PIL images, arrays, or tensors `(1, C, *size)`. 100 are a good start.
        methods: The methods to compare.
        layers: The layers to compare, as in `explain`.
        targets: One target for all images, such as a class. Default: the predicted class of each image.
        seed: Seed of the split of the images.
        memory: Megabytes for one batch of changed images.
        progress: Called with (forward passes done, about how many in total).

    Returns:
        The recommendation with its reason, the runner-up, all measured values and the cost.

    Raises:
        UsageError: There are too few images, fewer than two candidates, several targets, or a setting is not valid.

    Example:
        >>> import seewhy, torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> images = [torch.rand(1, 3, 16, 16) for _ in range(16)]
        >>> choose(net, images, methods=["gradcam", "hirescam"], layers=["1"]).verdict
        'equal maps'
    """
    if seed < 0:
        raise UsageError(f"seed={seed}: give at least 0.")
    options = Options(methods=methods, layers=layers, targets=targets, memory=memory)
    return choose_with(load_model(model), list(images), options, seed=seed, progress=progress)


def choose_with(
    loaded: LoadedModel, images: Sequence[Any], options: Options, *, seed: int = 0, progress: Progress | None = None
) -> Choice:
    """Choose with more settings than `choose` has. Methods and layers that are not set have the defaults of `choose`."""
    methods = check_choice(options, len(images))
    compared = [*methods.values(), *([] if REFERENCE in methods else [REFERENCE])]
    options = replace(options, methods=compared, layers=options.layers or LAYERS)
    prepared = loaded if loaded.uri == "module" else as_prepared(loaded, "exact")
    scores = CandidateScores(prepared, Explainer(prepared, options), images, tuple(methods))
    if progress is not None:
        total = planned_passes(len(images))
        scores.on_passes = lambda _: progress(min(scores.passes, total), total)
    # Images that cannot be read are excluded before the images are divided, so that both halves keep their size.
    usable = [image for image in range(len(images)) if scores.check_readable(image)]
    if len(usable) < LEAST_IMAGES:
        reason = next(iter(scores.failures.values()), "")
        raise UsageError(
            f"{len(usable)} of {len(images)} images can be used, and choosing needs {LEAST_IMAGES}. {reason}"
        )
    return run_rounds(scores, np.random.default_rng(seed).permutation(usable).tolist())


def check_choice(options: Options, images: int) -> dict[str, AnyMethod]:
    """Return the methods to compare by name.

    Raises:
        UsageError: There are too few images, several targets, no methods, or a method belongs to no layer.
    """
    if images < LEAST_IMAGES:
        raise UsageError(f"too few images to choose: {images}. Give at least {LEAST_IMAGES}, better 100.")
    if len(as_targets(options.targets, options.versus)) > 1:
        raise UsageError("several targets: choosing compares the maps of one target. Give one, such as --targets top1.")
    found = as_methods(METHODS if options.methods is None else options.methods)
    for name, method in found.items():
        if isinstance(method, NetworkMethod):
            raise UsageError(f"method '{name}' explains the entire model, so it has no layer to choose. Remove it.")
    if not found:
        raise UsageError("no methods to compare. Give at least one, such as --methods gradcam,hirescam.")
    return found


def run_rounds(scores: CandidateScores, order: Sequence[int]) -> Choice:
    """Screen, halve and confirm. `order` are positions of images; the first half selects, the second half confirms."""
    start = time.monotonic()
    rounds = Rounds(scores)
    search, fresh = order[: len(order) // 2], order[len(order) // 2 :]
    screening = rounds.screen(search)
    if not screening.groups:
        raise UsageError(f"no image could be used: {next(iter(scores.failures.values()), 'no map is finite')}")
    if screening.candidates < 2:
        (only,) = screening.groups
        dropped = "".join(f" {candidate} has no finite map in many images." for candidate in screening.dropped)
        raise UsageError(
            f"there is one candidate, {only}, so there is no choice. Give more methods or layers.{dropped}"
        )
    search = [image for image in search if image not in scores.failures]
    ranked = sorted(screening.means, key=lambda one: -screening.means[one])[:KEPT]
    quarter = max(4, len(search) // 4)
    for seen in (quarter, 2 * quarter):
        if len(ranked) > FINALISTS:
            rounds.compare(ranked, search[:seen])
            ranked = best_half(ranked, rounds.table(ranked, search[:seen]))
    rounds.compare(ranked, search[: 2 * quarter])
    ranked = by_mean(ranked, rounds.table(ranked, search[: 2 * quarter]))[:FINALISTS]
    return confirm(rounds, ranked, screening, fresh, len(order), start)


def by_mean(candidates: Sequence[Candidate], values: Array) -> list[Candidate]:
    """Return candidates in descending order of their mean."""
    means = values.mean(1)
    return [candidates[index] for index in np.argsort(-means, kind="stable")]


def best_half(candidates: Sequence[Candidate], values: Array) -> list[Candidate]:
    """Return the better half of candidates, and a few more whose difference from the last of them is uncertain."""
    order = by_mean(candidates, values)
    kept = max(FINALISTS, len(order) // 2)
    rows = {one: row for one, row in zip(candidates, values, strict=True)}
    more = []
    for one in order[kept : kept + MORE]:
        mean, error = mean_and_error(rows[order[kept - 1]] - rows[one])
        if mean < UNCERTAIN * error:
            more.append(one)
    return [*order[:kept], *more]


def confirm(
    rounds: Rounds, finalists: list[Candidate], screening: Screening, fresh: Sequence[int], images: int, start: float
) -> Choice:
    """Compare the finalists on images that were not used so far, and return the choice."""
    scores = rounds.scores
    rounds.compare(finalists, fresh)
    values, used = rounds.table(finalists, fresh), rounds.common(finalists, fresh)
    failures = dict(scores.failures)  # before the witnesses: an image without one of them was used
    layers = scores.explain(used[0]).layer_info
    rows = [
        Finalist(
            finalists[at], screening.groups[finalists[at]], values[at], screening.means[finalists[at]],
            cost_of(scores.explainer.methods, layers, finalists[at]),
        )
        for at in np.argsort(-values.mean(1), kind="stable")
    ]  # fmt: skip
    differences = compare_all(np.stack([one.values for one in rows])) if len(rows) > 1 else []
    chances = [scores.probabilities[image] for image in used if image in scores.probabilities]
    judgment = judge(rows, differences, float(np.mean(chances)) if chances else None)
    notes: list[str] = []
    if judgment.other is not None:
        pair = [
            rows[0].candidate,
            next(one for one in (judgment.other, judgment.recommended) if one is not rows[0]).candidate,
        ]
        judgment, notes = apply_witnesses(judgment, rows[0], find_witnesses(rounds, pair, used))
    notes += chance_notes(rows[0], activations_alone(rounds, rows[0].candidate.layer, used))
    notes += other_notes(judgment.recommended, screening, failures)
    settings = scores.explainer.options
    record = {
        "model": scores.model.uri, "weights": scores.model.weights_hash, "targets": as_texts(settings.targets),
        "fit": settings.fit, "fillers": list(FILLERS), "candidates": screening.candidates, "images": images,
        "images_confirming": len(used), "images_failed": len(failures), "passes": scores.passes,
        "full_passes": screening.candidates * images * 2 * (STEPS - 1), "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    chosen = judgment.recommended.candidate
    return Choice(
        chosen.method, chosen.layer, judgment.verdict, judgment.reason, tuple(notes), tuple(rows), tuple(differences),
        screening.means, record,
    )  # fmt: skip


def find_witnesses(rounds: Rounds, pair: Sequence[Candidate], images: Sequence[int]) -> dict[str, Array]:
    """Return by name the values `(2, images)` of two candidates: SRG with another filler, and correlation with shared masks."""
    other = Rounds(rounds.scores, rounds.side)
    other.compare(pair, images, FILLERS[1])
    found = [one for image in images[::FEWER] if all(name in (one := rounds.scores.screen(image)) for name in pair)]
    witnesses = {"correlation with shared masks": np.array([[one[name][0] for one in found] for name in pair])}
    if len(other.common(pair, images)) > 1:
        witnesses[f"SRG with the filler '{FILLERS[1]}'"] = other.table(pair, images)
    return {name: values for name, values in witnesses.items() if values.shape[1] > 1}


def activations_alone(rounds: Rounds, layer: str, images: Sequence[int]) -> dict[int, float]:
    """Return the SRG of the activations of a layer without any class, by the position in `images`."""
    reference = Candidate(REFERENCE, layer)
    rounds.compare([reference], images[::FEWER])
    return {at: rounds.gains[reference][image] for at, image in enumerate(images) if image in rounds.gains[reference]}


def chance_notes(best: Finalist, activations: dict[int, float]) -> list[str]:
    """Return a note if the best finalist is not clearly better than chance, or than the activations alone."""
    if best.mean < CLEAR * best.error:
        return [f"The SRG of {best.candidate}, {best.mean:.3f} with standard error {best.error:.3f}, may be chance."]
    if len(activations) < 2 or best.candidate.method == REFERENCE:
        return []
    gain, error = mean_and_error(best.values[list(activations)] - np.array(list(activations.values())))
    if gain >= CLEAR * error:
        return []
    return [
        f"{best.candidate} is not clearly better than the activations alone, which depend on no class (difference {gain:.3f}, "
        f"standard error {error:.3f})."
    ]


def other_notes(recommended: Finalist, screening: Screening, failures: dict[int, str]) -> list[str]:
    """Return notes about equal candidates, those that were dropped, and images that were not used."""
    notes = []
    if len(recommended.equal) > 1:
        notes.append(f"Equal maps up to a factor, counted once: {', '.join(map(str, recommended.equal))}.")
    for candidate, image in screening.dropped.items():
        notes.append(
            f"{candidate} was not compared, because it has no finite map in many images, such as image {image + 1}."
        )
    if failures:
        position, text = next(iter(failures.items()))
        count = "1 image was" if len(failures) == 1 else f"{len(failures)} images were"
        notes.append(f"{count} not used; image {position + 1}: {text}")
    return notes


def cost_of(
    methods: Mapping[str, AnyMethod], layers: Mapping[str, LayerInfo], candidate: Candidate
) -> tuple[int, int, int]:
    """Return what decides between equally good candidates, lower is better: extra passes, - cells, place in the list."""
    info = layers[candidate.layer]
    cells = int(np.prod(info.grid))
    passes = methods[candidate.method].forwards(info.channels, cells)
    return passes, -cells, list(methods).index(candidate.method)


def as_texts(targets: Any) -> list[str]:
    """Return targets as text, for the record."""
    return (
        [] if targets is None else [str(one) for one in (targets if isinstance(targets, list | tuple) else [targets])]
    )


def planned_passes(images: int) -> int:
    """Return about how many forward passes a choice needs; it does not depend on the number of candidates."""
    for_filler, half = 2 * (STEPS - 1), images // 2
    quarter = max(4, half // 4)
    screening = half * (COARSE**2 + SUBSETS + 8)
    halving = quarter * (for_filler + 4) * (KEPT + KEPT // 2 + MORE)
    confirmation = (images - half) * (for_filler * (FINALISTS + 1 + 2) + COARSE**2 + SUBSETS + 30)
    return screening + halving + confirmation
