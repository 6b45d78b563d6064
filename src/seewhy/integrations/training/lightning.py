"""`LightningCallback`: training maps in Lightning."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
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

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
STEP = "trainer/global_step"  # the column of the step in the logger of Lightning for W&B

LOGGERS: dict[str, Callable[[Any], Sink]] = {
    "TensorBoardLogger": lambda logger: TensorBoardSink(logger.experiment),
    "WandbLogger": lambda logger: WandbSink(logger.experiment, step_metric=STEP),
    "MLFlowLogger": lambda logger: MlflowSink(logger.run_id, logger.experiment),
}


def callback_class() -> Any:
    """Return the class `Callback` of the package that is in use. Raises UsageError if none is installed."""
    for name in sorted(PACKAGES, key=lambda name: name not in sys.modules):
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return importlib.import_module(name).Callback
    raise UsageError("LightningCallback needs lightning: pip install 'seewhy[lightning]'")


class LightningCallback(callback_class()):  # type: ignore[misc]
    """Logs training maps in Lightning: at the start, every n optimizer steps, and at the end.

    If the maps have no sinks, they are logged to the loggers of the trainer, and as files with an animation to the folder
    "seewhy_maps" in the folder of the first logger. State is saved in checkpoints, so a resumed run continues.

    Args:
        maps: What to log.
        model: Returns the module to explain for the `LightningModule`, such as `lambda module: module.ema.module`.
            Default: the `LightningModule`, whose `forward` must return the class scores.

    Raises:
        UsageError: An argument is invalid, or lightning is not installed.

    Example:
        >>> import torch
        >>> maps = TrainingMaps(torch.rand(2, 3, 8, 8), classes=[0, 1], every=100)
        >>> callback = LightningCallback(maps, model=lambda module: module.network)
    """

    def __init__(self, maps: TrainingMaps, *, model: Callable[[nn.Module], nn.Module] | None = None) -> None:
        super().__init__()
        if not isinstance(maps, TrainingMaps):
            raise UsageError(f"maps={describe_argument(maps)}: pass a seewhy.integrations.TrainingMaps.")
        if model is not None and (isinstance(model, nn.Module) or not callable(model)):
            raise UsageError(
                f"model={describe_argument(model)}: pass a function of the LightningModule that returns the module to explain."
            )
        self.maps, self.model = maps, model

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Select the sinks, and log the maps before the first step.

        Args:
            trainer: The trainer.
            pl_module: The LightningModule.
        """
        if trainer.is_global_zero:
            self.maps.set_default_sinks(find_sinks(trainer))
        self._step(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Log the maps if they are due. With gradient accumulation, several batches have the same step.

        Args:
            trainer: The trainer.
            pl_module: The LightningModule.
            _: The outputs and the batch, which are not used.
        """
        self._step(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the maps after the last step.

        Args:
            trainer: The trainer.
            pl_module: The LightningModule.
        """
        self._step(trainer, pl_module, force=True)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Close the sinks, also after an exception.

        Args:
            trainer: The trainer.
            pl_module: The LightningModule.
            stage: "fit", or another stage, in which nothing happens.
        """
        if stage == "fit" and trainer.is_global_zero:
            self.maps.close()

    def state_dict(self) -> dict[str, object]:
        """Return what a checkpoint contains."""
        return self.maps.state_dict()

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Continue from a checkpoint.

        Args:
            state_dict: The result of `state_dict`.
        """
        self.maps.load_state_dict(state_dict)

    def _step(self, trainer: Any, pl_module: Any, *, force: bool = False) -> None:
        if trainer.is_global_zero:
            select = self.model or with_forward
            self.maps.step(trainer.global_step, lambda: select(pl_module), force=force)


def with_forward(module: nn.Module) -> nn.Module:
    """Return a LightningModule. Raises UsageError if it does not define `forward`."""
    if getattr(type(module).forward, "__qualname__", "") == "LightningModule.forward":
        raise UsageError(
            f"{type(module).__name__} has no forward: pass model=, a function that returns the network, such as "
            "LightningCallback(maps, model=lambda module: module.network)."
        )
    return module


def find_sinks(trainer: Any) -> list[Callable[[], Sink]]:
    """Return functions that create a sink for each logger of a trainer that shows images, and for a folder."""
    makers: list[Callable[[], Sink]] = []
    for logger in trainer.loggers:
        kinds = {base.__name__ for base in type(logger).__mro__}
        if make := next((make for kind, make in LOGGERS.items() if kind in kinds), None):
            makers.append(partial(make, logger))
    return [*makers, lambda: FolderSink(find_folder(trainer) / DEFAULT_FOLDER)]


def find_folder(trainer: Any) -> Path:
    """Return the folder of the first logger that has one. Not `trainer.log_dir`, which waits for the other processes."""
    for logger in trainer.loggers:
        if (folder := getattr(logger, "log_dir", None)) is not None:
            return Path(folder)
    for logger in trainer.loggers:
        if (folder := getattr(logger, "save_dir", None)) is not None:
            return Path(folder, str(logger.name or ""), str(logger.version or ""))
    return Path(trainer.default_root_dir)
