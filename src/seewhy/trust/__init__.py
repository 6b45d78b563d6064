"""How far to trust a map: a check of each map, parts of a photo to cover, and metrics that query the model.

Names are imported on first use: the check must not import the packages that the metrics need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy.trust.choices.chooser import choose as choose
    from seewhy.trust.covering.class_changes import ClassChange as ClassChange
    from seewhy.trust.covering.class_changes import CoverResult as CoverResult
    from seewhy.trust.covering.class_changes import CoverTest as CoverTest
    from seewhy.trust.covering.photo_cover import Rectangle as Rectangle
    from seewhy.trust.covering.photo_cover import Stroke as Stroke
    from seewhy.trust.covering.photo_cover import cover_photo as cover_photo
    from seewhy.trust.map_checks.map_check import check as check
    from seewhy.trust.metrics.evaluation import measure as measure

_MODULES = {
    "ClassChange": "covering.class_changes",
    "CoverResult": "covering.class_changes",
    "CoverTest": "covering.class_changes",
    "Rectangle": "covering.photo_cover",
    "Stroke": "covering.photo_cover",
    "check": "map_checks.map_check",
    "choose": "choices.chooser",
    "cover_photo": "covering.photo_cover",
    "measure": "metrics.evaluation",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'seewhy.trust' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"seewhy.trust.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
