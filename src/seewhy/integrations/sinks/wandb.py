"""`WandbSink`: images in a run of Weights & Biases."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from seewhy.errors import UsageError, describe_argument
from seewhy.integrations.sinks.base import LoggedImage

STEP = "seewhy/step"


@runtime_checkable
class WandbRun(Protocol):
    """The part of a run of Weights & Biases that is used."""

    def log(self, data: Mapping[str, Any]) -> object:
        """Add a row."""

    def define_metric(self, name: str, *, step_metric: str) -> object:
        """Set the horizontal axis of a metric."""


class WandbSink:
    """Logs images to a run of Weights & Biases as "seewhy/NAME", online or offline.

    Each logged step is one more row of the run. Its number is in the column `step_metric`, and not in the counter of W&B: rows
    that your code logs with `step=` are not affected.

    Args:
        run: The result of `wandb.init`. It is not finished by seewhy.
        step_metric: The column for the step.

    Raises:
        UsageError: `run` is not a run, or the package wandb is not installed.

    Example:
        >>> WandbSink("my-run")
        Traceback (most recent call last):
        seewhy.errors.UsageError: run='my-run': pass the result of wandb.init().
    """

    def __init__(self, run: WandbRun, *, step_metric: str = STEP) -> None:
        if not isinstance(run, WandbRun) or isinstance(run, type):
            raise UsageError(f"run={describe_argument(run)}: pass the result of wandb.init().")
        try:
            self._image = importlib.import_module("wandb").Image
        except ImportError:
            raise UsageError("WandbSink needs wandb: pip install wandb") from None
        self.run, self.step_metric = run, step_metric
        self._is_defined = step_metric != STEP  # another column belongs to other code, which defines it

    def log(self, images: Sequence[LoggedImage], step: int) -> None:
        """Log the images of one step as one row.

        Args:
            images: All images of the step.
            step: Number of the step.
        """
        if not self._is_defined:
            self.run.define_metric("seewhy/*", step_metric=STEP)
            self._is_defined = True
        row = {f"seewhy/{item.name}": self._image(item.image, caption=item.caption) for item in images}
        self.run.log({self.step_metric: step, **row})

    def close(self) -> None:
        """Do nothing: the run belongs to your code."""
