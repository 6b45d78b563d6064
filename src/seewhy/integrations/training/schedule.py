"""When maps are logged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Schedule:
    """Decides for each optimizer step whether maps are due: at multiples of `every`, once each.

    A counter may advance by more than 1, as with several optimizers; then the first step after a multiple is logged.

    >>> schedule = Schedule(10)
    >>> [step for step in (0, 7, 10, 10, 18, 21, 29) if schedule.is_due(step)]
    [0, 10, 21]
    """

    every: int
    last: int | None = None

    def is_due(self, step: int) -> bool:
        """Return True if maps of this step should be logged. Call it once for each batch."""
        last, self.last = self.last, step
        if last is None or step < last:  # the first step, or training was restarted
            return step % self.every == 0
        return step // self.every > last // self.every
