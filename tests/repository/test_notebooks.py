"""The notebooks in docs/notebooks run on the embedded network, and are those of their .py files."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.paths import ROOT

SOURCES = sorted((ROOT / "docs" / "notebooks").glob("*.py"))


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebooks", ROOT / "docs" / "make_notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_there_are_six() -> None:
    assert len(SOURCES) == 6


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_it_runs(path: Path, maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in {"05_your_own_network": [], "06_datasets": ["pandas", "pyarrow"]}.get(path.stem, ["matplotlib"]):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    made = maker.notebook(maker.read_cells(path))
    committed = json.loads(path.with_suffix(".ipynb").read_text("utf-8"))
    assert [cell["source"] for cell in made["cells"]] == [cell["source"] for cell in committed["cells"]]
    kinds = [[list(output.get("data", {})) for output in cell.get("outputs", [])] for cell in made["cells"]]
    assert kinds == [
        [list(output.get("data", {})) for output in cell.get("outputs", [])] for cell in committed["cells"]
    ]


def test_a_cell_with_an_error_is_noticed(maker: ModuleType) -> None:
    with pytest.raises(ZeroDivisionError):
        maker.notebook([maker.Cell("code", "1 / 0")])
