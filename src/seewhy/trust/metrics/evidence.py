"""The measurements that metrics read: once for an image and target, and once for each of its maps.

Everything is computed on first use, so that a metric costs only the forward passes that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seewhy.engine.rescoring import Rescoring
from seewhy.explanation.components import NETWORK, TargetResult
from seewhy.explanation.curves import RemovalCurve, RemovalCurves
from seewhy.explanation.data import MapKey, heatmap_of, placed_maps
from seewhy.explanation.result import Explanation
from seewhy.signals.scoring import LogOdds, Probability, Scoring, TargetScore
from seewhy.targets import ResolvedTarget
from seewhy.trust.fillers import Fill, as_filler
from seewhy.trust.metrics.dimming import Dimming
from seewhy.trust.metrics.layer_zeroing import score_without_layer
from seewhy.trust.metrics.not_defined import NotDefined
from seewhy.trust.metrics.removal import STEPS, random_curve, removal_curves, score_masks
from seewhy.trust.metrics.repetition import Repetition
from seewhy.trust.metrics.shared_masks import SUBSETS, single_masks, subset_masks
from seewhy.trust.metrics.units import unit_sums
from seewhy.trust.scorer import ImageScorer

Array = NDArray[np.float64]

SIDE = 7  # units per side of the image
RANDOM_ORDERS = 3
NOT_FINITE = "the score is not a finite number when parts of the image are covered"


@dataclass(eq=False)
class ImageEvidence:
    """What the maps of one image and one target share.

    Attributes:
        rescoring: Runs the model on changed images.
        explanation: The explanation of the batch.
        image: Position of the image in the batch.
        target: Key of the target.
        repetition: Explains changed images.
        side: Units per side of the image.
        steps: Fractions of the units at which removal tests compute a score.
    """

    rescoring: Rescoring
    explanation: Explanation
    image: int
    target: str
    repetition: Repetition
    side: int = SIDE
    steps: int = STEPS
    _fills: dict[str, Fill] = field(default_factory=dict)
    _ends: dict[str, tuple[float, float]] = field(default_factory=dict)
    _random: dict[str, RemovalCurve] = field(default_factory=dict)
    _drops: dict[tuple[str, int], tuple[NDArray[np.bool_], Array]] = field(default_factory=dict)

    @property
    def resolved(self) -> ResolvedTarget:
        """The target."""
        return self.rescoring.targets[self.target]

    @property
    def is_class(self) -> bool:
        """True if the target is a class, so that it has a probability."""
        return self.resolved.classes is not None

    @cached_property
    def result(self) -> TargetResult:
        """Name, scores and classes of the target for the batch."""
        return next(result for result in self.explanation.target_results if result.key == self.target)

    def scorer(self, scoring: Scoring) -> ImageScorer:
        """Return a function that scores changed images."""
        return ImageScorer(self.rescoring, self.image, self.target, scoring)

    @cached_property
    def removal(self) -> ImageScorer:
        """The score of removal tests: the probability of a class, or the score of another target."""
        return self.scorer(Probability() if self.is_class else TargetScore())

    @cached_property
    def drops(self) -> ImageScorer:
        """The score of tests with shared masks: the log-odds of a class, or the score of another target."""
        return self.scorer(LogOdds() if self.is_class else TargetScore())

    @property
    def size(self) -> tuple[int, ...]:
        """Size of the input."""
        return self.removal.size

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Units along each axis of the input."""
        return tuple(min(self.side, length) for length in self.size)

    def fill(self, filler: str) -> Fill:
        """Return the function that covers parts of the image."""
        if filler not in self._fills:
            self._fills[filler] = as_filler(filler).bind(self.removal.input)
        return self._fills[filler]

    def ends(self, filler: str) -> tuple[float, float]:
        """Return the scores of the image and of the fully covered image."""
        if filler not in self._ends:
            covered = np.array([[False], [True]]).repeat(int(np.prod(self.grid)), axis=1)
            first, last = score_masks(self.removal, self.fill(filler), covered, self.grid, self.size)
            if not np.isfinite([first, last]).all():
                raise NotDefined(NOT_FINITE)
            self._ends[filler] = float(first), float(last)
        return self._ends[filler]

    @property
    def measured_fillers(self) -> tuple[str, ...]:
        """The fillers of the removal tests that were run."""
        return tuple(self._ends)

    def random(self, filler: str) -> RemovalCurve:
        """Return the mean curve of random orders."""
        if filler not in self._random:
            self._random[filler] = random_curve(
                self.removal, self.fill(filler), grid=self.grid, size=self.size, steps=self.steps,
                orders=RANDOM_ORDERS, ends=self.ends(filler),
            )  # fmt: skip
        return self._random[filler]

    def single_drops(self, filler: str) -> Array:
        """Return by how much the score drops if one unit is covered, `(units,)`."""
        return self._masked(filler, 1, single_masks)[1]

    def subset_drops(self, filler: str) -> tuple[NDArray[np.bool_], Array]:
        """Return random subsets of half of the units, and by how much the score drops if they are covered."""
        half = int(np.prod(self.grid)) // 2
        return self._masked(filler, half, lambda units: subset_masks(units, half, SUBSETS))

    def _masked(
        self, filler: str, covered: int, make: Callable[[int], NDArray[np.bool_]]
    ) -> tuple[NDArray[np.bool_], Array]:
        if (filler, covered) not in self._drops:
            masks = make(int(np.prod(self.grid)))
            scores = score_masks(self.drops, self.fill(filler), masks, self.grid, self.size)
            if not (np.isfinite(scores).all() and np.isfinite(self.drops.own)):
                raise NotDefined(NOT_FINITE)
            self._drops[filler, covered] = masks, self.drops.own - scores
        return self._drops[filler, covered]

    @cached_property
    def other_class(self) -> Mapping[MapKey, Tensor]:
        """The signed maps of the most likely other class, `(1, *grid)` each, by the keys of this target."""
        if not self.is_class or self.explanation.logits is None:
            raise NotDefined("the target is not a class")
        order = self.explanation.logits[self.image].argsort(descending=True).tolist()
        if len(order) < 2:
            raise NotDefined("the model has one class")
        own = int(self.result.classes[self.image])  # type: ignore[index]
        other = order[1] if order[0] == own else order[0]
        return self.repetition.explain_class(self.image, self.target, other)


