"""`TrainerCallback`: training maps in the `Trainer` of transformers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from seewhy.errors import UsageError, describe_argument
from seewhy.integrations.sinks.base import Sink
from seewhy.integrations.sinks.folder import FolderSink
from seewhy.integrations.sinks.mlflow import MlflowSink
from seewhy.integrations.sinks.tensorboard import TensorBoardSink
from seewhy.integrations.sinks.wandb import WandbSink
from seewhy.integrations.training.training_maps import DEFAULT_FOLDER, TrainingMaps

STEP = "train/global_step"  # the column of the step in the reports of the trainer to W&B


def callback_class() -> Any:
    """Return the class `TrainerCallback` of transformers. Raises UsageError if it is not installed."""
    try:
        return importlib.import_module("transformers").TrainerCallback
    except ImportError:
        raise UsageError("TrainerCallback needs transformers: pip install 'seewhy[trainer]'") from None


class TrainerCallback(callback_class()):  # type: ignore[misc]
    """Logs training maps in the `Trainer` of transformers: at the start, every n optimizer steps, and at the end.

    If the maps have no sinks, they are logged to the trackers of `report_to` (TensorBoard, W&B, MLflow), and as files with an
    animation to the folder "seewhy_maps" in `output_dir`.

    Args:
        maps: What to log.
        model: Returns the module to explain for the model of the trainer. Default: that model.

    Raises:
        UsageError: An argument is invalid, or transformers is not installed.

    Example:
        >>> import torch
        >>> maps = TrainingMaps(torch.rand(2, 3, 8, 8), classes=[0, 1], every=100)
        >>> callback = TrainerCallback(maps)
    """

    def __init__(self, maps: TrainingMaps, *, model: Callable[[nn.Module], nn.Module] | None = None) -> None:
        if not isinstance(maps, TrainingMaps):
            raise UsageError(f"maps={describe_argument(maps)}: pass a seewhy.integrations.TrainingMaps.")
        if model is not None and (isinstance(model, nn.Module) or not callable(model)):
            raise UsageError(
                f"model={describe_argument(model)}: pass a function of the trained model that returns the module to explain."
            )
        self.maps, self.model = maps, model

    def on_train_begin(self, args: Any, state: Any, control: Any, **arguments: Any) -> None:
        """Select the sinks, and log the maps before the first step.

        Args:
            args: The arguments of the trainer.
            state: Its state, with the step.
            control: Not used.
            arguments: The model, and other objects that are not used.
        """
        if state.is_world_process_zero:
            self.maps.set_default_sinks(find_sinks(args))
        self._step(state, arguments)

    def on_step_end(self, args: Any, state: Any, control: Any, **arguments: Any) -> None:
        """Log the maps if they are due. The trainer calls this once per optimizer step.

        Args:
            args: The arguments of the trainer.
            state: Its state, with the step.
            control: Not used.
            arguments: The model, and other objects that are not used.
        """
        self._step(state, arguments)

    def on_train_end(self, args: Any, state: Any, control: Any, **arguments: Any) -> None:
        """Log the maps after the last step, and close the sinks.

        Args:
            args: The arguments of the trainer.
            state: Its state, with the step.
            control: Not used.
            arguments: The model, and other objects that are not used.
        """
        self._step(state, arguments, force=True)
        if state.is_world_process_zero:
            self.maps.close()

    def _step(self, state: Any, arguments: dict[str, Any], *, force: bool = False) -> None:
        if state.is_world_process_zero:
            select = self.model or (lambda module: module)
            self.maps.step(state.global_step, lambda: select(arguments["model"]), force=force)


def find_sinks(args: Any) -> list[Callable[[], Sink]]:
    """Return functions that create a sink for each tracker of the trainer that shows images, and for a folder."""
    makers: list[Callable[[], Sink]] = []
    reports = [args.report_to] if isinstance(args.report_to, str) else list(args.report_to or ())
    if "tensorboard" in reports:
        makers.append(lambda: TensorBoardSink(Path(args.output_dir, "runs", DEFAULT_FOLDER)))
    # Their own callbacks, which come first, have started the runs.
    run = getattr(sys.modules.get("wandb"), "run", None)
    if "wandb" in reports and run is not None:
        makers.append(lambda: WandbSink(run, step_metric=STEP))
    if "mlflow" in reports and "mlflow" in sys.modules:
        makers.append(MlflowSink)
    return [*makers, lambda: FolderSink(Path(args.output_dir, DEFAULT_FOLDER))]
