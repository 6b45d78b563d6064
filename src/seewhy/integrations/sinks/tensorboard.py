"""`TensorBoardSink`: images in TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from seewhy.errors import UsageError, describe_argument
from seewhy.integrations.sinks.base import LoggedImage


@runtime_checkable
class SummaryWriterLike(Protocol):
    """The part of a `SummaryWriter` of PyTorch or tensorboardX that is used."""

    def add_image(self, tag: str, img_tensor: Any, global_step: int, *, dataformats: str) -> object:
        """Add one image."""

    def flush(self) -> object:
        """Write what was added."""


class TensorBoardSink:
    """Adds images to TensorBoard, under "seewhy/NAME". The slider above an image selects the step.

    Args:
        writer: A `SummaryWriter` of PyTorch or tensorboardX, which is not closed; or a folder, for a new one.

    Raises:
        UsageError: `writer` is neither, or the package tensorboard is not installed.

    Example:
        >>> import tempfile
        >>> sink = TensorBoardSink(tempfile.mkdtemp())
        >>> sink.close()
    """

    def __init__(self, writer: SummaryWriterLike | str | os.PathLike[str]) -> None:
        self._folder: str | None = None
        self._writer: SummaryWriterLike | None = None
        if isinstance(writer, str | os.PathLike):
            summary_writer()  # raises an error now, not during training
            self._folder = os.fspath(writer)
        elif isinstance(writer, SummaryWriterLike) and not isinstance(writer, type):
            self._writer = writer
        else:
            raise UsageError(f"writer={describe_argument(writer)}: pass a SummaryWriter, or a folder for a new one.")

    def log(self, images: Sequence[LoggedImage], step: int) -> None:
        """Add the images of one step.

        Args:
            images: All images of the step.
            step: Number of the step.
        """
        if self._writer is None:
            self._writer = cast(SummaryWriterLike, summary_writer()(self._folder))
        for item in images:
            self._writer.add_image(f"seewhy/{item.name}", np.asarray(item.image), step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Close the writer, if it was created for a folder."""
        if self._folder is not None and self._writer is not None:
            cast(Any, self._writer).close()
            self._writer = None


def summary_writer() -> Any:
    """Return the class `SummaryWriter`. Raises UsageError if tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("TensorBoardSink needs tensorboard: pip install 'seewhy[tensorboard]'") from None
    return SummaryWriter
