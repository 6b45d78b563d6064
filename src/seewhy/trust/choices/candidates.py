"""Candidates, which are pairs of a method and a layer, and their scores on single images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy.engine.inputs import read_inputs
from seewhy.engine.pipeline import Explainer
from seewhy.engine.rescoring import open_rescoring
from seewhy.errors import ImageError, SeewhyError, TargetError
from seewhy.explanation.result import Explanation
from seewhy.models.loaded_model import LoadedModel
from seewhy.trust.metrics.evidence import ImageEvidence, MapEvidence
from seewhy.trust.metrics.not_defined import NotDefined
from seewhy.trust.metrics.removal_metrics import srg
from seewhy.trust.metrics.repetition import Repetition
from seewhy.trust.metrics.shared_masks import sensitivity_n, single_deletion
from seewhy.trust.scorer import on_prepared

Array = NDArray[np.float64]

COARSE = 4  # units per side in the screening: covering one of them changes the score noticeably
SAME = 1e-3  # relative difference of maps that are counted as equal
REFERENCE = "lafam"  # the mean of the channels: what the activations of a layer give without any class


@dataclass(frozen=True, order=True)
class Candidate:
    """A method at a layer."""

    method: str
    layer: str

    def __str__(self) -> str:
        return f"{self.method} at {self.layer}"


@dataclass(eq=False)
class CandidateScores:
    """Computes the scores of candidates on images, one image at a time.

    Only the images are kept between calls: explaining one again costs one forward and one backward pass.

    Attributes:
        model: The model.
        explainer: Explains one image with all methods and layers.
        images: What `explain` accepts, one image each.
        methods: Names of the methods that are candidates; the explainer also computes the reference.
        on_passes: Called with the number of further forward passes.
        passes: Forward passes so far.
        failures: Why images could not be used, by position.
        probabilities: Probability of the target in each image; empty if the target is not a class.
    """

    model: LoadedModel
    explainer: Explainer
    images: Sequence[Any]
    methods: tuple[str, ...]
    on_passes: Callable[[int], None] = lambda count: None
    passes: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    probabilities: dict[int, float] = field(default_factory=dict)

    def count(self, passes: int) -> None:
        """Add forward passes."""
        self.passes += passes
        self.on_passes(passes)

    def check_readable(self, image: int) -> bool:
        """Return True if an image can be read and is a single one; otherwise record why not."""
        try:
            rows = len(read_inputs(self.images[image], self.explainer.model).tensor)
            reason = (
                "" if rows == 1 else f"{rows} images in one item: pass each one separately, a tensor as (1, C, H, W)"
            )
        except ImageError as error:
            reason = str(error)
        if reason:
            self.failures[image] = reason
        return not reason

    def explain(self, image: int) -> Explanation:
        """Return the explanation of one image, without its photo. Raises SeewhyError if it fails."""
        e = self.explainer.explain(self.images[image])
        self.count(1)
        return dataclasses.replace(e, images=None)

    def on_image(
        self, image: int, side: int, score: Callable[[ImageEvidence], dict[Candidate, Any]]
    ) -> dict[Candidate, Any]:
        """Return what `score` returns for the evidence of one image; empty if the image fails.

        Raises:
            UsageError: The first image fails for a reason that is not its own, such as a layer that does not exist.
        """
        try:
            e = self.explain(image)
        except SeewhyError as error:
            if not self.passes and not isinstance(error, ImageError | TargetError):
                raise
            self.failures[image] = str(error)
            return {}

        def run(loaded: LoadedModel) -> dict[Candidate, Any]:
            rescoring = open_rescoring(loaded, e, memory=int(self.explainer.options.memory * 2**20))
            rescoring.evaluator.on_progress = self.count
            self.count(1)
            evidence = ImageEvidence(rescoring, e, 0, e.targets[0], Repetition(loaded, e), side)
            if evidence.is_class:
                self.probabilities[image] = evidence.removal.own
            return score(evidence)

        try:
            return on_prepared(self.model, run)
        except (SeewhyError, NotDefined) as error:
            self.failures[image] = str(error)
            return {}

    def screen(self, image: int) -> dict[Candidate, tuple[float, Array]]:
        """Return for all candidates how well they predict the effect of shared masks, and the sums of their maps in units.

        The first is the mean of the single-deletion correlation and sensitivity-n with 4 x 4 units; 0 for a constant map, which
        predicts no differences. The second is not finite if the map is not.
        """

        def score(shared: ImageEvidence) -> dict[Candidate, tuple[float, Array]]:
            maps = maps_of(shared)
            sums = np.stack([one.sums for one in maps.values()])
            masks, drops = shared.subset_drops("blur")
            both = single_deletion(sums, shared.single_drops("blur")), sensitivity_n(sums, drops, masks)
            values = np.nan_to_num(np.stack(both)).mean(0)
            return {candidate: (float(v), row) for candidate, v, row in zip(maps, values, sums, strict=True)}

        return self.on_image(image, COARSE, score)

    def srg(self, image: int, candidates: Sequence[Candidate], filler: str, side: int) -> dict[Candidate, float]:
        """Return the symmetric relevance gain of candidates. That of a constant map is 0: all units are covered at once.

        The image fails if a candidate has no finite map, because comparisons need all of them.
        """

        def score(shared: ImageEvidence) -> dict[Candidate, float]:
            maps = maps_of(shared)
            for candidate in candidates:
                if candidate not in maps or not np.isfinite(maps[candidate].sums).all():
                    raise NotDefined(f"{candidate} has no finite map")
            return {candidate: srg(maps[candidate].curves(filler)) for candidate in candidates}

        return self.on_image(image, side, score)


def maps_of(shared: ImageEvidence) -> Mapping[Candidate, MapEvidence]:
    """Return the evidence of the maps of all candidates, in the order of the explanation."""
    return {Candidate(key[0], key[2]): MapEvidence(shared, key) for key in shared.explanation.maps}


def merge_equal(values: Mapping[Candidate, Mapping[int, Array]]) -> dict[Candidate, tuple[Candidate, ...]]:
    """Return groups of candidates whose maps are equal up to a positive factor in every image, by their first member.

    Args:
        values: For each candidate, the sums of its maps in units, by image. Only common images are compared.

    Example:
        >>> one, two, three = (Candidate(name, "a") for name in "xyz")
        >>> ramp, peak = np.arange(4.0), np.array([0.0, 1, 0, 0])
        >>> merge_equal({one: {0: ramp}, two: {0: 3 * ramp}, three: {0: peak}})[one] == (one, two)
        True
    """
    scaled = {candidate: {image: unit_length(one) for image, one in rows.items()} for candidate, rows in values.items()}
    groups: dict[Candidate, tuple[Candidate, ...]] = {}
    for candidate, rows in scaled.items():
        for first in groups:
            common = rows.keys() & scaled[first].keys()
            if common and all(np.abs(scaled[first][image] - rows[image]).max() <= SAME for image in common):
                groups[first] += (candidate,)
                break
        else:
            groups[candidate] = (candidate,)
    return groups


def unit_length(values: Array) -> Array:
    """Return values divided by their length; zeros stay zeros."""
    length = float(np.linalg.norm(values))
    return values / length if length > 0 else values
