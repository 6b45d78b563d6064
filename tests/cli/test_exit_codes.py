"""How a command ends: the exit code, and one line on stderr for each error."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest

import seewhy
from support.command import COFFEE, run

# Arguments -> exit code and a part of the message
ERRORS = {
    (): (2, "no image"),
    ("nofile.jpg",): (1, "nofile.jpg: no such file"),
    ("text.txt",): (1, "text.txt: not an image that seewhy can read"),
    ("empty",): (2, "empty: no images in this folder"),
    (COFFEE, "-l", "conv_hed"): (2, "no layer 'conv_hed' - did you mean 'conv_head'"),
    (COFFEE, "-m", "resnt18"): (2, "no model 'resnt18' - did you mean 'resnet18'"),
    (COFFEE, "--methods", "gradcm"): (2, "no method 'gradcm' - did you mean 'gradcam'"),
    (COFFEE, "-t", "expresso"): (2, "no class 'expresso' - did you mean 'espresso'"),
    (COFFEE, "-t", "crane"): (2, "2 classes have this name"),
    (COFFEE, "-t", "5000"): (2, "target 5000: the model has 1000 classes, 0 to 999"),
    (COFFEE, "--label", "expresso"): (2, "did you mean 'espresso'"),
    (COFFEE, "--label", "5000"): (2, "the model has 1000 classes"),
    (COFFEE, "--colors", "vridis"): (2, "did you mean 'viridis'"),
    (COFFEE, "--opacity", "7"): (2, "--opacity 7.0"),
    (COFFEE, "--size", "big"): (2, "--size big"),
    (COFFEE, "--top", "0"): (2, "--top 0"),
    (COFFEE, "--fit", "strech"): (2, "strech"),
    (COFFEE, "--modle", "x"): (2, "Did you mean --model?"),
    (COFFEE, "--style", "classic", "--colors", "turbo"): (2, "--style classic has fixed settings"),
    (COFFEE, "--device", "warp"): (2, "warp"),
    (COFFEE, "--max-pixels", "1000"): (1, "--max-pixels 240000"),
    (COFFEE, "--opacity", "50%"): (2, "--opacity 50%: give a number, such as 0.5."),
    (COFFEE, "--top", "1.5"): (2, "--top 1.5: give an integer."),
    (COFFEE, "--max-pixels", "10M"): (2, "--max-pixels 10M: give an integer, such as 10000000."),
    (COFFEE, "--memory", "0"): (2, "--memory 0: give a number of megabytes above 0"),
    (COFFEE, "--style", "clasic"): (2, "--style clasic: choose fade, blend or classic. Did you mean classic?"),
    (COFFEE, "--json=maybe"): (2, "--json maybe: this option takes no value."),
    (COFFEE, "--out", ""): (2, "--out '': this argument is empty."),
    (COFFEE, "--out="): (2, "--out '': this argument is empty."),
    (COFFEE, "--labels", ""): (2, "--labels '': this argument is empty."),
    ("",): (2, "'': this argument is empty."),
    ("bulk", "", "--out", "run"): (2, "'': this argument is empty."),
    (COFFEE, "--out"): (2, "--out needs a value: Folder for the results"),
    ("export", "run", "--to", "png"): (2, "export needs --out. For example: seewhy export run --to png --out maps"),
    (COFFEE, "-layers", "every"): (2, "-layers: an option with a long name has two dashes: --layers"),
    (COFFEE, "-layer=every"): (2, "-layer=every: an option with a long name has two dashes: --layers"),
    ("features", COFFEE, "--methods", "gradcam"): (2, "features has no option --methods; the main command has it"),
    ("layers", "--num-classes", "x"): (2, "--num-classes x: give an integer."),
    ("serve", "--port", "x"): (2, "--port x: give an integer."),
    ("bulk", COFFEE, "--out", "run", "--batch-size", "0"): (2, "--batch-size 0: give at least 1."),
    (COFFEE, "-t", "-3"): (2, "target -3: the model has 1000 classes, 0 to 999"),
    ("layers", "nosuch"): (2, "no model 'nosuch'"),
    ("layers", "--size", "big"): (2, "--size big: give the side of the input ('224')"),
    ("layers", "--size", "1x1x1"): (2, "it does not accept inputs of size 1x1x1"),
    ("models", "nosuch"): (2, "no model 'nosuch'"),
}


@pytest.mark.parametrize("arguments", ERRORS, ids=lambda arguments: " ".join(arguments) or "no arguments")
def test_user_errors_print_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    Path("text.txt").write_text("hello")
    Path("empty").mkdir()
    code, out, err = run(capsys, *arguments)
    expected_code, message = ERRORS[arguments]
    assert code == expected_code
    assert message in err and len(err.splitlines()) == 1 and "Traceback" not in err and out == ""
    assert not Path("cam").exists()


def test_other_images_are_explained_when_some_fail(capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.txt").write_text("hello")
    Path("empty").mkdir()
    shutil.copy(COFFEE, "coffee.png")
    code, _, err = run(capsys, "elsewhere/nofile.jpg", "coffee.png", "text.txt", "empty", "-q", "-l", "bn2")
    assert code == 1 and "3 of 4 images failed" in err
    assert "elsewhere/nofile.jpg: no such file" in err
    assert "text.txt: not an image" in err and "empty: no images" in err
    assert Path("cam/coffee/overlay.jpg").exists()


def test_interrupt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seewhy.cli.image_job.ImageJob.run", interrupt)
    code, _, err = run(capsys, COFFEE)
    assert code == 130 and "interrupted" in err


def test_weights_without_a_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    code, out, err = run(capsys, COFFEE, "--model", "torchvision/resnet18")
    assert code == 2 and out == ""
    (line,) = err.splitlines()
    assert "resnet18-f37072fd.pth" in line and "cannot be reached" in line and "omit the model" in line


# Processes


def start(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "seewhy", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def test_process_with_an_image_from_stdin() -> None:
    """The exit code is 1, because the second image does not exist."""
    result = start("-", "nofile.jpg", "-l", "bn2", stdin=Path(COFFEE).read_bytes())
    assert result.returncode == 1 and b"nofile.jpg: no such file" in result.stderr
    assert b"espresso" in result.stdout and b"\x1b[" not in result.stdout
    assert Path("cam/stdin/overlay.jpg").exists()


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), ([], 2)])
def test_exit_code_of_a_process(arguments: list[str], code: int) -> None:
    assert start(*arguments).returncode == code


def test_help_imports_no_torch() -> None:
    script = """
