"""The layout holds: imports go downwards, hooks stand in one place, files stay readable, examples run."""

from __future__ import annotations

import ast
import doctest
import graphlib
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

SOURCE = ROOT / "src" / "seewhy"
FILES = sorted(SOURCE.rglob("*.py"))

MODULES = {".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
Graph = dict[str, set[str]]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> set[str]:
    """Return the modules of seewhy that a file imports anywhere in its text, `TYPE_CHECKING` blocks included."""
    found = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        inside = [name.removeprefix("seewhy.") for name in names if name.startswith("seewhy.")]
        modules = [name for name in inside if name in MODULES]
        # `from seewhy.bulk import rows` imports the file `bulk.rows`; the package's `__init__` is only its parent.
        found |= {name for name in modules if not any(other.startswith(f"{name}.") for other in modules)}
    return found


def file_graph() -> Graph:
    """Return which modules each module imports. The root `__init__` is skipped: it exports names of every package."""
    graph = {name: imports(ast.parse(path.read_text("utf-8"))) - {name} for name, path in MODULES.items()}
    del graph["__init__"]
    return graph


def package_graph() -> Graph:
    """Return which top-level packages and modules each of them imports."""
    graph: Graph = {}
    for name, others in file_graph().items():
        package = name.partition(".")[0]
        graph.setdefault(package, set()).update(other.partition(".")[0] for other in others)
        graph[package].discard(package)
    return graph


@pytest.mark.parametrize("graph", [file_graph(), package_graph()], ids=["files", "packages"])
def test_imports_have_no_cycle(graph: Graph) -> None:
    """Levels are computed: an order exists if and only if no file and no package imports itself through others."""
    try:
        order = list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")
    assert set(order) == set(graph)


def test_a_cycle_is_found() -> None:
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())
    tree = ast.parse("if TYPE_CHECKING:\n    from seewhy.bulk import rows\nimport seewhy.errors")
    assert imports(tree) == {"bulk.rows", "errors"}


def test_the_top_level_stays_small() -> None:
    assert len(package_graph()) <= 25


def test_the_order_in_the_docs_is_valid() -> None:
    """docs/architecture.md lists every package from top to bottom; each imports only from packages listed below it."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    listed = re.findall(r"^\| `([\w]+)`", text.partition("## Packages")[2].partition("\n## ")[0], re.MULTILINE)
    graph = package_graph()
    assert set(listed) == set(graph)
    for package, others in graph.items():
        for other in others:
            assert listed.index(package) < listed.index(other), f"{package} imports {other}, which is listed above it"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_hooks_stand_in_few_files_and_files_stay_short(path: Path) -> None:
    text = path.read_text("utf-8")
    # The API of torchcam needs a hook on the user's model: the model runs before its extractor is called.
    on_users_model = ("compat.torchcam.recorded_call",)
    if module_name(path) not in ("tracing.recorder", "tracing.twin_hooks", "tracing.memory_format", *on_users_model):
        assert not re.search(r"\.register_\w*hook\(", text)
    assert len(text.splitlines()) <= 340


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

    assert sorted(seewhy.__all__) == json.loads((ROOT / "tests" / "repository" / "api.json").read_text())
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
    code = "import sys, seewhy, seewhy.cli.main, seewhy.engine.options, seewhy.methods.catalog; print('torch' in sys.modules)"
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


def test_every_message_is_in_the_docs() -> None:
    spec = importlib.util.spec_from_file_location("make_errors", ROOT / "docs" / "make_errors.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.page() == maker.PAGE.read_text("utf-8"), "update the page: .venv/bin/python docs/make_errors.py"
