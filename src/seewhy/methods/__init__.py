"""All methods, by class: `seewhy.methods.GradCAM()`. Each file is imported when one of its classes is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from seewhy.errors import find_close_matches
from seewhy.methods.catalog import CLASSES

if TYPE_CHECKING:  # one line per file, so that type checkers see the classes
    from seewhy.methods.ablation import *  # noqa: F403
    from seewhy.methods.activation import *  # noqa: F403
    from seewhy.methods.base import Method as Method
    from seewhy.methods.base import MultiMapMethod as MultiMapMethod
    from seewhy.methods.base import NetworkMethod as NetworkMethod
    from seewhy.methods.base import VariantMethod as VariantMethod
    from seewhy.methods.gradient import *  # noqa: F403
    from seewhy.methods.masking import *  # noqa: F403
    from seewhy.methods.mixtures import *  # noqa: F403
    from seewhy.methods.network import *  # noqa: F403
    from seewhy.methods.pixels import *  # noqa: F403
    from seewhy.methods.scales import *  # noqa: F403
    from seewhy.methods.transformer import *  # noqa: F403
    from seewhy.methods.variants import *  # noqa: F403
    from seewhy.methods.wrappers import *  # noqa: F403

CONTRACTS = ("Method", "MultiMapMethod", "NetworkMethod", "VariantMethod")
__all__ = [*CONTRACTS, *CLASSES]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        close = [] if name.startswith("_") else find_close_matches(name, __all__, 1)
        hint = f"; did you mean seewhy.methods.{close[0]}?" if close else ""
        raise AttributeError(f"module 'seewhy.methods' has no attribute {name!r}{hint}")
    value = getattr(importlib.import_module(CLASSES.get(name, "seewhy.methods.base")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
