"""`Choice`: the recommended method and layer, with everything that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy import storage
from seewhy.storage.marks import StrPath
from seewhy.trust.choices.candidates import Candidate
from seewhy.trust.choices.choice_rules import Finalist, Verdict
from seewhy.trust.choices.comparison import Difference


@dataclass(frozen=True, eq=False)
class Choice:
    """Which method and layer to use for a model.

    Attributes:
        method, layer: The recommendation.
        verdict: "better": than all other finalists. "no difference": that matters. "not enough images": to decide. "metrics
            disagree": another metric or filler prefers the runner-up. "no effect": covering parts of the images hardly changes
            the score. "equal maps": all candidates are the same.
        reason: One sentence.
        notes: What else to know, such as equal methods and images that were not used.
        finalists: Best first, measured on images that were not used to select them.
        differences: Between all pairs of finalists, by their position in `finalists`.
        screened: Mean score of all candidates in the screening.
        record: Model, settings, images and cost.
    """

    method: str
    layer: str
    verdict: Verdict
    reason: str
    notes: tuple[str, ...]
    finalists: tuple[Finalist, ...]
    differences: tuple[Difference, ...]
    screened: Mapping[Candidate, float]
    record: Mapping[str, Any]

    @property
    def runner_up(self) -> Candidate | None:
        """The best of the other finalists, or None."""
        others = [one.candidate for one in self.finalists if one.candidate != Candidate(self.method, self.layer)]
        return others[0] if others else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        runner_up = self.runner_up
        return {
            "kind": "choice", **self.record, "method": self.method, "layer": self.layer, "verdict": self.verdict,
            "reason": self.reason, "notes": list(self.notes), "runner_up": None if runner_up is None else str(runner_up),
            "finalists": [one.to_dict() for one in self.finalists],
            "screened": [
                {"method": one.method, "layer": one.layer, "score": score}
                for one, score in sorted(self.screened.items(), key=lambda item: -item[1])
            ],
        }  # fmt: skip

    def save(self, path: StrPath) -> None:
        """Write choice.json, which `seewhy photo.jpg --use choice.json` applies.

        Raises:
            UsageError: The file exists and was not written by seewhy, or cannot be written.
        """
        storage.check_own(Path(path))
        storage.write_file(Path(path), storage.encode_marked_json(self.to_dict()))
