"""Networks, labels and targets that do not fit the images, on the command line."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import seewhy
from seewhy.errors import ImageError, UsageError
from seewhy.images.loading import load_image
from seewhy.images.preprocess import Preprocess
from support.command import COFFEE, run
from support.untrusted_files import make_network

SEGMENTATION = "RedSegmentation?labels=sky,bus"


@pytest.fixture(autouse=True)
def images(empty_folder: None) -> None:
    for name, red in (("red", 200), ("dark", 0)):
        Image.new("RGB", (60, 40), (red, 20, 20)).save(f"{name}.png")


def run_factory(capsys: pytest.CaptureFixture[str], factory: str, *arguments: str) -> tuple[int, str, str]:
    return run(capsys, *arguments, "--model", f"support.factories:{factory}", "--allow-code")


# Targets


def test_an_image_without_the_target_fails_alone(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (SEGMENTATION, "-t", "region:bus", "dark.png", "red.png", "--json")
    code, out, err = run_factory(capsys, *arguments)
    bad, good = map(json.loads, out.splitlines())
    assert code == 1 and "1 of 2 images failed" in err
    assert bad["image"] == "dark.png" and "bus wins in no cell" in bad["error"]
    assert good["image"] == "red.png" and Path("cam/red/overlay.jpg").exists() and not Path("cam/dark").exists()


def test_no_image_has_the_target(capsys: pytest.CaptureFixture[str]) -> None:
    Image.open("dark.png").save("darker.png")
    code, out, err = run_factory(capsys, SEGMENTATION, "-t", "region:bus", "dark.png", "darker.png")
    assert code == 2 and out == "" and "dark.png: " in err and "2 of 2 images failed" in err
    code, out, err = run_factory(capsys, SEGMENTATION, "-t", "region:bus", "dark.png")
    assert code == 2 and out == "" and "bus wins in no cell" in err
    assert len(err.splitlines()) == 2  # and a note about the preprocessing


@pytest.mark.parametrize(
    ("target", "message"), [("bsu", "did you mean 'bus'"), ("box:bus@1,2", "left,top,right,bottom")]
)
def test_a_target_that_fits_no_image_stops_the_run(
    capsys: pytest.CaptureFixture[str], target: str, message: str
) -> None:
    code, out, err = run_factory(capsys, SEGMENTATION, "-t", target, "dark.png", "red.png", "--quiet")
    assert code == 2 and out == "" and message in err and len(err.splitlines()) == 1


# Inputs and models


def test_an_input_size_that_the_model_does_not_accept(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_factory(capsys, "fixed_size_classifier", "red.png", "--quiet")
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert "Sequential: its forward fails on inputs of shape (1, 3, 224, 224)" in err and "cannot be multiplied" in err


def test_grayscale_networks_get_grayscale_images(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_factory(capsys, "classifier?channels=1", "red.png")
    assert code == 0 and "in grayscale is assumed" in err and Path("cam/red/overlay.jpg").exists()
    loaded = seewhy.load_model("support.factories:classifier?channels=1", allow_code=True)
    assert isinstance(loaded.preprocess, Preprocess) and loaded.preprocess.mean == pytest.approx((0.449,), abs=1e-3)


def test_networks_with_five_channels_have_no_preprocessing(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_factory(capsys, "classifier?channels=5", "red.png", "--quiet")
    assert code == 2 and "has no preprocessing for images" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "size", "shape"),
    [
        ("channels=1", "28", [1, 28, 28]),
        ("channels=5", "28", [5, 28, 28]),
        ("channels=1&axes=1", "1000", [1, 1000]),
        ("channels=2&axes=3", "12", [2, 12, 12, 12]),
        ("channels=2&axes=3", "12x10x8", [2, 12, 10, 8]),
    ],
)
def test_layers_of_networks_with_other_input_shapes(
    capsys: pytest.CaptureFixture[str], options: str, size: str, shape: list[int]
) -> None:
    factory = f"support.factories:classifier?{options}"
    code, out, err = run(capsys, "layers", factory, "--allow-code", "--size", size, "--json")
    assert code == 0, err
    assert json.loads(out)["input"] == shape and json.loads(out)["layers"][0]["name"] == "0"


def test_number_of_classes_of_the_embedded_network(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "red.png", "-m", "embedded", "--num-classes", "7")
    assert code == 2 and "no option 'num_classes'. 'embedded?' takes labels." in err


# Scores


def test_scores_that_are_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_factory(capsys, "InfiniteScore", "red.png", "-t", "1", "--json")
    record = json.loads(out)
    assert code == 0 and record["targets"][0]["score"] is None
    assert any("score of class 1" in note and "not a finite number" in note for note in record["notes"])
    loaded = seewhy.load_explanation("cam/red")
    assert loaded.target_results[0].scores.isnan().all()
    assert loaded.to_dict()["notes"] == record["notes"]
    code, out, _ = run_factory(capsys, "InfiniteScore", "red.png", "-t", "1", "--label", "2")
    assert code == 0 and "not a finite number" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demoo"], "no image and no command 'demoo' - did you mean: seewhy demo?"),
        (["--quiet", "layers"], "no image 'layers'. A command comes first: seewhy layers ..."),
        ([COFFEE, "--targets", "cat"], "names contain this word, such as 'tabby cat'"),
        ([COFFEE, "--device", "gpu"], "no device 'gpu'. Use auto, cuda, mps or cpu."),
        (["report", "nowhere"], "nowhere: no such folder. Pass a folder that seewhy wrote, such as cam/bus."),
    ],
)
def test_messages_name_what_the_user_may_have_meant(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2 and message in err, err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://example.com/cat.jpg", "seewhy does not download images: save it first, then pass the file"),
        ("photos/*.jpeg", "no file matches this pattern"),
        ("coffe.png", "no such file - did you mean 'coffee.png'?"),
    ],
)
def test_a_missing_image_states_what_the_user_may_have_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("coffee.png").write_bytes(b"")
    with pytest.raises(ImageError, match=re.escape(message)):
        load_image(name)


def test_folders_that_are_no_saved_explanation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bulk run, a folder of saved explanations, and one without its maps are recognized."""
    monkeypatch.chdir(tmp_path)
    for name in ("run/job.json", "cam/bus/explanation.json"):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_text("{}")
    for folder, message in (("run", "It is a bulk run: seewhy summary run"), ("cam", "It contains some: pass cam/bus")):
        with pytest.raises(UsageError, match=message):
            seewhy.load_explanation(folder)
    for path, message in (
        ("cam/bus/explanation.json", "is a file of a saved explanation. Pass its folder: cam/bus"),
        ("dark.png", "dark.png is a file, not a saved explanation. Pass a folder that seewhy wrote"),
        ("nowhere", "nowhere: no such folder. Pass a folder that seewhy wrote"),
    ):
        with pytest.raises(UsageError, match=message):
            seewhy.load_explanation(path)
    for path, message in (
        ("run/job.json", "run/job.json is a file of a bulk run. Pass its folder: run"),
        ("dark.png", "dark.png is a file, not a bulk run. Pass the folder that seewhy bulk wrote"),
        ("nowhere", "nowhere: no such folder. Pass the folder that seewhy bulk wrote"),
        ("cam", "cam is not a bulk run .job.json is missing"),
    ):
        with pytest.raises(UsageError, match=message):
            seewhy.read_run(path)
    with pytest.raises(
        UsageError, match="cam/bus is not a bulk run, but the explanation of one image: open cam/bus/report"
    ):
        seewhy.read_run("cam/bus")


