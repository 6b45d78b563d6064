"""File names that are not UTF-8, or contain control characters, end no run and cannot control the terminal."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import seewhy
from seewhy.cli import main as cli
from seewhy.cli.exits import print_error, print_status
from seewhy.engine.options import command_for
from support.command import run
from support.untrusted_files import save_images

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("one_load")

NAMES = (b"caf\xe9.png", b"\xff\xfe.png", b"a\nb.png", b"\x1b[31mred.png", "café 漢字 '$x'.png".encode())


@pytest.fixture
def unusual_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good images under every unusual name, one plain name, and one broken image."""
    folder = tmp_path / "photos"
    save_images(folder, 1)
    for name in NAMES:
        shutil.copy(folder / "0.png", os.path.join(os.fsencode(folder), name))
    Path(os.fsdecode(os.fsencode(folder) + b"/broken\xe9.png")).write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.usefixtures("unusual_names")
@pytest.mark.parametrize("arguments", [[], ["--json"], ["--quiet"], ["features", "--channels", "1"]])
def test_a_name_that_is_not_utf8_ends_no_run(capsys: Capture, arguments: list[str]) -> None:
    """Every good image gets its outputs and the broken one its reason; all printed and written text is valid."""
    code, out, err = run(capsys, *arguments[:1], "photos", "--layers", "bn2", *arguments[1:])
    assert code == 1 and "1 of 7 images failed" in err, err
    assert "broken\\xe9.png" in err and "not an image" in err
    assert all(line.isprintable() for text in (out, err) for line in text.splitlines())
    records = [path.read_text("utf-8") for path in sorted(Path("cam").glob("*/explanation.json"))]
    sources = {json.loads(text)["image"] for text in records}
    assert sources == {
        "photos/0.png", "photos/caf\\xe9.png", "photos/\\xff\\xfe.png", "photos/a\nb.png", "photos/\x1b[31mred.png",
        "photos/café 漢字 '$x'.png",
    }  # fmt: skip
    if "--json" in arguments:
        lines = [json.loads(line.encode()) for line in out.splitlines()]
        assert {line["image"] for line in lines} == {*sources, "photos/broken\\xe9.png"}
        assert sum("error" in line for line in lines) == 1
    if "features" not in arguments:
        page = Path("cam/index.html").read_text("ascii")
        assert r"broken\\xe9.png" in page and r"caf\\xe9.png" in page


def test_the_recorded_command_is_valid_for_any_name() -> None:
    """A shell reads the recorded command as the bytes of the file name."""
    for name in (*NAMES, b"it's \\ \xe9.png"):
        command = command_for(os.fsdecode(b"photos/" + name), "mine:make", ["--allow-code"])
        assert command.encode() and "\n" not in command
        words = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
        assert words.split(b"\0") == [b"seewhy", b"photos/" + name, b"--model", b"mine:make", b"--allow-code", b""]


@pytest.mark.usefixtures("unusual_names")
def test_output_folders_and_terminals_that_are_not_utf8(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output folder and the terminal may have another encoding than UTF-8."""
    out = os.fsdecode(b"r\xe9")
    code, printed, err = run(capsys, "photos/0.png", "--out", out, "--layers", "bn2", "--json")
    assert code == 0 and json.loads(printed)["folder"] == out + "/0", err
    code, printed, _ = run(capsys, "photos/0.png", "--out", out, "--layers", "bn2")
    assert code == 0 and "r\\udce9/0" in printed
    code, _, err = run(capsys, os.fsdecode(b"photos/missing\xe9.png"))
    assert code == 1 and "missing\\xe9.png: no such file" in err
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", ascii_only)
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit, match="0"):
            cli.main(["photos/" + os.fsdecode(NAMES[-1]), "--layers", "bn2", *options])
    ascii_only.flush()
    shown = ascii_only.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert json.loads(shown.splitlines()[-1])["image"] == "photos/" + os.fsdecode(NAMES[-1])


def test_a_model_whose_name_is_not_utf8(
    capsys: Capture, embedded: seewhy.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the weights is printed and recorded with escapes."""
    uri = os.fsdecode(b"w\xe9.pth")
    model = seewhy.LoadedModel(embedded.module, embedded.preprocess, embedded.labels, uri)
    monkeypatch.setattr("seewhy.models.loading.load_model", lambda *_, **__: model)
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path)
    assert run(capsys, "0.png", "1.png", "--layers", "bn2", "--quiet")[0] == 0
    assert json.loads(Path("cam/0/explanation.json").read_text("utf-8"))["provenance"]["model"] == uri
    assert seewhy.load_explanation("cam/0").provenance["model"] == uri
    for command in (["layers", uri], ["layers", uri, "--json"]):
        code, out, err = run(capsys, *command)
        assert code == 0 and "w\\udce9.pth" in out, err


def test_messages_cannot_control_the_terminal(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control characters of names are escaped in errors and status messages."""
    assert print_error("no file '\x1b[2J\x9b31mx\r'") == 2
    print_status("loading \x07\x1b]0;title\x07")
    err = capsys.readouterr().err
    assert err == "seewhy: no file '\\x1b[2J\\x9b31mx\\r'\nloading \\x07\\x1b]0;title\\x07\n"
    monkeypatch.chdir(tmp_path)
    for arguments in (["report", "\x1b[31mrun"], ["0.png", "--\x1b[31mcolor"], ["0.png", "--methods", "\x1b[31mcam"]):
        code, out, err = run(capsys, *arguments)
        assert code == 2 and out == "" and "\\x1b[31m" in err and "\x1b" not in err, err
