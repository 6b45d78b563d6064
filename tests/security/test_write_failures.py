"""A full disk or a folder that cannot be written ends every command with one line, and earlier results stay complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import seewhy
from seewhy.bulk.part_files import PartWriter
from seewhy.errors import UsageError
from seewhy.storage import files
from support.command import run
from support.untrusted_files import file_contents, make_network, save_images

Capture = pytest.CaptureFixture[str]
Fail = Callable[[int], None]
pytestmark = pytest.mark.usefixtures("tiny_load")
BULK = ("bulk", "photos", "--workers", "0", "--batch-size", "2", "--quiet")
COMMANDS = {
    "images": ["photos", "--out", "new"], "one": ["photos/0.png", "--out", "new"],
    "features": ["features", "photos", "--out", "new"],
    "demo": ["demo", "--out", "new"], "report": ["report", "cam/0"], "npz": ["export", "run", "--to", "npz", "--out", "new"],
    "png": ["export", "run", "--to", "png", "--out", "new"], "coco": ["export", "run", "--to", "coco", "--out", "new"],
    "fiftyone": ["export", "run", "--to", "fiftyone", "--out", "new"], "summary": ["summary", "run"],
    "comparison": ["summary", "run", "run"], "bulk": [*BULK, "--out", "new"],
}  # fmt: skip
REASONS = {
    errno.ENOSPC: "no space left on device", errno.EROFS: "read-only file system", errno.EACCES: "permission denied",
    errno.ENAMETOOLONG: "file name too long", errno.EDQUOT: "disk quota exceeded",
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """The current directory, with two images, their explanations and a bulk run."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "photos")
    assert run(capsys, "photos", "--quiet")[0] == run(capsys, *BULK, "--out", "run")[0] == 0
    return tmp_path


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Return a function after which every write fails when the file is partly written."""

    def start(number: int) -> None:
        def write(path: Path, *_: Any) -> None:
            path.write_bytes(b"part")
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(files, "write_temporary", write)

    return start


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_in_every_command(capsys: Capture, fail: Fail, name: str) -> None:
    """It was a traceback with exit code 1. No temporary file remains, and no other file changes."""
    before = file_contents(Path())
    fail(errno.ENOSPC)
    code, _, err = run(capsys, *COMMANDS[name], *(["--quiet"] if name in ("images", "one", "features") else []))
    line = err.splitlines()[-1]
    assert code == 2 and line.endswith(": cannot be written (no space left on device). Choose another folder."), err
    assert len(err.splitlines()) == 1 or name in ("demo",), err
    after = file_contents(Path())
    if name == "bulk":
        after = {path: content for path, content in after.items() if "lock" not in path and "log" not in path}
        before = {path: content for path, content in before.items() if "lock" not in path and "log" not in path}
    assert after == before


@pytest.mark.parametrize("number", REASONS, ids=REASONS.values())
def test_the_reason_is_in_the_line(capsys: Capture, fail: Fail, number: int) -> None:
    fail(number)
    code, _, err = run(capsys, "photos", "--quiet")
    assert (
        code == 2 and err == f"seewhy: cam/0/maps.npz: cannot be written ({REASONS[number]}). Choose another folder.\n"
    )


def test_earlier_results_stay_complete(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of an image replace its earlier files only when all are written; finished images keep their new files."""
    before = {path: content for path, content in file_contents(Path("cam")).items() if path.startswith("1/")}
    write, written = files.write_temporary, []

    def limited(path: Path, *arguments: Any) -> None:
        written.append(path)
        if len(written) == 15:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *arguments)

    monkeypatch.setattr(files, "write_temporary", limited)
    code, _, err = run(capsys, "photos", "--targets", "top2", "--quiet")
    assert code == 2 and "cam/1/" in err and "no space left" in err
    assert len(seewhy.load_explanation("cam/0").targets) == 2
    assert {path: content for path, content in file_contents(Path("cam")).items() if path.startswith("1/")} == before


