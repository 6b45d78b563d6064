"""Names of the top level: lazily imported, with a hint for names that moved or were renamed."""

from __future__ import annotations

from pathlib import Path

import pytest

import seewhy


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("read", "it is now seewhy.read_run"),
        ("load", "it is now seewhy.load_explanation"),
        ("Look", "it is now seewhy.OverlayStyle"),
        ("Run", "it is now seewhy.BulkRun"),
        ("GradCAM", "it is in seewhy.methods: seewhy.methods.GradCAM"),
        ("TopScore", "it is in seewhy.targets: seewhy.targets.TopScore"),
        ("MethodError", "it is in seewhy.errors: seewhy.errors.MethodError"),
        ("expalin", "did you mean seewhy.explain?"),
    ],
)
def test_error_for_an_old_or_misspelled_name_names_the_replacement(name: str, replacement: str) -> None:
    with pytest.raises(AttributeError) as error:
        getattr(seewhy, name)
    assert str(error.value) == f"module 'seewhy' has no attribute {name!r}; {replacement}"


@pytest.mark.parametrize(
    "path", ["read_run", "load_explanation", "OverlayStyle", "BulkRun", "methods.GradCAM", "targets.TopScore"]
)
def test_replacements_exist(path: str) -> None:
    value: object = seewhy
    for name in path.split("."):
        value = getattr(value, name)
    assert callable(value)


def test_unrelated_names_get_no_hint() -> None:
    with pytest.raises(AttributeError) as error:
        _ = seewhy.zzzz
    assert str(error.value) == "module 'seewhy' has no attribute 'zzzz'"


def test_every_public_name_can_be_imported() -> None:
    for name in seewhy.__all__:
        assert getattr(seewhy, name) is not None
        assert name in dir(seewhy)


def test_no_module_hides_a_public_function() -> None:
    """Importing `package.name` as a module replaces an attribute of this name of the package."""
    import seewhy.engine.pipeline
    import seewhy.targets

    assert callable(seewhy.targets.probabilities) and callable(seewhy.targets.log_probabilities)
    for package in (seewhy, seewhy.targets, seewhy.methods):
        public = [name for name in vars(package) if not name.startswith("_")]
        functions = {name for name in public if callable(getattr(package, name))}
        files = {path.stem for folder in package.__path__ for path in Path(folder).glob("*.py")}
        assert not functions & files
