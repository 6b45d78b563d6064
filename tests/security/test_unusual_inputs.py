"""Inputs that do not exist, never end, cannot be opened or vanish: bounded time and memory, and one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.bulk.discovery import expand, find_dataset, items_in_list
from seewhy.bulk.tars import expand_braces
from seewhy.cli.image_job import ImageJob
from seewhy.errors import ImageError, UsageError
from seewhy.images.discovery import find_images, walk_images
from seewhy.images.loading import load_image
from seewhy.storage import records
from support.command import run
from support.untrusted_files import make_network, save_images

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("tiny_load")
LONG_NAME, LONG_PATH = "x" * 300 + ".png", "d/" * 2500 + "a.png"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the image photos/0.png, a loop of links, and a pipe into which no program writes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(records, "PATIENCE", 0.01)
    save_images(tmp_path / "photos", 1)
    Path("loop.png").symlink_to("loop.png")
    os.mkfifo("pipe.png")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (LONG_NAME, "file name too long"),
        (LONG_PATH, "file name too long"),
        ("loop.png", "too many levels of symbolic links"),
        ("pipe.png", "no data for 0.01 seconds from this pipe or device"),
        ("/dev/null", "the file is empty"),
        ("photos/0.png/x.png", "not a directory"),
    ],
    ids=["name", "path", "loop", "pipe", "device", "file"],
)
def test_an_input_that_cannot_be_opened(capsys: Capture, name: str, reason: str) -> None:
    """A long name was a traceback, and a pipe without a writer waited forever. The other images are explained."""
    for command in ([], ["features"]):
        code, _, err = run(capsys, *command, name, "photos", "--quiet")
        assert code == 1 and err.startswith(f"{name}: {reason}\n1 of 2 images failed"), err
    for call in (lambda: load_image(name), lambda: seewhy.explain(make_network(), name)):
        with pytest.raises((ImageError, UsageError)) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    code, _, err = run(capsys, "bulk", name, "photos", "--out", "run", "--workers", "0", "--quiet")
    assert code in (1, 2) and (code == 1) == os.path.lexists(name) and len(err.splitlines()) <= 1, err


def test_a_null_character_in_a_name() -> None:
    """Only Python calls can have one."""
    preprocess = seewhy.Preprocess.imagenet(32)
    with pytest.raises(ImageError, match="not a valid file name"):
        load_image("a\0b.png")
    with pytest.raises(ImageError, match="not a valid file name"):
        seewhy.explain(seewhy.LoadedModel(make_network(), preprocess), "a\0b.png")
    with pytest.raises(UsageError, match="no such file or folder"):
        seewhy.explain_all(make_network(), "a\0b", "run", preprocess=preprocess, quiet=True)
    Path("list.txt").write_bytes(b"photos/0.png\na\0b.png\n")
    result = seewhy.explain_all(make_network(), "list.txt", "run", preprocess=preprocess, workers=0, quiet=True)
    assert [row["path"].endswith("a\0b.png") for row in result.failed] == [True]


def test_a_pipe_with_a_slow_writer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PATIENCE", 30)
    writer = subprocess.Popen(["bash", "-c", "sleep 0.2; cat photos/0.png > pipe.png"])
    assert load_image("pipe.png").shape == (30, 40, 3)
    assert writer.wait() == 0


def test_thousands_of_nested_folders(capsys: Capture) -> None:
    """os.walk is recursive before Python 3.12. Below PATH_MAX, folders are searched; the first one above it is an error."""
    here = os.getcwd()
    os.mkdir("d")
    for _ in range(2100):
        os.chdir("d")
        os.mkdir("d")
    os.chdir(here)
    shutil.copy("photos/0.png", "d/" * 1500 + "0.png")
    try:
        errors: list[OSError] = []
        assert len(list(walk_images("d", errors.append))) == 1 and len(errors) == 1
        code, out, err = run(capsys, "d", "photos", "--json", "--layers", "0")
        assert code == 1 and err.count("\n") == 2 and "cannot list this folder: file name too long" in err
        assert sum("error" not in json.loads(line) for line in out.splitlines()) == 2
        dataset = find_dataset(["d"], 10)
        assert dataset.count == 2
    finally:
        subprocess.run(["rm", "-rf", "d", "cam"], check=True)  # pytest removes folders recursively


def test_loops_of_links_to_folders(capsys: Capture) -> None:
    """Two links to a folder above them are 2**40 paths for a search that follows links."""
    for name in ("a", "b"):
        Path("photos", name).symlink_to(Path("photos").absolute())
    assert find_images(["photos"]) == ["photos/0.png"]
    for pattern in ("photos/**/*.png", "**/0.png", f"{os.getcwd()}/**/0.png", "**/photos/**/*.png"):
        assert [os.path.relpath(path) for path in expand(pattern)] == ["photos/0.png"], pattern
    assert expand("**/*.gif") == ["**/*.gif"] and expand("photos/**") == ["photos"]
    assert run(capsys, "photos", "photos/a", "--quiet")[0] == 0


def test_files_and_folders_that_vanish(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that is deleted between listing and opening, and a folder between listing and searching."""
    shutil.copytree("photos", "gone")
    find = ImageJob.folders

    def delete(job: ImageJob, images: list[str]) -> dict[str, Path]:
        folders = find(job, images)
        shutil.rmtree("gone")
        return folders

    with monkeypatch.context() as patch:
        patch.setattr(ImageJob, "folders", delete)
        code, _, err = run(capsys, "gone", "photos", "--quiet")
    assert code == 1 and err.startswith("gone/0.png: no such file\n"), err
    scandir = os.scandir
    for name in ("sub", "other"):
        Path("photos", name).mkdir()

    def vanish(path: str) -> object:
        if path == "photos/sub":
            os.rmdir(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanish)
    code, _, err = run(capsys, "photos", "--quiet")
    assert code == 1 and err.startswith("photos/sub: cannot list this folder: no such file\n"), err
    assert Path("cam/0/overlay.jpg").exists()  # the other images are explained


