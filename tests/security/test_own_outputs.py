"""Images that seewhy wrote are not explained when a folder is searched, wherever they are."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, JpegImagePlugin

import seewhy
from seewhy import storage
from seewhy.images.discovery import walk_images
from support.command import run
from support.untrusted_files import make_network, save_images

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("tiny_load")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the images photos/0.png and photos/1.png."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "photos")
    return tmp_path


def explained(capsys: Capture, *arguments: str) -> set[str]:
    """Run `seewhy ARGUMENTS --json` and return the images that it explained."""
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    return {json.loads(line)["image"] for line in out.splitlines()}


BOTH = {"./photos/0.png", "./photos/1.png"}


@pytest.mark.parametrize(
    "options",
    [[], ["--style", "classic"], ["--targets", "top2"], ["--methods", "gradcam,hirescam", "--targets", "top2"]],
    ids=" ".join,
)
def test_three_runs_explain_the_same_images(capsys: Capture, options: list[str]) -> None:
    """`seewhy .` explained 1, 5, then 21 images, because it picked up its own overlays."""
    for _ in range(3):
        assert explained(capsys, ".", *options) == BOTH


def test_outputs_are_recognized_wherever_they_are(capsys: Capture) -> None:
    """Other --out folders, below and above the input, `features`, copies, moved and renamed folders, without their records."""
    for out in ("cam", "photos/cam", "photos", "other/place"):
        assert run(capsys, "photos", "--out", out, "--quiet")[0] == 0
    assert run(capsys, "features", "photos", "--out", "features", "--quiet")[0] == 0
    for record in Path().rglob("explanation.json"):
        record.unlink()
    shutil.copytree("cam", "photos/copy")
    shutil.move("photos/cam", "moved")
    Path("moved/0/overlays").rename("moved/0/renamed")
    shutil.copy("cam/0/overlay.jpg", "photos/0.jpg")  # among other images, and with another name
    for folder in (".", "./photos"):
        assert explained(capsys, folder, "--out", "new") == BOTH
    code, _, err = run(capsys, "moved", "--out", "new")
    assert code == 2 and err == "seewhy: moved: contains only images that seewhy wrote\n"


def test_outputs_of_a_killed_run_are_recognized(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends before it writes its record leaves files with marks, which a second run replaces."""
    replace = os.replace

    def die(source: str, target: Path) -> None:
        if Path(target).name == "explanation.json":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        assert run(capsys, "photos", "--quiet")[0] == 130
    assert Path("cam/0/overlay.jpg").exists() and not Path("cam/0/explanation.json").exists()
    assert not list(Path("cam").rglob("*.part"))
    for _ in range(2):
        assert explained(capsys, ".") == BOTH


def test_skipped_images_are_one_note(capsys: Capture) -> None:
    """The note is on stderr, with a number and an example; --quiet suppresses it, and a file that is named is explained."""
    assert run(capsys, ".", "--quiet")[::2] == (0, "")
    code, _, err = run(capsys, ".", "--json")
    assert code == 0 and err == "skipped 8 images that seewhy wrote (./cam/0/overlay.jpg, ...)\n"
    assert run(capsys, ".", "--quiet")[2] == ""
    assert explained(capsys, "cam/0/overlay.jpg", "--out", "new") == {"cam/0/overlay.jpg"}
    code, _, err = run(capsys, "cam", "--out", "new")
    assert code == 2 and err == "seewhy: cam: contains only images that seewhy wrote\n"


def test_a_bulk_job_resumes_after_outputs_were_written_into_its_input(capsys: Capture) -> None:
    """It refused to resume after an export below its input: the dataset had other images."""
    command = ["bulk", "photos", "--out", "run", "--workers", "0", "--batch-size", "2"]
    assert run(capsys, *command)[0] == 0
    for kind in ("png", "fiftyone", "npz", "coco"):
        assert run(capsys, "export", "run", "--to", kind, "--out", f"photos/{kind}")[0] == 0
    assert run(capsys, "photos", "--out", "photos/cam", "--quiet")[0] == 0
    assert run(capsys, "summary", "run", "--out", "photos/summary")[0] == 0
    code, out, err = run(capsys, *command, "--json")
    assert code == 0 and json.loads(out)["images_before"] == 2, err
    code, out, err = run(capsys, *command[:3], "new", *command[4:])
    assert code == 0 and "2 images" in out
    assert "note: skipped 12 images that seewhy wrote (photos/cam/0/overlay.jpg, ...)" in err


def test_tar_files_next_to_exports_are_still_a_dataset_of_tar_files(capsys: Capture) -> None:
    shutil.make_archive("tars/a", "tar", "photos")
    command = ["bulk", "tars", "--out", "run", "--workers", "0", "--batch-size", "2", "--json"]
    assert run(capsys, *command)[0] == 0
    assert run(capsys, "export", "run", "--to", "png", "--out", "tars/exported")[0] == 0
    code, out, err = run(capsys, *command)
    assert code == 0 and json.loads(out)["images_before"] == 2, err


def test_a_search_opens_one_image_of_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark of an image is read only where it is likely, so a search of a million images takes no longer."""
    opened: list[str] = []
    monkeypatch.setattr(storage, "has_mark", lambda path: opened.append(path) or False)
    for number in range(2, 102):
        shutil.copy("photos/0.png", f"photos/{number}.png")
    shutil.copy("photos/0.png", "photos/overlay.jpg")
    assert len(list(walk_images("photos", pytest.fail))) == 103
    assert sorted(opened) == ["photos/0.png", "photos/overlay.jpg"]


def test_every_file_of_seewhy_has_a_mark(capsys: Capture) -> None:
    """Overlays, pages, records, arrays and exports are recognized from their content, and links to them are not own files."""
    assert run(capsys, "photos", "--quiet")[0] == 0
    assert run(capsys, "features", "photos", "--out", "features", "--quiet")[0] == 0
    assert run(capsys, "bulk", "photos", "--out", "run", "--workers", "0", "--quiet")[0] == 0
    for kind in ("png", "fiftyone", "npz", "coco"):
        assert run(capsys, "export", "run", "--to", kind, "--out", kind)[0] == 0
    assert run(capsys, "summary", "run")[0] == run(capsys, "summary", "run", "run")[0] == 0
    e = seewhy.explain(make_network(), torch.rand(1, 3, 8, 8), layers="0")
    e.save("tensor")
    folders = ("cam", "features", "png", "fiftyone", "npz", "coco", "tensor", "run/summary")
    files = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".csv"]
    assert {path.suffix for path in files} == {".jpg", ".png", ".json", ".npz", ".html"} and len(files) > 30
    for number, path in enumerate(files):
        assert storage.is_own(path), path
        link = Path(f"link{number}")
        link.symlink_to(path)
        assert storage.has_mark(link) and not storage.is_own(link)
    assert not storage.is_own(Path("photos/0.png")) and not storage.is_own(Path("photos")) and not storage.is_own("\0")
    with Image.open("cam/0/overlay.jpg", formats=["JPEG"]) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile) and image.info["comment"] == b"seewhy"
    with Image.open("png/maps/0.png.png", formats=["PNG"]) as image:
        assert image.info["Software"] == "seewhy"
    assert json.loads(Path("coco/annotations.json").read_text())["info"]["generator"] == "seewhy"
