"""`seewhy bulk` and `seewhy export` on the command line, in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import seewhy
from seewhy.cli import main as cli

Capture = pytest.CaptureFixture[str]


def run(*arguments: str | Path) -> int:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(map(str, arguments)))
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images, one of them broken."""
    folder = tmp_path_factory.mktemp("command") / "photos"
    folder.mkdir()
    shutil.copy(seewhy.sample("coffee"), folder / "coffee.png")
    (folder / "bad.png").write_bytes(b"no")
    return folder


def test_outcome_and_exit_codes(images: Path, tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "run"
    command = ("bulk", images, "--out", out, "--workers", "0")
    assert run(*command, "--json") == 1
    assert json.loads(capfd.readouterr().out) | {"seconds": 0} == {
        "run": str(out), "images": 2, "images_before": 0, "failed": 1, "parts": 1, "parts_left": 0, "seconds": 0,
    }  # fmt: skip
    assert run(*command) == 1
    text = capfd.readouterr().out
    assert "2 were finished before" in text and "1 image failed" in text
    assert text.endswith(f"Wrote {out}/part-*.parquet. Next: seewhy summary {out}\n")
    assert run(*command, "--layers", "every") == 2
    assert "layers: suggested in the run, every now" in capfd.readouterr().err
    assert run("export", out, "--to", "npz", "--out", tmp_path / "files") == 0
    assert capfd.readouterr().out == f"Wrote 1 maps to {tmp_path / 'files'}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shard", "3"], "give i/n"),
        (["--methods", "gradcan"], "'gradcam'"),
        (["--methods", "all"], '"all" and "fast" are not allowed in bulk jobs'),
        (["--targets", "point:espresso@1,2"], "a position is valid for one image only"),
        (["--batch-size", "0"], "give at least 1"),
        (["--part-size", "0"], "give at least 1"),
        (["--engine", "rya"], "ray"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_options(arguments: list[str], words: str, images: Path, tmp_path: Path, capfd: Capture) -> None:
    assert run("bulk", images, "--out", tmp_path / "run", *arguments) == 2
    assert words in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_missing_inputs(images: Path, tmp_path: Path, capfd: Capture) -> None:
    assert run("bulk", tmp_path / "none", "--out", tmp_path / "run") == 2
    assert "no such file or folder" in capfd.readouterr().err
    assert run("bulk", images) == 2
    assert f"no output folder. Give one: seewhy bulk {images} --out run" in capfd.readouterr().err
    assert run("bulk", "--out", tmp_path / "run") == 2
    assert "no input. Give a folder" in capfd.readouterr().err


def test_file_names_cannot_control_the_terminal(tmp_path: Path, capfd: Capture) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    shutil.copy(seewhy.sample("coffee"), folder / "good.png")
    (folder / "\x1b]0;owned\x07\x1b[31mbad.png").write_bytes(b"no")
    assert run("bulk", folder, "--out", tmp_path / "run", "--workers", "0") == 1
    errors = capfd.readouterr().err
    assert "\x1b" not in errors and "\\x1b[31mbad.png" in errors


def test_a_job_that_cannot_start_leaves_no_folder(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    image = seewhy.sample("coffee")
    assert run("bulk", image, "--out", "new/run", "--layers", "nolayer") == 2
    assert "no layer 'nolayer'" in capsys.readouterr().err and not Path("new").exists()
    monkeypatch.setattr("seewhy.bulk.settings.find_spec", lambda name: None)
    assert run("bulk", image, "--out", "new/run", "--engine", "ray") == 2
    message = "--engine ray: the package ray is not installed: pip install 'seewhy[bulk,ray]'"
    assert message in capsys.readouterr().err and not Path("new").exists()
