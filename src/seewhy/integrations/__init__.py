"""Connections to other tools: networks that are exported together with their map.

Names are imported on first use, so that no tool has to be installed before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy.integrations.model_export.exported import ExportedModel as ExportedModel
    from seewhy.integrations.model_export.exporter import export_model as export_model

_MODULES = {
    "ExportedModel": "model_export.exported",
    "export_model": "model_export.exporter",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'seewhy.integrations' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"seewhy.integrations.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
