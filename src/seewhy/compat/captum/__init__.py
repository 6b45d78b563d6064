"""The package captum, computed by seewhy: Grad-CAM and its relatives, and the drawing of image attributions."""

from __future__ import annotations

from seewhy.compat.captum import attr
from seewhy.compat.unknown_names import name_lookup

__all__ = ["attr"]
__getattr__ = name_lookup(__name__, "captum", __all__)
