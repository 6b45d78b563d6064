"""The layout holds: imports go downwards, hooks stand in one place, files stay readable, examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

SOURCE = ROOT / "src" / "seewhy"
FILES = sorted(SOURCE.rglob("*.py"))

# A file imports only from lower levels. The same table, with a line on each file, stands in docs/architecture.md.
LEVELS: dict[str, int] = {
    name: level
    for level, names in enumerate(
        [
            [
                "errors",
                "view",
                "tensors",
                "outputs",
                "regions",
                "storage",
                "listen",
                "layouts",
                "viewer.pack",
                "bulk",
                "bulk.cells",
                "bulk.items",
                "summary.heat",
                "summary.words",
            ],
            [
                "weights",
                "fed",
                "exits",
                "targets.names",
                "preprocess",
                "sources",
                "sources.arch",
                "sources.options",
                "catalog",
                "colors",
                "images",
                "grid",
                "flags",
                "device",
                "samples",
                "places",
                "server.guard",
                "bulk.manifest",
                "bulk.statistics",
            ],
            [
                "finding",
                "render",
                "viewer.page",
                "twin",
                "targets.base",
                "targets.detections",
                "console",
                "trace",
                "patches",
                "loaded",
                "sources.torchvision",
                "sources.timm",
                "sources.repository",
                "sources.zeroshot",
                "sources.processor",
                "sources.factory",
                "bulk.regions",
                "summary.clusters",
                "summary.outliers",
            ],
            [
                "targets.dense",
                "targets.boxes",
                "targets.similarity",
                "viewer",
                "server.work",
                "bulk.reading",
                "bulk.tars",
                "summary.findings",
            ],
            ["targets.classes", "bulk.sources"],
            ["targets.reading"],
            ["targets"],
            [
                "record",
                "resume",
                "scoring",
                "layers",
                "zoo",
                "sources.embedded",
                "sources.openclip",
                "sources.transformers",
                "parts",
                "options",
                "choices",
                "heat",
                "curves",
                "slices",
                "server.questions",
                "bulk.labels",
            ],
            ["suggestion", "sites", "models", "probe", "drawing"],
            ["signals", "saved", "listing", "inputs", "provenance"],
            ["report", "bulk.plan"],
            ["network", "explanation", "methods.base"],
            [
                "methods.gradient",
                "methods.activation",
                "methods.masking",
                "methods.ablation",
                "methods.pixels",
                "passes",
                "bulk.rows",
            ],
            ["methods.network", "methods.transformer", "methods.variants", "methods.wrappers", "bulk.parts"],
            ["methods.scales", "bulk.run"],
            ["methods", "bulk.export", "summary.gather"],
            ["asking", "reference", "summary.compare", "summary.pictures", "summary.tables"],
            ["pipeline", "summary.document"],
            ["job", "testing", "bulk.batches", "summary.compare_page", "summary.sheets"],
            ["server.app", "bulk.worker", "summary"],
            ["server", "bulk.engines", "bulk.log", "bulk.settling"],
            ["commands", "bulk.running"],
            ["bulk.command"],
            ["summary.command"],
            ["cli"],
            ["__main__"],
        ]
    )
    for name in names
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> list[str]:
    """Modules of seewhy that run when this file is imported or used; what only type checkers read is left out."""
    found = []
    nodes = list(ast.walk(tree))
    for_types = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    skipped = {inner for node in for_types for inner in ast.walk(node)}
    for node in nodes:
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "seewhy":
            inside = node.module.removeprefix("seewhy").lstrip(".")
            found += [inside] if inside else [alias.name for alias in node.names if alias.name in LEVELS]
    return found


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_downwards(path: Path) -> None:
    name = module_name(path)
    if name == "__init__":
        return  # the public names, from everywhere
    assert name in LEVELS, f"give {name} a level"
    for other in imports(ast.parse(path.read_text("utf-8"))):
        assert LEVELS[other] < LEVELS[name], f"{name} (level {LEVELS[name]}) imports {other} (level {LEVELS[other]})"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_hooks_stand_in_two_files_and_files_stay_short(path: Path) -> None:
    text = path.read_text("utf-8")
    if module_name(path) not in ("record", "layouts"):
        assert not re.search(r"\.register_\w*hook\(", text)
    assert len(text.splitlines()) <= 340


def test_the_levels_in_the_docs_are_these() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    written = {name: int(level) for level, name in re.findall(r"^\| (\d+) \| `([\w.]+)` \|", text, re.MULTILINE)}
    assert written == LEVELS


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_examples_in_docstrings_run(path: Path) -> None:
    name = module_name(path)
    if name == "__main__":
        return  # runs the program
    module = importlib.import_module("seewhy" if name == "__init__" else f"seewhy.{name}")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_every_public_name_has_a_docstring_and_is_listed() -> None:
    import seewhy

    assert sorted(seewhy.__all__) == json.loads((ROOT / "tests" / "api.json").read_text())
    for name in set(seewhy.__all__) - {"__version__"}:
        assert (getattr(seewhy, name).__doc__ or "").strip(), name
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        seewhy.explian  # noqa: B018


def test_every_error_has_a_row_in_the_docs() -> None:
    from seewhy import errors

    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.SeewhyError):
            assert f"`{name}`" in text, name


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_torch_is_imported_on_first_use_only() -> None:
    code = "import sys, seewhy, seewhy.cli, seewhy.options, seewhy.catalog; print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"


def test_peers_are_never_imported() -> None:
    for path in FILES:
        assert not re.search(
            r"^\s*(import|from) (torchcam|captum|pytorch_grad_cam)\b", path.read_text("utf-8"), re.MULTILINE
        )


def test_no_module_hides_a_public_function() -> None:
    """`import seewhy.x` sets the attribute `seewhy.x`: a module named like a public function would take its place."""
    import seewhy

    assert not set(seewhy.__all__) & {module_name(path).split(".")[0] for path in FILES}


def test_every_message_stands_in_the_docs() -> None:
    """Made anew by `python docs/make_errors.py`."""
    spec = importlib.util.spec_from_file_location("make_errors", ROOT / "docs" / "make_errors.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.page() == maker.PAGE.read_text("utf-8")