import sys
from seewhy.cli.main import main
try:
    main(["--help"])
finally:
    assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "IMAGES" in result.stdout and "demo" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nofile.jpg",), 1, "nofile.jpg: no such file"),
        (("features", "nofile.jpg"), 1, "nofile.jpg: no such file"),
        (("text.txt", "nofile.jpg"), 1, "2 of 2 images failed"),
        (("empty",), 2, "empty: no images in this folder"),
        (("empty", "empty/sub"), 2, "1 more without images"),
        (("bulk", "empty", "--out", "run"), 2, "empty: contains no images"),
        (("bulk", "nofile.jpg", "--out", "run"), 2, "nofile.jpg: no such file or folder"),
        (("bulk", COFFEE, "nofile.csv", "--out", "run"), 2, "nofile.csv: no such file or folder"),
        ((COFFEE, "--out", "text.txt/cam"), 2, "text.txt is not a folder"),
        ((COFFEE, "--methods", "smooth(gradcam, samples=0)"), 2, "samples=0: must be at least 1"),
        (
            ("bulk", COFFEE, "--out", "run", "--methods", "smooth(gradcam, samples=0)"),
            2,
            "samples=0: must be at least 1",
        ),
        ((COFFEE, "-t", "top0"), 2, "ranks start at 1"),
        ((COFFEE, "--methods", "gradcam", "layercam"), 2, "separate values with commas: --methods gradcam,layercam"),
        (
            (COFFEE, "-t", "espresso", "cup"),
            2,
            "cup: no such file. If it is a value of -t, separate values with commas",
        ),
        (("serve", COFFEE), 2, "serve takes no such argument; start it and drop the image into the page"),
        ((COFFEE, "--memory", "9" * 400), 2, "--memory inf: give a number"),
        ((COFFEE, "--top", "9" * 400 + "x"), 2, "9…: give an integer"),
        ((COFFEE, "--out", "a\0b"), 2, "is not a valid file name: it contains a null character"),
        ((COFFEE, "--versus", "point:1"), 2, "write the location in image pixels"),
        (("bulk", COFFEE, "--out", "run", "-t", "top0"), 2, "ranks start at 1"),
        ((COFFEE, "--grid", "14xx"), 2, "--grid 14xx: pass rows and columns, such as '14x14'"),
        (("bulk", COFFEE, "--out", "run", "--grid", "14xx"), 2, "--grid 14xx: pass rows and columns, such as '14x14'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_needs_no_model_is_checked_before_it_is_loaded(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    Path("text.txt").write_text("hello")
    Path("empty/sub").mkdir(parents=True)
    _ = seewhy.explain, seewhy.trust  # modules that are imported now would keep the replacement
    monkeypatch.setattr("seewhy.models.loading.load_model", lambda *_, **__: pytest.fail("loaded before the check"))
    actual, _, err = run(capsys, *arguments)
    assert actual == code and message in err and "Traceback" not in err, err
    assert not Path("run").exists() and not Path("cam").exists()
