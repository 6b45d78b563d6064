"""A file that seewhy did not write is never overwritten or deleted, also not through links."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.bulk.part_files import LOCKS
from seewhy.cli.image_job import ImageJob
from seewhy.errors import UsageError
from support.command import run
from support.untrusted_files import file_contents, make_network, save_images

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("tiny_load")
BULK = ("bulk", "photos", "--out", "run", "--workers", "0", "--batch-size", "2", "--quiet")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the images photos/0.png and photos/1.png."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "photos")
    return tmp_path


def foreign(name: str, content: str = "keep this") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def refused(capsys: Capture, path: Path | str, *command: str) -> None:
    """Check that a command refuses to write `path` in one line, and changes no file."""
    before = file_contents(Path())
    code, out, err = run(capsys, *command)
    assert code == 2 and out == "" and len(err.splitlines()) == 1, err
    assert err.startswith(f"seewhy: {path} exists, and this version of seewhy did not write it. Move it, or choose"), (
        err
    )
    assert file_contents(Path()) == before


@pytest.mark.parametrize(
    "name",
    ["index.html", "0/explanation.json", "0/maps.npz", "1/photo.jpg", "1/report.html", "0/overlay.jpg", "0/sheet.jpg"],
)
def test_a_foreign_file_in_the_output_folder(capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A foreign index.html in --out was overwritten. All fixed names are checked before an image is explained."""
    monkeypatch.setattr(ImageJob, "explain", lambda *_: pytest.fail("computed before the check"))
    path = foreign(f"cam/{name}")
    refused(capsys, path, "photos")
    path.unlink()
    path.symlink_to(Path("elsewhere.jpg").absolute())
    refused(capsys, path, "photos")
    path.unlink()
    path.mkdir()
    refused(capsys, path, "photos")