def test_an_empty_batch_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"inputs of shape \(0, 3, 8, 8\): the batch is empty"):
        seewhy.explain(make_network(), torch.zeros(0, 3, 8, 8))


def test_a_saved_explanation_without_its_photo(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "red.png", "-q", "-l", "bn2")[0] == 0
    Path("cam/red/photo.jpg").unlink()
    code, _, err = run(capsys, "report", "cam/red")
    assert code == 2 and "cam/red: photo.jpg of this saved explanation is missing, so only its maps can be read" in err
    loaded = seewhy.load_explanation("cam/red")
    assert loaded.map().shape == (7, 7)
    for draw in (loaded.report, loaded.overlay, loaded.input_pixels):
        with pytest.raises(UsageError, match=r"Restore the file, or explain the image again"):
            draw()


def test_the_hint_that_lists_layers_can_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_factory(capsys, "classifier?channels=3", "red.png", "-q", "-l", "nolayer")
    command = "seewhy layers 'support.factories:classifier?channels=3' --allow-code"
    assert code == 2 and err.rstrip().endswith(f"List them: {command}")
    assert run(capsys, *shlex.split(command)[1:])[0] == 0
    _, _, err = run(capsys, "red.png", "-q", "-l", "classifier")
    assert err.rstrip().endswith("has no grid. List them: seewhy layers")
    _, _, err = run(capsys, "bulk", "red.png", "--out", "run", "-q", "-l", "nolayer")
    assert err.rstrip().endswith("List them: seewhy layers")
    network, image = seewhy.load_model(), "red.png"
    with pytest.raises(UsageError, match=r"List them: seewhy.explain\(model, inputs, layers='all'\).layers"):
        seewhy.explain(network, image, layers="nolayer")
    assert "bn2" in seewhy.explain(network, image, layers="all").layers
