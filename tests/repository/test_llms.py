"""llms.txt, the description for language models, is complete and true: every name, option, command and default in it exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import seewhy
from seewhy.cli.main import main
from seewhy.explanation.flags import FLAGS
from seewhy.explanation.result import Explanation
from seewhy.methods.catalog import METHODS
from seewhy.rendering.colors import tables
from seewhy.trust.metrics.metric_list import METRICS
from support.paths import ROOT

TEXT = (ROOT / "llms.txt").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
LINES = [
    line for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
WRAPPERS = {"smooth", "integrated", "augmented", "cameras", "sess", "smoothgradcam++", "eigensmooth", "finercam"}


def section(title: str) -> str:
    return re.split(r"^## ", TEXT.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def resolve(path: str) -> Any:
    """Return what a dotted path such as "seewhy.methods.GradCAM" names."""
    value: Any = seewhy
    for name in path.split(".")[1:]:
        value = getattr(value, name) if hasattr(value, name) else importlib.import_module(f"{value.__name__}.{name}")
    return value


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?<!/)\bseewhy(?:\.[A-Za-z]\w*)+", TEXT))))
def test_names_exist(path: str) -> None:
    assert resolve(path) is not None


@pytest.mark.parametrize("name", sorted(set(re.findall(r"(?<![\w.])e\.([a-z_]\w*)", TEXT))))
def test_attributes_of_an_explanation_exist(name: str) -> None:
    assert hasattr(Explanation, name) or name in Explanation.__dataclass_fields__


def test_public_names_are_complete() -> None:
    missing = [name for name in seewhy.__all__ if name not in ("__version__", "Target", "BulkRun") and name not in TEXT]
    assert missing == []
    assert re.search(r"seewhy\.explain\((.*?)\) -> Explanation", TEXT)[1] == signature(seewhy.explain)  # type: ignore[index]
    integrations = importlib.import_module("seewhy.integrations").__all__
    assert [
        name for name in integrations if name not in TEXT and name not in ("ExportedModel", "LoggedImage", "Sink")
    ] == []
    errors = importlib.import_module("seewhy.errors")
    kinds = [
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.SeewhyError)
    ]
    assert [name for name in kinds if not name.startswith("_") and name not in section("Errors")] == []


def signature(function: Callable[..., Any]) -> str:
    """Return the parameters with defaults and without types."""
    parts = []
    for name, one in inspect.signature(function).parameters.items():
        if one.kind is one.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = "" if one.default is one.empty else f"={one.default!r}".replace("'", '"')
        parts.append(f"{name}{default}")
    return ", ".join(parts)


def test_methods_metrics_flags_and_colors_are_complete() -> None:
    listed = set(re.findall(r"[a-z][a-z+]+", section("Methods").partition("Classes:")[0]))
    assert {entry.name for entry in METHODS} - WRAPPERS <= listed
    metrics = re.search(r"^Metrics: (.*?)\. ", section("Trust"), re.MULTILINE)
    assert metrics and sorted(metrics[1].split(", ")) == sorted(metric.name for metric in METRICS)
    assert [flag for flag in FLAGS if f'"{flag}"' not in TEXT] == []
    assert [color for color in tables() if color not in TEXT] == []


@cache
def help_text(command: str) -> str:
    import contextlib
    import io

    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    return output.getvalue()


def test_commands_and_options_are_complete() -> None:
    commands = set(re.findall(r"^│ ([a-z-]+) ", help_text("").partition("Arguments")[0], re.MULTILINE))
    used = {line.split()[1] for line in LINES} & commands
    assert used == commands - {"--help", "--version"}
    for line in LINES:
        words = line.partition("#")[0].split()
        command = words[1] if words[1] in commands else ""
        for option in re.findall(r"(?<=\s)--[a-z-]+", line.partition("#")[0]):
            assert option in help_text(command), line
    listed = set(re.findall(r"`(--[a-z-]+)`", section("Command line")))
    assert listed == set(re.findall(r"│ (--[a-z-]+)", help_text(""))) - {"--help", "--version"}


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"'\.\[(\w+)\]'", TEXT)) == set(extras) - {"dev", "docs"}


def test_calls_have_valid_arguments() -> None:
    """Keywords in all Python blocks are parameters, and positional arguments are not too many."""
    checked = 0
    for block in BLOCKS:
        for call in ast.walk(ast.parse(block)):
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("seewhy."):
                function = resolve(ast.unparse(call.func))
                inspect.signature(function).bind(*call.args, **{str(one.arg): one.value for one in call.keywords})
                checked += 1
    assert checked > 15


def test_the_first_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(seewhy.sample("coffee").read_bytes())
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[0], "llms.txt", "exec"), names)
    assert names["heatmap"].shape == (224, 224) and names["signed"].shape == (7, 7)
    trust = "\n".join(line for line in BLOCKS[1].splitlines() if "choose" not in line)
    exec(compile(trust, "llms.txt", "exec"), names)


@pytest.mark.parametrize("path", re.findall(r"\]\(([\w/]+\.md)\)", TEXT))
def test_links_work(path: str) -> None:
    assert (ROOT / path).exists()