def test_a_rename_that_fails_leaves_no_temporary_file(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", source)

    before = file_contents(Path())
    monkeypatch.setattr(os, "replace", refuse)
    for name in ("one", "report", "png", "summary"):
        code, _, err = run(capsys, *COMMANDS[name])
        assert code == 2 and "cannot be written (permission denied)" in err and len(err.splitlines()) == 1, err
    assert file_contents(Path()) == before


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, who may write everywhere, so the answer of the system is simulated."""
    Path("closed").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and access(path, mode))
    monkeypatch.setattr("seewhy.cli.image_job.ImageJob.explain", lambda *_: pytest.fail("computed before the check"))
    for name, command in COMMANDS.items():
        if name == "report":
            continue
        outputs = ["closed/sub" if word == "new" else word for word in command]
        code, _, err = run(capsys, *outputs, *([] if "--out" in command else ["--out", "closed"]))
        assert code == 2 and "closed: cannot be written (permission denied). Choose another folder." in err, (name, err)
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("out", ["x" * 256, "d/" * 2500, "/proc/x", "loop", "loop/x", "/dev/null", "photos/0.png"])
def test_an_output_folder_that_cannot_exist(capsys: Capture, out: str) -> None:
    """A name of more than 255 bytes, a path above PATH_MAX and a loop of links printed tracebacks."""
    Path("loop").symlink_to("loop")
    for name, command in COMMANDS.items():
        if name == "report":
            continue
        outputs = [out if word == "new" else word for word in command]
        code, printed, err = run(capsys, *outputs, *([] if "--out" in command else ["--out", out]))
        assert code == 2 and len(err.splitlines()) == 1 and "Choose another" in err and "folder." in err, (name, err)
        assert printed == ""


def test_a_part_that_cannot_be_written(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bulk job reports the folder, keeps its finished parts, and resumes."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(PartWriter, "write_group", full)
        code, _, err = run(capsys, *BULK, "--out", "new")
    assert code == 2 and err.startswith("seewhy: new: the disk is full. Finished parts are kept")
    assert not [path for path in Path("new").iterdir() if path.name.startswith((".part", "part"))]
    for place in ("acquire", "finished_parts"):
        with monkeypatch.context() as patch:
            patch.setattr(f"seewhy.bulk.part_files.{place}" if place == "acquire" else f"seewhy.bulk.job.{place}", full)
            code, _, err = run(capsys, *BULK, "--out", "new")
        assert code == 2 and err.startswith("seewhy: new: the disk is full") and len(err.splitlines()) == 1, err
    assert run(capsys, *BULK, "--out", "new")[0] == 0


def test_python_calls_raise_usage_errors(fail: Fail) -> None:
    """The error keeps the system's as its cause. A null character in a name was a ValueError."""
    e = seewhy.explain(make_network(), torch.rand(1, 3, 8, 8), layers="0")
    for name in ("a\0b", Path("a\0b/c")):
        for call in (e.save, e.report):
            with pytest.raises(UsageError, match="not a valid file name: it contains a null character"):
                call(name)
        with pytest.raises(UsageError, match="not a valid file name: it contains a null character"):
            seewhy.explain_all(make_network(), "photos", name, preprocess=seewhy.Preprocess.imagenet(32), quiet=True)
    fail(errno.ENOSPC)
    for call, name in ((e.save, "folder"), (e.report, "page.html")):
        with pytest.raises(UsageError, match="cannot be written") as caught:
            call(name)
        assert isinstance(caught.value.__cause__, OSError)


def test_the_reason_names_the_file_above(tmp_path: Path) -> None:
    """In Python, a message does not name an option of the command line."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as error:
        files.write_file(tmp_path / "file" / "below" / "a.json", b"{}")
    reason = (
        f"{tmp_path}/file/below/a.json: cannot be written ({tmp_path}/file is not a folder). Choose another folder."
    )
    assert str(error.value) == reason


def test_folders_without_a_file_are_removed(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "own").mkdir()
    for folder in ("new/a/b", "own/a"):
        with pytest.raises(UsageError, match="no space left"):
            files.write_file(tmp_path / folder / "a.json", fail)
    assert not (tmp_path / "new").exists() and list((tmp_path / "own").iterdir()) == []
