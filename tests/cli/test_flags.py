"""Flags are generated from the fields of options classes."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from cyclopts import App, Token
from cyclopts.exceptions import CoercionError

import seewhy
from seewhy.cli.argument_errors import check_words, parse_integer
from seewhy.cli.exits import run_command
from seewhy.cli.flags import FlagSet, with_flags
from seewhy.cli.main import explain, features
from seewhy.engine.options import Options, option
from support.command import COFFEE, run
from support.untrusted_files import make_network


@dataclass(frozen=True, kw_only=True)
class Example:
    count: int = option(3, "A number.", "number", short="-c")
    names: tuple[str, ...] | None = option(None, "Some names.", "names")
    loud: bool = option(False, "A switch.", "switch")
    hidden: str = "no flag"


def parse(*words: str, flag_set: FlagSet | None = None) -> tuple[tuple[str, ...], Example]:
    parsed = []
    app = App(name="example")

    @app.default
    @with_flags(flag_set or FlagSet(Example))
    def command(files: tuple[str, ...], example: Example) -> int:
        parsed.append((files, example))
        return 0

    app([*words], exit_on_error=False, print_error=False, result_action="return_value")
    return parsed[0]


def test_values_reach_the_options_object() -> None:
    files, example = parse("a.jpg", "b.jpg", "-c", "5", "--names", "x,y(1,2)", "--names", "z", "--loud")
    assert files == ("a.jpg", "b.jpg")
    assert example == Example(count=5, names=("x", "y(1,2)", "z"), loud=True)


def test_defaults_are_those_of_the_class_or_of_the_command() -> None:
    assert parse()[1] == Example()
    assert parse(flag_set=FlagSet(Example, defaults=(("count", 8),)))[1] == Example(count=8)


def test_a_command_can_use_some_of_the_fields() -> None:
    command = with_flags(FlagSet(Example, only=("count",)))(lambda files, example: 0)
    assert list(inspect.signature(command).parameters)[1:] == ["count"]
    command = with_flags(FlagSet(Example, skip=("count",)))(lambda files, example: 0)
    assert list(inspect.signature(command).parameters)[1:] == ["names", "loud"]


def test_the_main_command_has_a_flag_for_every_option() -> None:
    parameters = inspect.signature(explain).parameters
    for name in Options.__dataclass_fields__:
        assert name in parameters or name in ("channels", "include_suggested", "other_classes"), name
    assert "channels" in inspect.signature(features).parameters


@pytest.mark.parametrize(
    ("old", "new"), [("--site", "--read-at"), ("--site=act", "--read-at"), ("--question", "--target")]
)
def test_a_renamed_option_names_its_replacement(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    app = App(name="example")
    app.default(with_flags(FlagSet(Example))(lambda files, example: 0))
    code = run_command(lambda: app([old], exit_on_error=False, print_error=False, result_action="return_value"))
    assert code == 2
    assert f"It is now {new}." in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["*", "**", "?", "[0-9]"])
def test_a_pattern_selects_the_layers_that_have_a_map(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pattern: str
) -> None:
    """`--layers '*'` was a KeyError: it also matches the network itself and layers without a grid."""
    model = seewhy.LoadedModel(make_network(), seewhy.Preprocess.imagenet(32), labels=tuple("abcde"), uri="tiny")
    monkeypatch.setattr("seewhy.models.loading.load_model", lambda *_, **__: model)
    code, out, err = run(capsys, COFFEE, "--layers", pattern, "--json", "--out", str(tmp_path))
    assert code == 0 and "Traceback" not in err
    assert list(json.loads(out)["layers"]) == ["0", "1"]


@pytest.mark.parametrize("words", [["-q"], ["-lconv_stem"], ["-ttop3"], ["-o", "cam"], ["--", "-layers"], ["--layers"]])
def test_short_options_are_not_mistaken_for_long_ones(words: list[str]) -> None:
    check_words(words)


@pytest.mark.parametrize("text", ["30", "30.0", "-2"])
def test_parse_integers(text: str) -> None:
    assert parse_integer(int, [Token(keyword="--seed", value=text)]) == float(text)


@pytest.mark.parametrize("text", ["1.5", "inf", "1e999", "nan.0", "9" * 5000])
def test_numbers_that_are_not_whole(text: str) -> None:
    with pytest.raises(CoercionError):
        parse_integer(int, [Token(keyword="--seed", value=text)])


def test_empty_folders_are_rejected_in_python() -> None:
    for call in (seewhy.load_explanation, seewhy.read_run, lambda folder: seewhy.explain_all(None, COFFEE, folder)):
        with pytest.raises(seewhy.UsageError, match="the name of the folder is empty"):
            call("")
