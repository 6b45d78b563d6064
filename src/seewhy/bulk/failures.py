"""Distinguish failures of one image from failures of the device, the memory or the job."""

from __future__ import annotations

import torch

from seewhy.errors import UsageError
from seewhy.tracing.model_errors import is_out_of_memory

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


def is_device_error(error: BaseException) -> bool:
    """Return True if the device is lost: every later call fails as well, whatever the image."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.AcceleratorError) or "CUDA error" in str(cause) or "cuDNN" in str(cause):
            return not is_caused_by_memory(cause)
        cause = cause.__cause__ or cause.__context__
    return False


def is_caused_by_memory(error: BaseException) -> bool:
    """Return True if the error, or one of its causes, is lack of memory on the device or the host."""
    cause: BaseException | None = error
    while cause is not None:
        if is_out_of_memory(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
