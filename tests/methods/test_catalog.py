"""The registry of methods: one entry per class, one import line per file, and at most 300 lines for an author to read."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import seewhy.methods
from seewhy.methods.base import BaseMethod
from seewhy.methods.cards import cards
from seewhy.methods.catalog import FILES, METHODS, file_of, find_method

PACKAGE = Path(seewhy.methods.__file__).parent


def test_each_catalog_file_has_a_star_import_for_type_checkers() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    starred = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and [alias.name for alias in node.names] == ["*"]
    }
    assert starred == {f"seewhy.methods.{file.name}" for file in FILES}


@pytest.mark.parametrize("name", [file.name for file in FILES])
def test_each_final_class_of_a_file_is_registered(name: str) -> None:
    module = importlib.import_module(f"seewhy.methods.{name}")
    classes = {
        cls.__name__
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, BaseMethod) and cls.__module__ == module.__name__ and not inspect.isabstract(cls)
    }
    assert classes == {entry.cls for entry in METHODS if file_of(entry).name == name}


def test_names_and_aliases_are_unique() -> None:
    names = [name for entry in METHODS for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))
    assert all(find_method(name) for name in names)


def test_author_of_a_method_reads_at_most_300_lines() -> None:
    """What counts: all of methods/base.py, and signals/layer.py with `Need`, `TargetSignals` and `Signals`."""
    layer = PACKAGE.parent / "signals" / "layer.py"
    lines = [line for path in (PACKAGE / "base.py", layer) for line in path.read_text("utf-8").splitlines()]
    assert sum(bool(line.strip()) for line in lines) <= 300


@pytest.mark.parametrize("reference", cards(), ids=lambda reference: reference.entry.name)
def test_docstring_documents_every_setting_and_the_source(reference: object) -> None:
    documented = [entry.partition(":")[0] for entry in reference.section("Args")]  # type: ignore[attr-defined]
    assert documented == [setting.partition("=")[0] for setting in reference.settings]  # type: ignore[attr-defined]
    assert reference.section("References")  # type: ignore[attr-defined]


def test_cards_say_where_no_paper_defines_a_method() -> None:
    without = {item.entry.name for item in cards() if item.card.paper.startswith("no paper")}
    assert without == {"eigengradcam", "randomcam", "augmented", "eigensmooth"}
    for name in ("scorecam", "legrad"):
        assert "not the paper" in find_card_source(name)


def find_card_source(name: str) -> str:
    return cards(name)[0].card.source
