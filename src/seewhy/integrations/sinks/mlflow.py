"""`MlflowSink`: images in a run of MLflow."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from seewhy.errors import UsageError, describe_argument
from seewhy.integrations.sinks.base import LoggedImage


@runtime_checkable
class MlflowClientLike(Protocol):
    """The part of a `MlflowClient` that is used."""

    def log_image(self, run_id: str, image: Any, *, key: str, step: int) -> object:
        """Store one image."""


class MlflowSink:
    """Logs images to a run of MLflow under the key "seewhy/NAME". The image view of MLflow has a slider for the step.

    Args:
        run_id: The run. Default: the active run, as after `mlflow.start_run()`.
        client: A `MlflowClient`. Default: one for the current tracking server.

    Raises:
        UsageError: There is no active run, the package mlflow is not installed, or `client` is not a client.

    Example:
        >>> class Client:
        ...     def log_image(self, run_id, image, *, key, step):
        ...         print(run_id, key, step)
        >>> MlflowSink("1a2b", Client()).run_id
        '1a2b'
    """

    def __init__(self, run_id: str | None = None, client: MlflowClientLike | None = None) -> None:
        if client is not None and (not isinstance(client, MlflowClientLike) or isinstance(client, type)):
            raise UsageError(f"client={describe_argument(client)}: pass an mlflow.MlflowClient().")
        if run_id is not None and not isinstance(run_id, str):
            raise UsageError(f"run_id={describe_argument(run_id)}: pass the id of a run, run.info.run_id.")
        if run_id is None:
            active = import_mlflow().active_run()
            if active is None:
                raise UsageError("MLflow has no active run: call mlflow.start_run() first, or pass run_id=.")
            run_id = active.info.run_id
        self.run_id: str = run_id
        self.client: MlflowClientLike = import_mlflow().MlflowClient() if client is None else client

    def log(self, images: Sequence[LoggedImage], step: int) -> None:
        """Log the images of one step.

        Args:
            images: All images of the step.
            step: Number of the step.
        """
        for item in images:
            self.client.log_image(self.run_id, item.image, key=f"seewhy/{item.name}", step=step)

    def close(self) -> None:
        """Do nothing: the run belongs to your code."""


def import_mlflow() -> Any:
    """Return the module. Raises UsageError if it is not installed."""
    try:
        return importlib.import_module("mlflow")
    except ImportError:
        raise UsageError("MlflowSink needs mlflow: pip install mlflow-skinny (or mlflow)") from None
