"""Distinguish failures of one image from failures of the device, the memory or the job."""

from __future__ import annotations

import torch

from seewhy.errors import UsageError

MAX_REPEATS = 64  # consecutive images
RESUME = "Finished parts are kept; run the same command again to resume."
MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


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
            return not is_out_of_memory(cause)
        cause = cause.__cause__ or cause.__context__
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if the error, or one of its causes, is lack of memory on the device or the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in MEMORY_WORDS):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and is_out_of_memory(cause)
