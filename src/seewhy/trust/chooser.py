"""`choose`: which method and layer to use for a model, measured on a sample of the user's images.

Half of the images select: all candidates are screened with masks that they share, and the best are compared by their symmetric
relevance gain (SRG), on more and more images. The other half confirms, because a winner that is tested on the images that
selected it seems better than it is: among 60 equal candidates, that prefers one in 75 % of the runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from seewhy.engine.options import Options
from seewhy.engine.pipeline import Explainer
from seewhy.engine.progress import Progress
from seewhy.errors import UsageError
from seewhy.fast.prepared import as_prepared
from seewhy.methods.base import AnyMethod, NetworkMethod
from seewhy.methods.parsing import MethodSpec, as_methods
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.loading import load_model
from seewhy.targets import as_targets
from seewhy.trust.candidates import COARSE, REFERENCE, Candidate, CandidateScores, merge_equal
from seewhy.trust.choice import Choice, Finalist, decide
from seewhy.trust.comparison import means_and_errors
from seewhy.trust.evidence import SIDE
from seewhy.trust.removal import STEPS
from seewhy.trust.shared_masks import SUBSETS

Array = NDArray[np.float64]

METHODS = ("gradcam", "gradcampp", "hirescam", "layercam", "xgradcam")  # share one backward pass
LAYERS = ("stages", "suggested")
FILLERS = ("blur", "mean")  # the first decides, the second is a witness
LEAST_IMAGES = 16
KEPT, FINALISTS = 8, 3  # candidates after the screening, and in the confirmation
MORE = 2  # candidates that may stay in addition, because their difference from the last one is uncertain
UNCERTAIN = 2  # standard errors


@dataclass(eq=False)
class Rounds:
    """The rounds of one choice. `order` are the positions of the images, in random order."""

    scores: CandidateScores
    order: Sequence[int]
    side: int = SIDE
    gains: dict[Candidate, dict[int, float]] = field(default_factory=dict)  # SRG by image

    def screen(self, images: Sequence[int]) -> tuple[dict[Candidate, Array], dict[Candidate, tuple[Candidate, ...]]]:
        """Return the scores of all candidates `(images,)`, and the groups of equal candidates."""
        found = [result for image in images if (result := self.scores.screen(image))]
        if not found:
            return {}, {}
        # A candidate must have a map in every image: a method may not support some of them.
        names = [one for one in found[0] if one.method in self.scores.methods]
        names = [name for name in names if all(name in one and np.isfinite(one[name][1]).all() for one in found)]
        groups = merge_equal({name: [one[name][1] for one in found] for name in names})
        return {name: np.array([one[name][0] for one in found]) for name in groups}, groups

    def compare(self, candidates: Sequence[Candidate], images: Sequence[int], filler: str = FILLERS[0]) -> None:
        """Compute the SRG of candidates on images that do not have it yet."""
        for image in images:
            missing = [one for one in candidates if image not in self.gains.setdefault(one, {})]
            if missing and image not in self.scores.failures:
                for one, value in self.scores.srg(image, missing, filler, self.side).items():
                    self.gains[one][image] = value

    def table(self, candidates: Sequence[Candidate], images: Sequence[int]) -> Array:
        """Return the SRG `(candidates, images)` on the images that have it for all of them."""
        usable = [image for image in images if all(image in self.gains[one] for one in candidates)]
        return np.array([[self.gains[one][image] for image in usable] for one in candidates])


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
        UsageError: There are too few images, fewer than two candidates, or a method is not supported.

    Example:
        >>> import seewhy, torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> images = [torch.rand(1, 3, 16, 16) for _ in range(16)]
        >>> choose(net, images, methods=["gradcam", "hirescam"], layers=["1"]).verdict
        'equal maps'
    """
    options = Options(methods=methods, layers=layers, targets=targets, memory=memory)
    return choose_with(load_model(model), images, options, seed=seed, progress=progress)


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
    return run_rounds(scores, np.random.default_rng(seed).permutation(len(images)).tolist())


