"""`seewhy choose` and `--use`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from support.command import COFFEE, run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with 17 crops of one photo."""
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = Image.open(COFFEE).convert("RGB").resize((300, 300))
    for number in range(17):
        x, y = 5 * (number % 5), 6 * (number // 5)
        photo.crop((x, y, x + 260, y + 260)).save(folder / f"{number:02}.jpg")
    return folder


def saved_choice(path: Path, **changes: object) -> Path:
    record = {
        "generator": "seewhy", "kind": "choice", "model": "embedded", "weights": "sha256:0", "method": "layercam",
        "layer": "blocks.4.2", "verdict": "better", **changes,
    }  # fmt: skip
    path.write_text(json.dumps(record))
    return path


def test_a_choice_is_printed_saved_and_applied(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    code, out, _ = run(
        capsys, "choose", str(photos), "--methods", "gradcam,layercam", "--layers", "blocks.5.3,bn2", "--images", "16"
    )
    text = " ".join(out.split())
    assert code == 0 and "screening" in out and "4 candidates, 16 images" in text
    assert "Apply it: seewhy photo.jpg --use choice.json" in text
    record = json.loads(Path("choice.json").read_text())
    assert record["method"] in ("gradcam", "layercam") and record["layer"] in ("blocks.5.3", "bn2")
    assert record["passes"] > 100 and len(record["screened"]) >= 3

    code, out, err = run(capsys, COFFEE, "--use", "choice.json", "--json")
    explained = json.loads(out)
    assert code == 0 and "note" not in err
    assert {entry["method"] for entry in explained["maps"]} == {record["method"]}
    assert f"--methods {record['method']}" in explained["provenance"]["command"]
    assert explained["maps"][0]["layer"] == record["layer"]


def test_a_choice_for_another_model_is_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = saved_choice(tmp_path / "a.json", model="timm/resnet18")
    code, _, err = run(capsys, COFFEE, "--use", str(other), "--no-check")
    assert code == 0 and "the choice was made for timm/resnet18, and this model is embedded" in " ".join(err.split())
    weights = saved_choice(tmp_path / "b.json")
    code, _, err = run(capsys, COFFEE, "--use", str(weights), "--no-check")
    assert code == 0 and "the choice was made for other weights of embedded" in " ".join(err.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--use", "{file}", "--methods", "gradcam"), "sets the method and the layer, so remove --methods"),
        (("--use", "{file}", "--layers", "every"), "sets the method and the layer, so remove --layers"),
        (("--use", "missing.json"), "missing.json: no such file. Make one: seewhy choose photos/ --out missing.json"),
        (("--use", "{other}"), "is not a choice"),
    ],
)
def test_use_errors_write_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    names = {
        "{file}": str(saved_choice(tmp_path / "choice.json")),
        "{other}": str(saved_choice(tmp_path / "other.json", kind="run")),
    }
    code, out, err = run(capsys, COFFEE, *[names.get(word, word) for word in words])
    assert (code, out) == (2, "") and message in " ".join(err.split())
    assert not Path("cam").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "choice"}', '{"kind": 3, "model": [1]}'])
def test_a_damaged_choice_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str) -> None:
    path = tmp_path / "choice.json"
    path.write_text(content)
    code, _, err = run(capsys, COFFEE, "--use", str(path))
    assert code == 2 and str(path) in "".join(err.split()) and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no images. Give a folder: seewhy choose photos/"),
        (("{photos}", "--images", "9"), "too few images to choose: 9. Give at least 16"),
        (("{photos}", "--methods", "gradcan"), "no method 'gradcan'"),
        (("{photos}", "--methods", "fullgrad"), "explains the entire model"),
        (("{photos}", "--out", "{photo}"), "would overwrite"),
        (("{photos}", "--out", "mine.json"), "did not write it"),
        (("{photos}", "--targets", "top2"), "several targets"),
        (("phots/",), "phots/: no such file or folder"),
        (("{photos}", "--out", "mine.json/choice.json"), "mine.json"),
        (("-",), "standard input contains one image"),
    ],
)
def test_usage_errors_write_nothing(
    capsys: pytest.CaptureFixture[str], photos: Path, words: tuple[str, ...], message: str
) -> None:
    Path("mine.json").write_text("{}")
    names = {"{photos}": str(photos), "{photo}": str(photos / "00.jpg")}
    code, _, err = run(capsys, "choose", *[names.get(word, word) for word in words])
    assert code == 2 and message in " ".join(err.split())
    assert not Path("choice.json").exists() and Path("mine.json").read_text() == "{}"


def test_bulk_uses_a_choice(capsys: pytest.CaptureFixture[str], tmp_path: Path, photos: Path) -> None:
    path = saved_choice(tmp_path / "choice.json")
    code, _, err = run(capsys, "bulk", str(photos), "--use", str(path), "--out", "run")
    assert code == 0 and "other weights" in err
    job = json.loads(Path("run/job.json").read_text())
    assert "layercam" in json.dumps(job) and "blocks.4.2" in json.dumps(job)
