"""The scripts of the folder docs, as modules."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from support.paths import ROOT


def load_docs_script(name: str) -> ModuleType:
    """Import `docs/{name}.py`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
