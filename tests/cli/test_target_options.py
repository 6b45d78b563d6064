"""Questions, layers and scales at the prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import seewhy
from seewhy.cli import main as cli
from seewhy.methods.method_text import split_at_commas
from support.command import COFFEE, run

BOTH = str(seewhy.sample("cat_espresso"))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def record(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    found: dict[str, object] = json.loads(out)
    return found


def test_why_this_and_not_that(capsys: pytest.CaptureFixture[str]) -> None:
    found = record(capsys, BOTH, "-t", "espresso", "--versus", "Egyptian cat", "--fit", "squash", "-l", "suggested")
    assert [target["name"] for target in found["targets"]] == ["espresso rather than Egyptian cat"]  # type: ignore[attr-defined]
    folder = Path("cam/cat_espresso")
    e = seewhy.load_explanation(folder)
    assert e.target_results[0].name == "espresso rather than Egyptian cat" and e.overlay().size[0] > 100
    heat = e.on_photo()
    middle = heat.shape[1] // 2
    assert heat[:, middle:].sum() > 0.8 * heat.sum()  # the cup is on the right


def test_several_kinds_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = record(
        capsys, COFFEE, "-l", "suggested", "-t", "967,top2", "-t", "probability:espresso", "-t", "output:3",
        "-t", f"like:{BOTH}", "--scale", "shared",
    )  # fmt: skip
    keys = [target["key"] for target in found["targets"]]  # type: ignore[attr-defined]
    assert keys[0] == "967" and {"probability_967", "output_3", "like cat_espresso.png"} <= set(keys)
    assert (Path("cam/coffee") / "sheet.jpg").exists()


def test_groups_of_layers_and_the_read_point(capsys: pytest.CaptureFixture[str]) -> None:
    found = record(capsys, COFFEE, "-l", "stages")
    assert len(found["layers"]) == 5  # type: ignore[arg-type]
    found = record(capsys, COFFEE, "-l", "conv_head", "--read-at", "activation")
    assert list(found["layers"])[-1] == "bn2"  # type: ignore[call-overload]  # timm's batch norm with the activation inside


def test_how_many_classes(capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--model", "torchvision/resnet18?pretrained=false")
    found = record(capsys, COFFEE, *model, "--num-classes", "7", "-l", "suggested")
    assert all(row["class"] < 7 for row in found["top"])  # type: ignore[attr-defined]
    assert "num_classes=7" in json.loads(run(capsys, "layers", model[1], "--num-classes", "7", "--json")[1])["model"]
    for arguments, said in (
        (("--num-classes", "7"), "the network in the package has 1000; give a --model."),
        ((*model[:1], "torchvision/resnet18?num_classes=5", "--num-classes", "7"), "says it too; leave one out."),
        ((*model, "--num-classes", "0"), "num_classes=0: must be an integer of at least 1"),
    ):
        code, out, err = run(capsys, COFFEE, *arguments)
        assert code == 2 and not out and said in err and len(err.splitlines()) == 1


def test_a_place_is_one_target_whatever_its_commas() -> None:
    assert cli.split_targets(["654,829", "box:person@1,2,3,4", "top2"]) == ["654", "829", "box:person@1,2,3,4", "top2"]
    assert split_at_commas("a,b(c,d)") == ["a", "b(c,d)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-t", "espresso", "--versus", "espreso"), "did you mean 'espresso'"),
        (("-t", "espresso", "--versus", "967"), "compared with itself"),
        (("-t", "region:espresso"), "not class scores on a grid"),
        (("-t", "box:espresso@1,2,3,4"), "does not say where its boxes are"),
        (("-t", "box:espresso@1,2"), "left,top,right,bottom"),
        (("-t", "reigon:espresso"), "did you mean 'region'"),
        (("-t", "text:a cup"), "no text encoder"),
        (("-t", "like:missing.jpg"), "compare with cannot be read: missing.jpg"),
        (("-t", "output:1000"), "gives 1000 numbers"),
        (("--read-at", "act"), "activation"),
        (("--grid", "14"), "grid"),
        (("-l", "stage"), "no layer 'stage'"),
    ],
)
def test_wrong_questions(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run(capsys, COFFEE, *arguments)
    assert code in (1, 2) and out == "" and message in err
    assert "Traceback" not in err and not Path("cam").exists()
