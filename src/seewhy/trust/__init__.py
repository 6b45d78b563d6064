"""How far to trust a map: a check of each map, and metrics that query the model.

Names are imported on first use: the check must not import the packages that the metrics need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy.trust.chooser import choose as choose
    from seewhy.trust.evaluation import measure as measure
    from seewhy.trust.map_check import check as check

_MODULES = {"check": "map_check", "choose": "chooser", "measure": "evaluation"}
__all__ = ["check", "choose", "measure"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'seewhy.trust' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"seewhy.trust.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
