"""From what a user passes as `sinks=` to sinks."""

from __future__ import annotations

import os
from collections.abc import Sequence

from seewhy.errors import UsageError, describe_argument
from seewhy.integrations.sinks.base import Sink
from seewhy.integrations.sinks.folder import FolderSink
from seewhy.integrations.sinks.tensorboard import SummaryWriterLike, TensorBoardSink
from seewhy.integrations.sinks.wandb import WandbRun, WandbSink

SinkSpec = Sink | str | os.PathLike[str] | SummaryWriterLike | WandbRun


def as_sinks(spec: SinkSpec | Sequence[SinkSpec]) -> list[Sink]:
    """Return the sinks that a specification describes: a folder, a writer of TensorBoard, a run of W&B, a sink, or a list.

    Raises UsageError for anything else.

    >>> as_sinks("maps")[0].folder.name
    'maps'
    """
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        if not spec:
            raise UsageError("sinks=[]: the list is empty; pass a folder, such as 'maps'.")
        return [as_sink(item) for item in spec]
    return [as_sink(spec)]


def as_sink(spec: object) -> Sink:
    """Return one sink."""
    if isinstance(spec, str | os.PathLike):
        return FolderSink(spec)
    if not isinstance(spec, type):
        if isinstance(spec, SummaryWriterLike):
            return TensorBoardSink(spec)
        if isinstance(spec, WandbRun):
            return WandbSink(spec)
        if isinstance(spec, Sink):
            return spec
    raise UsageError(
        f"sinks={describe_argument(spec)}: pass a folder, a SummaryWriter, the result of wandb.init(), a sink such as "
        "MlflowSink(), an object with the methods log(images, step) and close(), or a list of these."
    )
