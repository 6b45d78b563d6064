"""seewhy inside other programs: maps during training, and networks that are exported with their map.

Names are imported on first use: each of them may need a package that is not installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy.integrations.model_export.exported import ExportedModel as ExportedModel
    from seewhy.integrations.model_export.exporter import export_model as export_model
    from seewhy.integrations.sinks.base import LoggedImage as LoggedImage
    from seewhy.integrations.sinks.base import Sink as Sink
    from seewhy.integrations.sinks.folder import FolderSink as FolderSink
    from seewhy.integrations.sinks.mlflow import MlflowSink as MlflowSink
    from seewhy.integrations.sinks.tensorboard import TensorBoardSink as TensorBoardSink
    from seewhy.integrations.sinks.wandb import WandbSink as WandbSink
    from seewhy.integrations.training.lightning import LightningCallback as LightningCallback
    from seewhy.integrations.training.trainer import TrainerCallback as TrainerCallback
    from seewhy.integrations.training.training_maps import TrainingMaps as TrainingMaps

_MODULES = {
    "ExportedModel": "model_export.exported",
    "export_model": "model_export.exporter",
    "FolderSink": "sinks.folder",
    "LightningCallback": "training.lightning",
    "LoggedImage": "sinks.base",
    "MlflowSink": "sinks.mlflow",
    "Sink": "sinks.base",
    "TensorBoardSink": "sinks.tensorboard",
    "TrainerCallback": "training.trainer",
    "TrainingMaps": "training.training_maps",
    "WandbSink": "sinks.wandb",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'seewhy.integrations' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"seewhy.integrations.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
