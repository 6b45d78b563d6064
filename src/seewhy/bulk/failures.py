"""Distinguish failures of single images from a failure of the job."""

from __future__ import annotations

from seewhy.errors import UsageError

MAX_REPEATS = 64  # consecutive images
RESUME = "Finished parts are kept; run the same command again to resume."


class RepeatedFailures:
    """Counts consecutive images that fail with the same error."""

    def __init__(self) -> None:
        self.message, self.count = "", 0

    def reset(self) -> None:
        self.message, self.count = "", 0

    def add(self, message: str) -> None:
        self.count = self.count + 1 if message == self.message else 1
        self.message = message

    def check(self) -> None:
        """Raise UsageError if so many images failed with the same error that the images are not the cause."""
        if self.count >= MAX_REPEATS:
            raise UsageError(
                f"{MAX_REPEATS} consecutive images failed with the same error ({self.message}). The cause is probably not the "
                f"images. {RESUME}"
            )
