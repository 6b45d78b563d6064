"""Options: one definition for every entry point, checked before torch is imported."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

import seewhy
from seewhy.engine.options import ModelOptions, Options, as_flags, command_for, flags
from seewhy.errors import UnknownName, UsageError
from seewhy.methods import GradCAM


def test_explain_has_one_parameter_with_the_same_default_for_each_option() -> None:
    parameters = inspect.signature(seewhy.explain).parameters
    for item in dataclasses.fields(Options):
        if item.name != "other_classes":  # for the page of the command; in Python, targets="top3"
            assert parameters[item.name].default == item.default, item.name


def test_every_flag_has_a_help_text() -> None:
    for options in (Options, ModelOptions):
        for name, _, flag in flags(options):
            assert len(flag.help) > 10 and flag.help.endswith("."), name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fit": "stretch"}, "no fit 'stretch'"),
        ({"fit": "squahs"}, "did you mean 'squash'"),
        ({"read_at": "act"}, "activation"),
        ({"read_at": "conv"}, "convolution"),
        ({"memory": 0}, "megabytes"),
        ({"memory": -1.5}, "megabytes"),
        ({"channels": -1}, "channels=-1"),
        ({"methods": "gradcma"}, "did you mean 'gradcam'"),
        ({"methods": ["layercam", "scorecam(batch_size=64"]}, "scorecam"),
    ],
)
def test_values_that_are_never_valid_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as error:
        Options(**values)  # type: ignore[arg-type]
    assert words in str(error.value)


def test_a_wrong_choice_lists_the_choices() -> None:
    with pytest.raises(UnknownName) as error:
        Options(fit="stretch")  # type: ignore[arg-type]
    assert error.value.choices == ["crop", "squash", "pad"]


@pytest.mark.parametrize(
    ("methods", "expected"),
    [("all", True), ("Fast", True), (["gradcam", "fast"], True), ("gradcam", False), (GradCAM(), False), (None, False)],
)
def test_groups_of_methods_are_recognized(methods: object, expected: bool) -> None:
    assert Options(methods=methods).selects_group is expected  # type: ignore[arg-type]


def test_flags_recreate_the_options() -> None:
    options = Options(methods=("gradcam", "scorecam"), targets=("top2",), fit="pad", multilabel=True, seed=3)
    assert as_flags(options) == [
        "--methods", "gradcam", "--methods", "scorecam", "--targets", "top2", "--multilabel", "--fit", "pad", "--seed", "3",
    ]  # fmt: skip
    assert as_flags(Options()) == []


@pytest.mark.parametrize(
    ("image", "model", "command"),
    [
        ("bus.jpg", "embedded", "seewhy bus.jpg --seed 3"),
        ("my bus.jpg", "timm/resnet18", "seewhy 'my bus.jpg' --model timm/resnet18 --seed 3"),
        ("-bus.jpg", "embedded", "seewhy ./-bus.jpg --seed 3"),
        ("-", "embedded", "seewhy - --seed 3"),
    ],
)
def test_a_command_can_be_pasted_into_a_shell(image: str, model: str, command: str) -> None:
    assert command_for(image, model, as_flags(Options(seed=3))) == command


def test_the_number_of_classes_is_part_of_the_uri() -> None:
    assert ModelOptions(model="timm/resnet18", num_classes=7).uri == "timm/resnet18?num_classes=7"
    with pytest.raises(UsageError, match="embedded network has 1000 classes"):
        _ = ModelOptions(num_classes=7).uri
    with pytest.raises(UsageError, match="remove one of the two"):
        _ = ModelOptions(model="timm/resnet18?num_classes=3", num_classes=7).uri


def test_options_import_no_torch() -> None:
    code = "import sys, seewhy.engine.options, seewhy.cli.main; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