@pytest.mark.parametrize(
    "name", ["overlays/01_layer.jpg", "overlays/gradcam/top1/01_layer.jpg", "sheets/gradcam_top1.jpg"]
)
def test_a_link_among_the_drawings_is_found_before_an_image_is_explained(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It was found when the first overlay was written, after the model had run."""
    monkeypatch.setattr(ImageJob, "explain", lambda *_: pytest.fail("computed before the check"))
    path = Path("cam/0", name)
    path.parent.mkdir(parents=True)
    path.symlink_to(foreign("elsewhere.jpg").absolute())
    refused(capsys, path, "photos")


def test_files_that_a_run_does_not_write_are_no_problem(capsys: Capture) -> None:
    """One image has no index page, and only `features` writes features.jpg."""
    kept = [
        foreign(name) for name in ("cam/index.html", "cam/0/features.jpg", "cam/0/notes.txt", "cam/0/overlays/mine.jpg")
    ]
    Path("cam/0/overlays/link.jpg").symlink_to(kept[0].absolute())
    for _ in range(2):
        assert run(capsys, "photos/0.png", "--quiet")[0] == 0
    assert all(path.read_text() == "keep this" for path in kept)
    refused(capsys, "cam/0/features.jpg", "features", "photos/0.png")
    assert run(capsys, "photos/0.png", "--targets", "top2", "--quiet")[0] == 0  # deletes the earlier overlays
    assert os.listdir("cam/0/overlays") != ["mine.jpg"] and Path("cam/0/overlays/mine.jpg").exists()


def test_a_foreign_overlay_is_found_when_the_layers_are_known(capsys: Capture) -> None:
    """The files of the image are written all or none, so its earlier result stays complete."""
    foreign("cam/0/overlays/01_0.jpg")
    refused(capsys, "cam/0/overlays/01_0.jpg", "photos/0.png")


def test_python_calls_do_not_overwrite_foreign_files() -> None:
    e = seewhy.explain(make_network(), torch.rand(1, 3, 8, 8), layers="0")
    page, arrays = foreign("page.html", "<!doctype html>\n<html><head><title>mine</title>"), foreign("folder/maps.npz")
    for call in (lambda: e.report(page), lambda: e.save(arrays.parent)):
        before = file_contents(Path())
        with pytest.raises(UsageError, match="exists, and this version of seewhy did not write it"):
            call()
        assert file_contents(Path()) == before
    for _ in range(2):
        e.report("other.html")
        e.save("other")


def test_report_does_not_overwrite_a_foreign_page(capsys: Capture) -> None:
    assert run(capsys, "photos/0.png", "--quiet")[0] == 0
    Path("cam/0/report.html").write_text("keep this")
    refused(capsys, "cam/0/report.html", "report", "cam/0")


def test_exports_and_summaries_do_not_overwrite_foreign_files(capsys: Capture) -> None:
    """annotations.json, images and tables of other programs were replaced."""
    assert run(capsys, *BULK)[0] == 0
    for kind, name in (
        ("npz", "maps.npz"), ("coco", "annotations.json"), ("fiftyone", "samples.json"), ("fiftyone", "maps/0.png.png"),
        ("png", "maps/1.png.png"),
    ):  # fmt: skip
        path = foreign(f"data/{name}", '{"info": {"description": "mine"}}')
        refused(capsys, path, "export", "run", "--to", kind, "--out", "data")
        path.unlink()
        for _ in range(2):
            assert run(capsys, "export", "run", "--to", kind, "--out", "data")[0] == 0
    for name in ("summary.html", "classes.csv", "confusions.csv", "outliers.csv", "clusters.csv", "findings.csv"):
        path = foreign(f"data/{name}", "class,name\n")
        refused(capsys, path, "summary", "run", "--out", "data")
        path.unlink()
    refused(capsys, foreign("data/compare.html"), "summary", "run", "run", "--out", "data")
    Path("data/compare.html").unlink()
    for _ in range(2):
        assert (
            run(capsys, "summary", "run", "--out", "data")[0]
            == run(capsys, "summary", "run", "run", "--out", "data")[0]
            == 0
        )


def test_bulk_jobs_append_to_no_foreign_log_and_lock_no_foreign_file(capsys: Capture) -> None:
    """Some versions of filelock truncate the file that they lock, also through a link."""
    log, lock = Path("run/log-0-of-1.jsonl"), Path("run", LOCKS, "0-of-1.lock")
    for path in (log, lock):
        foreign(str(path))
        refused(capsys, path, *BULK)
        path.unlink()
        path.symlink_to(foreign("elsewhere.txt").absolute())
        refused(capsys, path, *BULK)
        path.unlink()
    other = foreign(f"run/{LOCKS}/notes.txt")
    log.touch()  # by a job that was killed
    for _ in range(2):
        assert run(capsys, *BULK)[0] == 0
    assert other.read_text() == "keep this"


def test_a_link_in_a_saved_folder_deletes_no_file_elsewhere(capsys: Capture) -> None:
    """A saved folder with a link to another one, and a record that lists a file there, deleted that file."""
    assert run(capsys, "photos/0.png", "--quiet")[0] == 0
    assert run(capsys, "photos/1.png", "--out", "other", "--quiet")[0] == 0
    foreign("elsewhere/mine.jpg")
    Path("cam/0/link").symlink_to(Path("elsewhere").absolute())
    Path("cam/0/own").symlink_to(Path("other/1").absolute())
    Path("cam/0/inner").symlink_to("overlays")
    record = Path("cam/0/explanation.json")
    content = json.loads(record.read_text())
    content["files"] += [
        "link/mine.jpg", "own/overlay.jpg", "inner/02_gone.jpg", "link", "own", "../../photos/1.png", "inner", "overlays", "",
        ".", "/etc/passwd", "a\0b", "x" * 5000,
    ]  # fmt: skip
    record.write_text(json.dumps(content))
    before = file_contents(Path("elsewhere")) | file_contents(Path("other")) | file_contents(Path("photos"))
    assert run(capsys, "photos/0.png", "--quiet")[0] == 0
    assert file_contents(Path("elsewhere")) | file_contents(Path("other")) | file_contents(Path("photos")) == before
    assert Path("cam/0/link").is_symlink() and Path("cam/0/own").is_symlink() and Path("cam/0/inner").is_symlink()


@pytest.mark.parametrize(
    "content", ["[" * 10**6, '{"files": 1}', "\xff", '{"files": [[]]}'], ids=["deep", "1", "2", "3"]
)
def test_a_record_that_cannot_be_read_deletes_no_file(capsys: Capture, content: str) -> None:
    assert run(capsys, "photos/0.png", "--quiet")[0] == 0
    mark = '{"generator": "seewhy", "x": '
    Path("cam/0/explanation.json").write_text(mark + content)
    assert run(capsys, "photos/0.png", "--quiet")[0] == 0


def test_a_link_below_the_output_folder_leads_no_output_elsewhere(capsys: Capture) -> None:
    """Folders of images, of overlays, of exported maps and of locks may not be links to another place; --out itself may."""
    Path("elsewhere").mkdir()
    assert run(capsys, *BULK)[0] == 0
    for link, command in (
        ("cam/0", ["photos/0.png"]),
        ("cam/0/overlays", ["photos/0.png"]),
        ("data/maps", ["export", "run", "--to", "png", "--out", "data"]),
        ("run/locks", [*BULK, "--store", "uint8"]),
    ):
        path = Path(link)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.rename(path.with_name("moved"))
        path.symlink_to(Path("elsewhere").absolute())
        code, _, err = run(capsys, *command)
        assert code == 2 and f"{link} leads out of " in err and len(err.splitlines()) == 1, err
        path.unlink()
    assert os.listdir("elsewhere") == []
    Path("out").symlink_to(Path("elsewhere").absolute())
    assert run(capsys, "photos/0.png", "--out", "out", "--quiet")[0] == 0
    assert Path("elsewhere/0/overlay.jpg").exists()