@dataclass(eq=False)
class MapEvidence:
    """The measurements of one map of one image."""

    image: ImageEvidence
    key: MapKey
    measured_curves: dict[str, RemovalCurves] = field(default_factory=dict)

    @property
    def signed(self) -> Tensor:
        """The signed map `(*cells)`, in the units of the method."""
        return self.image.explanation.maps[self.key][self.image.image]

    @cached_property
    def sums(self) -> Array:
        """The sum of the signed map in each unit, `(units,)`."""
        placed = placed_maps(self.image.explanation, self.key)[self.image.image]
        return as_array(unit_sums(placed[None], self.image.grid)[0])

    @cached_property
    def heatmap(self) -> Tensor:
        """The heatmap at the size of the input, in [0, 1]. Raises NotDefined if the map has no positive value."""
        heatmap = heatmap_of(self.image.explanation, self.key, "own").at_input()[self.image.image]
        if not heatmap.max() > 0:
            raise NotDefined("the map has no positive evidence")
        return heatmap.detach()

    def curves(self, filler: str) -> RemovalCurves:
        """Return the curves of the removal test."""
        if filler not in self.measured_curves:
            shared = self.image
            self.measured_curves[filler] = removal_curves(
                shared.removal, shared.fill(filler), self.sums, grid=shared.grid, size=shared.size,
                steps=shared.steps, ends=shared.ends(filler),
            )  # fmt: skip
            both = self.measured_curves[filler]
            if not all(np.isfinite(one.scores).all() for one in (both.most_first, both.least_first)):
                del self.measured_curves[filler]
                raise NotDefined(NOT_FINITE)
        return self.measured_curves[filler]

    @cached_property
    def dimming(self) -> Dimming:
        """The probability of the class when the image is dimmed by its heatmap."""
        shared = self.image
        if not shared.is_class:
            raise NotDefined("the target is not a class, so it has no probability")
        scorer = shared.scorer(Probability())
        weights = torch.stack([self.heatmap, 1 - self.heatmap])
        kept, removed = scorer(2, lambda at: scorer.input * weights[at, None].to(scorer.input)).tolist()
        return Dimming(scorer.own, kept, removed)

    def again(self, inputs: Tensor) -> Tensor:
        """Return the signed maps `(n, *cells)` of changed versions `(n, C, *size)` of the image."""
        self._check_place()
        return self.image.repetition.explain(inputs, self.key, self.image.image)

    def with_model(self, changed: nn.Module) -> Tensor:
        """Return the signed map `(*cells)` of the image with another model."""
        self._check_place()
        return self.image.repetition.explain_with(changed, self.key, self.image.image)

    @cached_property
    def dimmed_again(self) -> Array:
        """The heatmap of the image multiplied by its heatmap, as a map at the size of the input."""
        self._check_place()
        shared, weight = self.image, self.heatmap
        dimmed = shared.removal.input * weight.to(shared.removal.input)
        e = shared.repetition.explanation_of(dimmed[None], self.key, shared.image)
        (key,) = e.maps
        if not e.maps[key].isfinite().all():
            raise NotDefined("the map of the dimmed image contains values that are not finite numbers")
        return as_array(heatmap_of(e, key, "own").at_input()[0])

    def _check_place(self) -> None:
        if self.image.resolved.has_location:
            raise NotDefined(
                "the place of the target is selected in each image, so a changed image may have another one"
            )

    @cached_property
    def score_without_layer(self) -> float:
        """The score of the target with this layer set to zero."""
        if self.key[2] == NETWORK:
            raise NotDefined("the method belongs to no layer")
        return score_without_layer(self.image.rescoring, self.image.target, self.image.image, self.key[2])


def as_array(values: Tensor) -> Array:
    """Return a tensor as float64 array."""
    array: Array = values.detach().double().cpu().numpy()
    return array
