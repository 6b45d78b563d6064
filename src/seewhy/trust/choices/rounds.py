"""The values that the rounds of a choice measure: screening of all candidates, and SRG of the best ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seewhy.errors import UsageError
from seewhy.trust.choices.candidates import Candidate, CandidateScores, merge_equal
from seewhy.trust.metrics.evidence import SIDE

Array = NDArray[np.float64]

MISSING = 0.1  # fraction of the images without a map from which a candidate is dropped; of fewer, the images are


@dataclass(eq=False)
class Rounds:
    """The values that the rounds of one choice have measured."""

    scores: CandidateScores
    side: int = SIDE
    gains: dict[Candidate, dict[int, float]] = field(default_factory=dict)  # SRG by image

    def screen(self, images: Sequence[int]) -> Screening:
        """Return the scores of all candidates, and the groups of equal candidates."""
        found = {image: result for image in images if (result := self.scores.screen(image))}
        usable = {
            image: {name: pair for name, pair in one.items() if np.isfinite(pair[1]).all()}
            for image, one in found.items()
        }
        names = list(
            dict.fromkeys(name for one in found.values() for name in one if name.method in self.scores.methods)
        )
        missing = {name: [image for image, one in usable.items() if name not in one] for name in names}
        dropped = {name: at[0] for name, at in missing.items() if len(at) > MISSING * len(found)}
        kept = [name for name in names if name not in dropped]
        rows = {name: {image: one[name] for image, one in usable.items() if name in one} for name in kept}
        groups = merge_equal({name: {image: sums for image, (_, sums) in row.items()} for name, row in rows.items()})
        means = {name: float(np.mean([score for score, _ in rows[name].values()])) for name in groups}
        return Screening(means, groups, dropped)

    def compare(self, candidates: Sequence[Candidate], images: Sequence[int], filler: str = "blur") -> None:
        """Compute the SRG of candidates on images that do not have it yet."""
        for image in images:
            missing = [one for one in candidates if image not in self.gains.setdefault(one, {})]
            if missing and image not in self.scores.failures:
                for one, value in self.scores.srg(image, missing, filler, self.side).items():
                    self.gains[one][image] = value

    def common(self, candidates: Sequence[Candidate], images: Sequence[int]) -> list[int]:
        """Return the images that have the SRG of all candidates."""
        return [image for image in images if all(image in self.gains.get(one, {}) for one in candidates)]

    def table(self, candidates: Sequence[Candidate], images: Sequence[int]) -> Array:
        """Return the SRG `(candidates, images)` on the images that have it for all of them."""
        usable = self.common(candidates, images)
        if len(usable) < 2:
            raise UsageError(f"too few images could be used. {next(iter(self.scores.failures.values()), '')}")
        return np.array([[self.gains[one][image] for image in usable] for one in candidates])


@dataclass(frozen=True)
class Screening:
    """The result of the screening.

    Attributes:
        means: Mean score of the first candidate of each group.
        groups: Candidates with equal maps, by the first of them.
        dropped: Candidates without a finite map in many images, with the first of these images.
    """

    means: dict[Candidate, float]
    groups: dict[Candidate, tuple[Candidate, ...]]
    dropped: dict[Candidate, int]

    @property
    def candidates(self) -> int:
        """Number of candidates, equal ones included."""
        return sum(map(len, self.groups.values()))
