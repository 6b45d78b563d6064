"""Hundreds of hostile file names: each image gets a folder, its record, and one printable line."""

from __future__ import annotations

import io
import itertools
import json
import os
from pathlib import Path

import pytest
from PIL import Image

import seewhy
from seewhy import storage
from seewhy.bulk.export import Names
from seewhy.images.discovery import walk_images
from seewhy.storage.paths import output_paths, path_text, safe_name
from seewhy.terminal import printable
from support.command import run
from support.hostile_names import MAX_BYTES, hostile_names

Capture = pytest.CaptureFixture[str]
NAMES = hostile_names()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of every hostile name in photos/."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "photos").mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (90, 40, 200)).save(buffer, "PNG")
    for name in NAMES:
        with open(os.path.join(os.fsencode(folder), b"photos", name), "xb") as file:
            file.write(buffer.getvalue())
    return folder


def test_there_are_hundreds_of_names() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 300
    assert all(len(name) <= MAX_BYTES and b"/" not in name and b"\0" not in name for name in NAMES)


@pytest.fixture
def few_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write one overlay for each image, always the same: drawing takes most of the time, and depends on no name."""
    overlay = storage.encode_jpeg(Image.new("RGB", (8, 8)))
    monkeypatch.setattr("seewhy.cli.image_job.draw_all", lambda *_, **__: {"overlay.jpg": overlay})


@pytest.mark.usefixtures("tiny_load", "few_drawings")
def test_hostile_names_in_a_folder(capsys: Capture, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image is explained into a separate folder, and all printed text is printable."""
    monkeypatch.chdir(home)
    code, out, err = run(capsys, "photos", "--layers", "0")
    assert code == 0 and err == "" and all(printable(line) == line for line in out.split("\n"))
    records = [json.loads(path.read_text("utf-8")) for path in Path("cam").glob("*/explanation.json")]
    assert {record["image"] for record in records} == {path_text(os.fsdecode(b"photos/" + name)) for name in NAMES}
    page = Path("cam/index.html").read_text("ascii")
    assert page.count("<script") == 2 and all(line.isprintable() for line in page.splitlines())
    outputs: list[str] = []
    found = list(walk_images(".", pytest.fail, outputs.append))
    assert sorted(found) == sorted(f"./photos/{os.fsdecode(name)}" for name in NAMES)
    assert len(outputs) == 2 * len(NAMES)  # overlay.jpg and photo.jpg


@pytest.mark.usefixtures("tiny_load", "few_drawings")
def test_hostile_names_on_the_command_line(capsys: Capture, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name after "--" is an image and not an option, a URL, a pattern or a target."""
    monkeypatch.chdir(home / "photos")
    code, out, err = run(capsys, "--layers", "0", "--json", "--out", "../named", "--", *map(os.fsdecode, NAMES))
    assert code == 0 and err == ""
    assert [json.loads(line)["image"] for line in out.splitlines()] == [path_text(os.fsdecode(name)) for name in NAMES]


@pytest.mark.usefixtures("tiny_load")
def test_hostile_names_in_bulk_jobs(capsys: Capture, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of them, a list of them, each of them as an argument; exports and summaries of these."""
    monkeypatch.chdir(home)
    execution = ["--workers", "0", "--batch-size", "64", "--layers", "0"]
    assert run(capsys, "bulk", "photos", "--out", "run", *execution, "--quiet")[::2] == (0, "")
    ids = set(seewhy.read_run("run").table["id"].to_pylist())
    assert ids == {path_text(os.fsdecode(name)) for name in NAMES}
    for kind in ("npz", "png", "coco", "fiftyone"):
        assert run(capsys, "export", "run", "--to", kind, "--out", kind)[0] == 0
    assert len(list(Path("png/maps").iterdir())) == len(NAMES)
    code, out, _ = run(capsys, "summary", "run")
    assert code == 0 and all(printable(line) == line for line in out.split("\n"))
    monkeypatch.chdir(home / "photos")
    paths = [f"./{os.fsdecode(name)}" for name in NAMES]
    code, out, err = run(capsys, "bulk", *paths, "--out", "../named_run", *execution, "--json")
    assert code == 0 and json.loads(out)["images"] == len(NAMES), err


def test_names_of_outputs_fit_into_255_bytes() -> None:
    """80 letters of four bytes, and the suffix of a temporary file, are more than a file system allows."""
    for text in ("😀" * 300, "漢" * 300, "a" * 300, "é\u0301" * 300, "𠜎" * 79 + ".a"):
        name = safe_name(text)
        assert len(name) <= 80 and len(f"01_{name}_{name}.jpg".encode()) <= 255
    assert safe_name("a." * 40 + "b")[-1] != "."
    (path,) = output_paths(Path("cam"), ["index.html.jpg"])
    assert path.name == "_index.html"


def test_many_images_with_one_name_take_linear_time() -> None:
    """Each of the equal names was compared with all others."""
    names = ["".join(letters) for letters in itertools.product("?!", repeat=14)]
    paths = output_paths(Path("cam"), [f"{name}.png" for name in names])
    assert len(set(paths)) == 2**14 and {path.name for path in paths} >= {"_.png", "_.png_2", f"_.png_{2**14}"}


def test_exported_images_with_one_name_are_numbered() -> None:
    """Each repeated name got one more "_" in front, so the 200th was too long for a file system."""
    names = Names()
    paths = [names.png("x" * 80 + str(number)) for number in range(2000)] + [names.png("A"), names.png("a")]
    assert len({path.as_posix().casefold() for path in paths}) == 2002
    assert max(len(path.name) for path in paths) <= 90
