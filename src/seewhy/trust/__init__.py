"""How far to trust a map: a check of each map, parts of a photo to cover, and metrics that query the model.

Names are imported on first use: the check must not import the packages that the metrics need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy.trust.chooser import choose as choose
    from seewhy.trust.class_changes import ClassChange as ClassChange
    from seewhy.trust.class_changes import CoverResult as CoverResult
    from seewhy.trust.class_changes import CoverTest as CoverTest
    from seewhy.trust.evaluation import measure as measure
    from seewhy.trust.map_check import check as check
    from seewhy.trust.photo_cover import Rectangle as Rectangle
    from seewhy.trust.photo_cover import Stroke as Stroke
    from seewhy.trust.photo_cover import cover_photo as cover_photo

_MODULES = {
    "ClassChange": "class_changes", "CoverResult": "class_changes", "CoverTest": "class_changes",
    "Rectangle": "photo_cover", "Stroke": "photo_cover", "check": "map_check", "choose": "chooser",
    "cover_photo": "photo_cover", "measure": "evaluation",
}  # fmt: skip
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'seewhy.trust' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"seewhy.trust.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
