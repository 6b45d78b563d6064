"""`MapCheck`: how far to trust one map, as plain values."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

Verdict = Literal["confirmed", "not specific", "inconclusive", "contradicted", "not checked"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
LEVEL = 0.05  # of the check: confirmations per map that chance alone gives


@dataclass(frozen=True)
class MapCheck:
    """The result of covering parts of an image, compared with what one map predicts.

    Attributes:
        verdict: "confirmed": the map predicts the effect better than its turned and shifted copies. "not specific": it predicts
            the effect, but so do its copies. "contradicted": the effect is the opposite. "inconclusive": none of these.
            "not checked": see `reason`.
        r: Correlation between the values that a mask covers and the drop of the score, in [-1, 1].
        low, high: Interval of `r`: what other windows of the same kind could give. It is no test; `p` is.
        p: Fraction of the map and its copies that predict the effect at least as well, in (0, 1].
        reason: Why a map was not checked.
    """

    verdict: Verdict
    r: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    reason: str = ""

    def sentence(self, target: str) -> str:
        """Return one sentence for people who did not read the documentation.

        Args:
            target: The name of the target.

        Example:
            >>> MapCheck("confirmed", 0.57, 0.25, 0.78, 0.02).sentence("minibus")
            'Covering what the map marks lowers minibus as predicted (r = 0.57, 0.25 to 0.78): confirmed.'
        """
        numbers = f"(r = {self.r:.2f}, {self.low:.2f} to {self.high:.2f})"
        match self.verdict:
            case "confirmed":
                return f"Covering what the map marks lowers {target} as predicted {numbers}: confirmed."
            case "not specific":
                return (
                    f"Covering what the map marks lowers {target} {numbers}, but turned and shifted copies of the map predict "
                    "this equally well: not specific."
                )
            case "contradicted":
                return f"{target} drops most where the map marks nothing {numbers}: contradicted."
            case "inconclusive":
                return f"Covering parts of the image neither supports nor contradicts the map {numbers}: inconclusive."
            case _:
                return f"Not checked: {self.reason}."


def build_check(check: MapCheck) -> dict[str, Any]:
    """Return a check as JSON; numbers that are not defined are omitted."""
    fields = dataclasses.asdict(check)
    return {name: value for name, value in fields.items() if value not in ("", None) and value == value}


def chance_confirmations(checks: int) -> float:
    """Return how many of `checks` maps chance alone would confirm, if none of them were related to the image."""
    return LEVEL * checks
