"""Files that never end: pipes and devices block no run and fill no memory."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
import tempfile
from pathlib import Path

import pytest
from PIL import Image

import seewhy
from seewhy.errors import ImageError, UsageError
from seewhy.images.loading import load_image
from support.command import run
from support.untrusted_files import make_network, save_images

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("one_load")


def make_special_files(folder: Path) -> None:
    """Create a pipe, a socket, a link to a device, a broken link, and folders, all with names of images."""
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.png"))
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "missing.png").symlink_to("nowhere")
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to(folder.absolute(), target_is_directory=True)


def test_special_files_in_a_folder_are_skipped(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good images of a folder are explained; other entries than regular files are skipped with a reason."""
    with tempfile.TemporaryDirectory() as home:  # a short path, as sockets require
        monkeypatch.chdir(home)
        save_images(Path("photos"), 1)
        make_special_files(Path("photos"))
        code, out, err = run(capsys, "photos", "--layers", "bn2", "--json")
        entries = [json.loads(line) for line in out.splitlines()]
        errors = {entry["image"].removeprefix("photos/"): entry.get("error") for entry in entries}
        skipped = "skipped: not a regular file but a pipe, a socket or a device"
        assert code == 1 and errors == {
            "0.png": None, "pipe.png": skipped, "socket.png": skipped, "zero.png": skipped, "missing.png": "no such file",
        }, err  # fmt: skip
        assert Path("cam/0/overlay.jpg").exists()
        monkeypatch.chdir("/")


def test_a_named_pipe_or_device_is_read_up_to_a_limit(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell passes <(command) as a pipe. An endless device, also at stdin, is read up to the limit only."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path, 1)
    reading, writing = os.pipe()
    os.write(writing, Path("0.png").read_bytes())
    os.close(writing)
    code, out, err = run(capsys, f"/dev/fd/{reading}", "--layers", "bn2", "--json")
    os.close(reading)
    assert code == 0 and json.loads(out)["image"] == f"/dev/fd/{reading}", err
    few = ("--max-pixels", "5000", "--quiet")
    code, _, err = run(capsys, "/dev/zero", *few)
    assert code == 1 and "/dev/zero: more than 64 MB; a larger --max-pixels" in err
    with open("/dev/zero", "rb") as endless:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(endless))
        code, _, err = run(capsys, "-", *few)
    assert code == 1 and "-: more than 64 MB; a larger --max-pixels" in err
    with open("sparse.webp", "wb") as file:  # Pillow reads WebP files completely
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(2**40)
    code, _, err = run(capsys, "sparse.webp", "0.png", *few)
    assert code == 1 and "sparse.webp: more than 64 MB" in err and Path("cam/0/overlay.jpg").exists()


def test_file_objects_are_read_up_to_the_limit() -> None:
    """The limit is 8 bytes for each allowed pixel plus 64 MiB; an image within it is read as before."""
    limit = 8 * 100 + 2**26
    png = io.BytesIO()
    Image.new("RGB", (10, 10), (9, 9, 9)).save(png, "PNG")
    exact = io.BytesIO(png.getvalue().ljust(limit, b"\0"))
    assert load_image(exact, max_pixels=100).tolist() == [[[9, 9, 9]] * 10] * 10
    with pytest.raises(ImageError, match="more than 64 MB"):
        load_image(io.BytesIO(png.getvalue().ljust(limit + 1, b"\0")), max_pixels=100)


@pytest.mark.parametrize("name", ["explanation.json", "maps.npz", "photo.jpg"])
def test_a_saved_run_with_a_pipe_is_an_error(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither reading a run nor writing into its folder waits for a pipe, and the pipe is not replaced."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path, 1)
    assert run(capsys, "0.png", "--layers", "bn2", "--quiet")[0] == 0
    Path("cam/0", name).unlink()
    os.mkfifo(Path("cam/0", name))
    code, _, err = run(capsys, "report", "cam/0")
    assert code == 2 and "is not a regular file" in err and len(err.splitlines()) == 1
    code, _, err = run(capsys, "0.png", "--layers", "bn2", "--quiet")
    assert code == 2 and f"cam/0/{name} exists, and this version of seewhy did not write it" in err
    Path("cam/0", name).unlink()
    assert run(capsys, "0.png", "--layers", "bn2", "--quiet")[0] == 0
    assert seewhy.load_explanation("cam/0")


def test_bulk_jobs_do_not_wait_for_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipes among tar files and in the folder of a run are reported."""
    monkeypatch.chdir(tmp_path)

    def start(source: str, out: str) -> seewhy.BulkRun:
        preprocess = seewhy.Preprocess.imagenet(32)
        return seewhy.explain_all(make_network(), source, out, preprocess=preprocess, workers=0, quiet=True)

    save_images(tmp_path / "photos", 1)
    Path("tars").mkdir()
    with tarfile.open("tars/a.tar", "w") as tar:
        tar.add("photos/0.png", "0.png")
    os.mkfifo("tars/b.tar")
    bulk_run = start("tars", "run")
    assert len(bulk_run) == 2 and [row["id"] for row in bulk_run.failed] == ["b.tar/"]
    assert "it is not a regular file" in bulk_run.failed[0]["error"]
    for name in ("job.json", "log-0-of-1.jsonl"):
        Path("other").mkdir(exist_ok=True)
        os.mkfifo(Path("other", name))
        with pytest.raises(UsageError, match=f"other/{name} is not a regular file"):
            start("photos", "other")
        if name == "job.json":
            with pytest.raises(UsageError, match=r"job\.json is not a regular file"):
                seewhy.read_run("other")
        Path("other", name).unlink()
