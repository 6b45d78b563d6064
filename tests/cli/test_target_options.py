"""Targets, layers and numbers of classes on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import seewhy
from seewhy.methods.method_text import split_at_commas, split_targets
from support.command import CAT_ESPRESSO, COFFEE, run


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    record: dict[str, object] = json.loads(out)
    return record


def test_versus(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["-t", "espresso", "--versus", "Egyptian cat", "--fit", "squash", "-l", "suggested"]
    record = run_json(capsys, CAT_ESPRESSO, *flags)
    assert [target["name"] for target in record["targets"]] == ["espresso rather than Egyptian cat"]  # type: ignore[attr-defined]
    e = seewhy.load_explanation("cam/cat_espresso")
    assert e.target_results[0].name == "espresso rather than Egyptian cat" and e.overlay().size[0] > 100
    heatmap = e.on_photo()
    middle = heatmap.shape[1] // 2
    assert heatmap[:, middle:].sum() > 0.8 * heatmap.sum()  # the cup is on the right


def test_several_kinds_of_targets_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    record = run_json(
        capsys, COFFEE, "-l", "suggested", "-t", "967,top2", "-t", "probability:espresso", "-t", "output:3",
        "-t", f"like:{CAT_ESPRESSO}", "--scale", "shared",
    )  # fmt: skip
    keys = [target["key"] for target in record["targets"]]  # type: ignore[attr-defined]
    assert keys[0] == "967" and {"probability_967", "output_3", "like cat_espresso.png"} <= set(keys)
    assert Path("cam/coffee/sheet.jpg").exists()


def test_layer_groups_and_read_points(capsys: pytest.CaptureFixture[str]) -> None:
    record = run_json(capsys, COFFEE, "-l", "stages")
    assert len(record["layers"]) == 5  # type: ignore[arg-type]
    record = run_json(capsys, COFFEE, "-l", "conv_head", "--read-at", "activation")
    assert list(record["layers"])[-1] == "bn2"  # type: ignore[call-overload]  # in timm, the activation is part of the batch norm


def test_number_of_classes(capsys: pytest.CaptureFixture[str]) -> None:
    name = "torchvision/resnet18?pretrained=false"
    record = run_json(capsys, COFFEE, "--model", name, "--num-classes", "7", "-l", "suggested")
    assert all(row["class"] < 7 for row in record["top"])  # type: ignore[attr-defined]
    assert "num_classes=7" in json.loads(run(capsys, "layers", name, "--num-classes", "7", "--json")[1])["model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--num-classes", "7"), "the embedded network has 1000 classes; give a --model."),
        (
            ("--model", "torchvision/resnet18?num_classes=5", "--num-classes", "7"),
            "sets num_classes as well; remove one of the two.",
        ),
        (
            ("--model", "torchvision/resnet18?pretrained=false", "--num-classes", "0"),
            "num_classes=0: must be an integer of at least 1",
        ),
    ],
)
def test_invalid_numbers_of_classes(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = run(capsys, COFFEE, *arguments)
    assert code == 2 and not out and message in err and len(err.splitlines()) == 1


def test_targets_with_coordinates_are_not_split_at_commas() -> None:
    assert split_targets(["654,829", "box:person@1,2,3,4", "top2"]) == ["654", "829", "box:person@1,2,3,4", "top2"]
    assert split_at_commas("a,b(c,d)") == ["a", "b(c,d)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-t", "espresso", "--versus", "espreso"), "did you mean 'espresso'"),
        (("-t", "espresso", "--versus", "967"), "compared with itself"),
        (("-t", "region:espresso"), "needs a segmentation model"),
        (("-t", "box:espresso@1,2,3,4"), "the model's output (1, 1000) has no known format of boxes"),
        (("-t", "box:espresso@1,2"), "left,top,right,bottom"),
        (("-t", "reigon:espresso"), "did you mean 'region'"),
        (("-t", "text:a cup"), "no text encoder"),
        (("-t", "like:missing.jpg"), "the image to compare with cannot be read: missing.jpg"),
        (("-t", "output:1000"), "returns 1000 numbers"),
        (("--read-at", "act"), "activation"),
        (("--grid", "14"), "grid 14 does not fit its output"),
        (("-l", "stage"), "no layer 'stage'"),
    ],
)
def test_targets_and_layers_that_do_not_fit(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = run(capsys, COFFEE, *arguments)
    assert code == 2 and out == "" and message in err
    assert "Traceback" not in err and not Path("cam").exists()