def check_choice(options: Options, images: int) -> dict[str, AnyMethod]:
    """Return the methods to compare by name.

    Raises:
        UsageError: There are too few images, several targets, no methods, or a method belongs to no layer.
    """
    if images < LEAST_IMAGES:
        raise UsageError(f"{images} images are too few to choose: give at least {LEAST_IMAGES}, better 100.")
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
    rounds = Rounds(scores, order)
    search, fresh = order[: len(order) // 2], order[len(order) // 2 :]
    screened, groups = rounds.screen(search)
    candidates = list(screened)
    if not candidates:
        raise UsageError(f"no image could be used: {next(iter(scores.failures.values()), 'no map is finite')}")
    ranked = sorted(candidates, key=lambda one: -screened[one].mean())[:KEPT]
    quarter = max(4, len(search) // 4)
    for seen in (quarter, 2 * quarter):
        if len(ranked) > FINALISTS:
            rounds.compare(ranked, search[:seen])
            ranked = best_half(ranked, rounds.table(ranked, search[:seen]))
    rounds.compare(ranked, search[: 2 * quarter])
    ranked = by_mean(ranked, rounds.table(ranked, search[: 2 * quarter]))[:FINALISTS]
    return confirm(rounds, ranked, groups, screened, fresh, start)


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
        (mean,), (error,) = means_and_errors((rows[order[kept - 1]] - rows[one])[None])
        if mean < UNCERTAIN * error:
            more.append(one)
    return [*order[:kept], *more]


def confirm(
    rounds: Rounds,
    finalists: list[Candidate],
    groups: dict[Candidate, tuple[Candidate, ...]],
    screened: dict[Candidate, Array],
    fresh: Sequence[int],
    start: float,
) -> Choice:
    """Compare the finalists on images that were not used so far, and return the choice."""
    scores = rounds.scores
    rounds.compare(finalists, fresh)
    values = rounds.table(finalists, fresh)
    if values.ndim < 2 or values.shape[1] < LEAST_IMAGES // 2:
        raise UsageError(f"too few images could be used: {next(iter(scores.failures.values()), 'unknown')}")
    rows = [
        Finalist(finalists[at], groups[finalists[at]], values[at], float(screened[finalists[at]].mean()))
        for at in np.argsort(-values.mean(1), kind="stable")
    ]
    used = [image for image in fresh if all(image in rounds.gains[one] for one in finalists)]
    reference = Candidate(REFERENCE, rows[0].candidate.layer)
    rounds.compare([reference], used)
    activations = rounds.table([reference], used)[0]
    witnesses = {}
    if len(rows) > 1:
        best, second = rows[0].candidate, rows[1].candidate
        other = Rounds(scores, rounds.order, rounds.side)
        other.compare([best, second], used, FILLERS[1])
        witnesses[f"SRG with the filler '{FILLERS[1]}'"] = other.table([best, second], used)
        found = [result for image in used if (result := scores.screen(image))]
        both = [[one[name][0] for one in found] for name in (best, second)]
        witnesses["correlation with shared masks"] = np.array(both)
    costs = {one: cost_of(rounds, one) for one in finalists}
    compared = sum(map(len, groups.values()))
    return decide(
        rows, witnesses, costs, activations, is_probability=scores.is_probability,
        screened={one: float(v.mean()) for one, v in screened.items()},
        model=scores.model, images=len(rounds.order), failures=scores.failures, passes=scores.passes,
        full_passes=compared * len(rounds.order) * 2 * (STEPS - 1), seconds=time.monotonic() - start, candidates=compared,
    )  # fmt: skip


def cost_of(rounds: Rounds, candidate: Candidate) -> tuple[int, int, int]:
    """Return what decides between equally good candidates, lower is better: extra passes, - cells, place in the list."""
    e = next(e for image in rounds.order if (e := rounds.scores.explain(image)) is not None)
    info = e.layer_info[candidate.layer]
    cells = int(np.prod(info.grid))
    method = rounds.scores.explainer.methods[candidate.method]
    return method.forwards(info.channels, cells), -cells, list(rounds.scores.explainer.methods).index(candidate.method)


def planned_passes(images: int) -> int:
    """Return about how many forward passes a choice needs; it does not depend on the number of candidates."""
    for_filler, half = 2 * (STEPS - 1), images // 2
    quarter = max(4, half // 4)
    screening = half * (COARSE**2 + SUBSETS + 4)
    halving = quarter * for_filler * (KEPT + KEPT // 2)
    confirmation = (images - half) * (for_filler * (FINALISTS + 1 + 2) + COARSE**2 + SUBSETS + 12)
    return screening + halving + confirmation