def test_the_current_directory_vanishes(home: Path) -> None:
    """A process whose directory was deleted has no absolute paths; it ends with one line."""
    code = "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
    code += "from seewhy.cli.main import main; main(sys.argv[1:])"
    source = str(Path(seewhy.__file__).parents[1])
    for arguments in (
        ["0.png"],
        [str(home / "photos")],
        ["bulk", str(home / "photos"), "--out", "run", "--workers", "0"],
    ):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": source},
        )
        assert result.returncode in (1, 2) and "Traceback" not in result.stderr, result.stderr
        assert len(result.stderr.splitlines()) <= 2


def test_lists_and_tables_that_never_end(capsys: Capture) -> None:
    """A list that is a pipe waited forever, and /dev/zero filled the memory."""
    for name in ("a.txt", "a.csv", "a.tsv", "a.parquet", "a.lst"):
        os.mkfifo(name)
        Path(f"zero-{name}").symlink_to("/dev/zero")
        for path in (name, f"zero-{name}"):
            code, _, err = run(capsys, "bulk", path, "--out", "run")
            assert code == 2 and err == f"seewhy: {path}: is a pipe, socket or device, not a regular file.\n"
    with open("sparse.txt", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UsageError, match=r"sparse\.txt: a line has more than 65,536 bytes"):
        list(items_in_list("sparse.txt"))
    Path("bom.txt").write_bytes(b"\xef\xbb\xbfphotos/0.png\tcat\n\n# comment\ncaf\xe9.png")
    assert [(item.id, item.label) for item in items_in_list("bom.txt")] == [
        ("photos/0.png", "cat"),
        ("caf\\xe9.png", None),
    ]


def test_ranges_in_braces_are_limited() -> None:
    """A range of 10**12 numbers filled the memory, also one of ranges."""
    assert len(expand_braces("a-{0..999}.tar")) == 1000
    for text in ("a-{0..999999999999}.tar", "{0..9999}{0..9999}.tar", "{1..1000}" * 100):
        with pytest.raises(UsageError, match="name more than 1,000,000 files"):
            expand_braces(text)
    digits = f"{{1..{'9' * 5000}}}"
    assert expand_braces(digits) == [digits]


def test_a_saved_run_of_a_tensor_may_be_named_like_any_file() -> None:
    """The folder of `save` may have any name that the file system allows."""
    e = seewhy.explain(make_network(), torch.rand(1, 3, 8, 8), layers="0")
    for name in ("漢" * 85, "a" * 255, os.fsdecode(b"\xff" * 255), "-", "~", "[red]", "a\nb"):
        e.save(name)
        assert seewhy.load_explanation(name).layers == ("0",)
    with pytest.raises(UsageError, match="file name too long"):
        e.save("a" * 256)


def test_wildcards_follow_links_to_folders_once() -> None:
    """ "**" skipped links to folders silently; with `glob`, links to folders above them have endless paths."""
    save_images(Path("other"), 1)
    Path("photos/link").symlink_to(Path("other").absolute())
    Path("photos/loop").symlink_to(Path("photos").absolute())
    assert expand("photos/**/*.png") == ["photos/0.png", "photos/link/0.png"]
