"""The rules that turn measured values of the finalists into a recommendation and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seewhy.trust.choices.candidates import Candidate
from seewhy.trust.choices.comparison import Difference, mean_and_error

Array = NDArray[np.float64]
Verdict = Literal["better", "no difference", "not enough images", "metrics disagree", "no effect", "equal maps"]

MARGIN = 0.1  # of the best value: a smaller difference does not matter
EFFECT = 0.02  # of the probability of the image: a smaller SRG is no effect
CLEAR = 2  # standard errors
MANY = 10_000  # images: more than anyone would use to decide between two candidates
REASONS = ("it needs fewer forward passes", "its layer has a finer grid", "it is the first in the list of methods")


@dataclass(frozen=True, eq=False)
class Finalist:
    """A candidate that was compared on the fresh images.

    Attributes:
        candidate: The method and the layer.
        equal: All candidates with the same maps, including this one.
        values: SRG of each fresh image; 0 by chance.
        screened: Mean score of the screening.
        cost: What decides between equally good candidates, lower is better: extra forward passes, minus the number of cells,
            position in the list of methods.
    """

    candidate: Candidate
    equal: tuple[Candidate, ...]
    values: Array
    screened: float
    cost: tuple[int, int, int] = (0, 0, 0)

    @property
    def mean(self) -> float:
        """Mean SRG."""
        return float(self.values.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return mean_and_error(self.values)[1]

    def to_dict(self) -> dict[str, object]:
        """Return the finalist for JSON."""
        return {
            "method": self.candidate.method, "layer": self.candidate.layer, "srg": self.mean, "error": self.error,
            "screened": self.screened, "equal": [str(one) for one in self.equal[1:]],
            "images_with_constant_map": int((self.values == 0).sum()),
        }  # fmt: skip


@dataclass(frozen=True)
class Judgment:
    """A recommendation.

    Attributes:
        recommended: The finalist to use.
        verdict: How certain it is.
        reason: One sentence.
        other: The finalist that it was compared with; None if there is only one.
    """

    recommended: Finalist
    verdict: Verdict
    reason: str
    other: Finalist | None = None


def judge(finalists: Sequence[Finalist], differences: Sequence[Difference], probability: float | None) -> Judgment:
    """Return the recommendation.

    Args:
        finalists: Best first.
        differences: Of all pairs of finalists.
        probability: Mean probability of the images; None if the measured score is not a probability.
    """
    best, images = finalists[0], len(finalists[0].values)
    ahead = [one for one in differences if one.first == 0]
    if not ahead:
        reason = "All candidates that have maps give the same ones up to a factor, so any of them will do."
        return Judgment(best, "equal maps", reason)
    if probability is not None and best.mean < EFFECT * probability:
        reason = (
            f"Covering parts of the images in the order of a map hardly matters (SRG {best.mean:.4f}, mean probability "
            f"{probability:.3f}), so the candidates cannot be compared."
        )
        return Judgment(best, "no effect", reason, finalists[1])
    margin = MARGIN * max(best.mean, 0)
    close = [one for one in ahead if -margin < one.low and one.high < margin]
    undecided = [one for one in ahead if one not in close and not one.low > 0]
    if undecided:
        other, needed = finalists[undecided[0].second], max(one.images_needed(images, margin) for one in undecided)
        more = f"About {2 * needed:,} images in total are needed to decide."
        more = more if 0 < 2 * needed <= MANY else "More images will hardly decide it."
        reason = f"It is ahead of {other.candidate} by {numbers(undecided[0])} SRG on {images} images. {more}"
        return Judgment(best, "not enough images", reason, other)
    if not close:
        other = finalists[ahead[0].second]
        reason = (
            f"Its SRG is higher than that of {other.candidate} by {numbers(ahead[0])}, paired over {images} images that did "
            "not select it."
        )
        return Judgment(best, "better", reason, other)
    equal = [best, *(finalists[one.second] for one in close)]
    cheapest = min(equal, key=lambda one: one.cost)
    nearest = next((one for one in close if finalists[one.second] is cheapest), close[0])
    other = finalists[nearest.second] if cheapest is best else best
    reason = (
        f"No difference that matters from {other.candidate}: {numbers(nearest)} SRG, less than {margin:.3f}. It is recommended "
        f"because {why_cheaper(cheapest, other)}."
    )
    return Judgment(cheapest, "no difference", reason, other)


def numbers(difference: Difference) -> str:
    """Return a difference with its interval as text."""
    return f"{difference.mean:.3f} ({difference.low:.3f} to {difference.high:.3f})"


def why_cheaper(one: Finalist, other: Finalist) -> str:
    """Return what decides between two equally good candidates."""
    pairs = zip(REASONS, one.cost, other.cost, strict=True)
    return next((reason for reason, mine, its in pairs if mine != its), REASONS[-1])


def apply_witnesses(judgment: Judgment, best: Finalist, witnesses: Mapping[str, Array]) -> tuple[Judgment, list[str]]:
    """Return the judgment after other metrics, and a sentence about each of them.

    Args:
        judgment: From `judge`.
        best: The finalist with the highest SRG.
        witnesses: By name, values `(2, images)` of `best` and of the finalist that it is compared with.
    """
    compared = judgment.other if judgment.recommended is best else judgment.recommended
    assert compared is not None
    notes: list[str] = []
    for_best: list[str] = []
    for_other: list[str] = []
    for name, values in witnesses.items():
        mean, error = mean_and_error(values[0] - values[1])
        is_clear = abs(mean) > CLEAR * error and abs(mean) > MARGIN * np.abs(values.mean(1)).max()
        if is_clear:
            (for_best if mean > 0 else for_other).append(name)
        verb = "does not decide" if not is_clear else "agrees" if mean > 0 else "disagrees"
        pair = f"{best.candidate} minus {compared.candidate}"
        notes.append(f"{name} {verb}: {pair} is {mean:.3f}, standard error {error:.3f}.")
    if judgment.verdict == "better" and for_other:
        reason = f"{judgment.reason} But {for_other[0]} prefers {compared.candidate}, so this is not settled."
        return replace(judgment, verdict="metrics disagree", reason=reason), notes
    if judgment.verdict == "no difference" and judgment.recommended is not best and for_best and not for_other:
        reason = (
            f"No difference that matters from {compared.candidate} in SRG, but {for_best[0]} prefers {best.candidate}."
        )
        return Judgment(best, "no difference", reason, compared), notes
    return judgment, notes
