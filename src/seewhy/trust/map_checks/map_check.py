"""The check: cover parts of an image, and compare what happens with what each map predicts.

28 forward passes per image serve the maps of every layer, method and target. No random numbers are drawn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.engine.progress import Progress, counter
from seewhy.engine.rescoring import Rescoring, open_rescoring
from seewhy.errors import one_line
from seewhy.explanation.checks import MapCheck
from seewhy.explanation.data import MapKey, positive_maps
from seewhy.explanation.flags import find_flags
from seewhy.explanation.result import Explanation
from seewhy.explanation.windows import MASKS, WindowDrops
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.loading import load_model
from seewhy.tracing.model_errors import is_caused_by_memory, is_device_error
from seewhy.trust.fillers import Blur
from seewhy.trust.map_checks.statistic import check_maps, why_no_drops
from seewhy.trust.map_checks.windows import window_masks
from seewhy.trust.scorer import ImageScorer, log_odds_of, variants_of

SMALLEST = 8  # pixels per side of an image, so that windows differ
MEGABYTE = 2**20
MASKED = MASKS + 1  # the last one covers everything

UNUSABLE = {  # by flag of a map
    "non_finite": "the map contains values that are not finite numbers",
    "no_gradient": "the score does not depend on this layer",
    "no_evidence": "the map has no positive evidence",
    "constant": "the map has the same value everywhere",
    "no_grid": "the map has a single cell",
}


def check(
    model: nn.Module | LoadedModel,
    explanation: Explanation,
    *,
    arguments: Mapping[str, object] | None = None,
    memory: float = 256,
    progress: Progress | None = None,
) -> Explanation:
    """Check every map of an explanation: does it predict which covered parts lower the score, better than its copies do?

    27 parts of each image are kept or covered with a blurred copy. The drops of the score are correlated with the values of
    each map there, and this correlation is compared with those of 63 turned and shifted copies of the map. Of maps that are
    unrelated to the image, about 5 % are confirmed. The check tests locations, not classes: a map of a similar class can be
    confirmed too.

    Args:
        model: The model that was explained.
        explanation: As `explain` returned it, of one or several images.
        arguments: Keyword arguments for the model that were passed to `explain`.
        memory: Megabytes for one batch of covered images.
        progress: Called with (forward passes done, in total).

    Returns:
        The explanation, with `checks` and `drops`.

    Raises:
        UsageError: The explanation was loaded, so it contains no input; or the model is not the one that was explained, or
            draws random numbers.

    Example:
        >>> import seewhy
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> e = check(net, seewhy.explain(net, torch.rand(1, 3, 32, 32)))
        >>> e[0].check().verdict in ("confirmed", "not specific", "inconclusive", "contradicted", "not checked")
        True
    """
    loaded = load_model(model)
    total = MASKED * len(explanation) * len(explanation.targets)
    on_progress = None if progress is None else counter(progress, total)

    def open_one(variant: LoadedModel) -> Rescoring:
        rescoring = open_rescoring(variant, explanation, arguments=arguments, memory=int(memory * MEGABYTE))
        if on_progress is not None:
            rescoring.evaluator.on_progress = on_progress
        return rescoring

    finder = DropFinder([partial(open_one, variant) for variant in variants_of(loaded)])
    checks: dict[MapKey, list[MapCheck]] = {key: [] for key in explanation.maps}
    drops: dict[str, list[WindowDrops]] = {target: [] for target in explanation.targets}
    for image in range(len(explanation)):
        for target in explanation.targets:
            keys = [key for key in explanation.maps if key[1] == target]
            found = finder.find(target, image)
            drops[target].append(found)
            for key, result in check_keys(explanation, keys, image, found).items():
                checks[key].append(result)
    return dataclasses.replace(
        explanation,
        checks={key: tuple(results) for key, results in checks.items()},
        drops={target: tuple(results) for target, results in drops.items()},
    )


class DropFinder:
    """Finds by how much each mask lowers a score. A prepared model is replaced by the model itself once it fails.

    Args:
        openers: Return the model that is run: the prepared one, if there is one, and the model itself.
    """

    def __init__(self, openers: list[Callable[[], Rescoring]]) -> None:
        self.openers = openers
        self.rescoring: Rescoring | None = None

    def find(self, target: str, image: int) -> WindowDrops:
        """Return `find_drops` of an image. An error of the model on covered images becomes the reason.

        Raises:
            UsageError: From `open_rescoring`.
        """
        while True:
            try:
                self.rescoring = self.rescoring or self.openers[0]()
                return find_drops(self.rescoring, target, image)
            except Exception as error:  # model code may raise anything
                is_last = len(self.openers) == 1
                if is_caused_by_memory(error) or is_device_error(error) or (is_last and self.rescoring is None):
                    raise
                if is_last:
                    return WindowDrops(reason=f"the model fails on covered images ({one_line(error)})")
            self.openers, self.rescoring = self.openers[1:], None


def find_drops(rescoring: Rescoring, target: str, image: int) -> WindowDrops:
    """Return by how much each mask lowers the score of an image, and why that cannot be used if so."""
    size = tuple(rescoring.inputs.shape[2:])
    if len(size) != 2:
        return WindowDrops(reason="the check is defined for images only")
    if min(size) < SMALLEST:
        return WindowDrops(reason=f"the image is smaller than {SMALLEST} pixels")
    scorer = ImageScorer(rescoring, image, target, log_odds_of(rescoring.targets[target]))
    masks = window_masks(size)
    masks = torch.cat([masks, torch.ones(1, *size, dtype=torch.double)])  # the last one covers everything
    fill = Blur().bind(scorer.input)
    scores = scorer(len(masks), lambda at: fill(masks[at]), shared=("check", size))
    with np.errstate(invalid="ignore"):  # scores may be infinite
        drops = scorer.own - scores.double().cpu().numpy()
    values, everything = drops[:-1], float(drops[-1])
    reason = "the score does not drop when the entire image is blurred" if everything <= 0 else why_no_drops(values)
    if not np.isfinite(values).all():
        return WindowDrops(reason=reason)
    return WindowDrops(tuple(values.tolist()), everything if math.isfinite(everything) else math.nan, reason)


def check_keys(e: Explanation, keys: Sequence[MapKey], image: int, drops: WindowDrops) -> dict[MapKey, MapCheck]:
    """Return the checks of the maps of one image and one target. Maps of one grid are compared in one operation."""
    checks: dict[MapKey, MapCheck] = {}
    groups: dict[tuple[int, ...], dict[MapKey, Tensor]] = {}
    for key in keys:
        signed = e.maps[key][image : image + 1]
        gradient = e.has_gradient.get(key[1:])
        flags = find_flags(signed, None if gradient is None else gradient[image : image + 1])[0]
        if drops.reason or flags:
            checks[key] = MapCheck("not checked", reason=drops.reason or UNUSABLE[flags[0]])
            continue
        positive = positive_maps(e, key)[image]
        groups.setdefault(tuple(positive.shape), {})[key] = positive
    for group in groups.values():
        checks.update(zip(group, check_maps(torch.stack(list(group.values())), np.array(drops.values)), strict=True))
    return checks
