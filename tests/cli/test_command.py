"""The command as a user runs it: what it prints and writes, every wrong use in one line, exit codes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.cli import main as cli
from seewhy.paths import output_paths, safe_name
from seewhy.terminal import can_preview, make_console, print_preview
from support.command import COFFEE, run


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_main_job(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, COFFEE, "--label", "cup")
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert "967" in lines[3] and "espresso" in lines[3]
    assert "predicted espresso, you said cup (rank" in out
    assert "blocks.6.0.conv_pwl" in out and "112x112" in out and "suggested" in out and "cam/coffee" in out
    folder = Path("cam/coffee")
    overlays = sorted(path.name for path in (folder / "overlays").iterdir())
    assert len(overlays) == 49 and overlays[0] == "01_conv_stem.jpg" and overlays[-1] == "49_conv_head.jpg"
    assert {path.name for path in folder.iterdir()} == {
        "overlays", "sheet.jpg", "overlay.jpg", "maps.npz", "explanation.json", "photo.jpg", "report.html",
    }  # fmt: skip
    with np.load(folder / "maps.npz") as maps:
        assert len(maps.files) == 50 and maps["gradcam|967|conv_head"].shape == (7, 7)
        assert all(maps[name].dtype == np.float32 for name in maps.files)
        assert min(maps[name].min() for name in maps.files) < 0  # signed
    with Image.open(folder / "overlays" / overlays[0]) as picture:
        assert picture.size == (600, 400)


def test_json_is_one_line_for_each_picture(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.jpg").write_text("no picture")
    code, out, _ = run(capsys, COFFEE, "bad.jpg", "--json", "--layers", "suggested")
    good, bad = map(json.loads, out.splitlines())
    assert code == 1
    assert good["top"][0]["name"] == "espresso" and good["folder"].endswith("coffee") and good["suggested"] == "bn2"
    assert all(Path(path).exists() for path in good["files"])
    assert bad["picture"] == "bad.jpg" and "not an image" in bad["error"]


def test_several_methods_and_targets_make_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys,
        COFFEE,
        "--methods",
        "gradcam,layercam",
        "--targets",
        "top2",
        "--targets",
        "espresso",
        "-l",
        "bn2,-1",
        "--quiet",
    )
    assert (code, out) == (0, "")
    found = sorted(path.relative_to("cam/coffee").as_posix() for path in Path("cam/coffee").rglob("*.jpg"))
    assert (
        "overlays/gradcam/967_espresso/01_conv_head.jpg" in found
        and "overlays/layercam/967_espresso/02_bn2.jpg" in found
    )
    assert len([name for name in found if name.startswith("sheets/")]) == 4
    assert "sheet.jpg" in found


def test_running_again_replaces_its_own_files_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, COFFEE, "-q")
    mine = Path("cam/coffee/overlays/notes.txt")
    mine.write_text("mine")
    run(capsys, COFFEE, "-q", "--layers", "conv_head")
    assert sorted(path.name for path in mine.parent.iterdir()) == ["01_conv_head.jpg", "notes.txt"]
    assert mine.read_text() == "mine"


def test_classic_style(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, COFFEE, "--style", "classic", "-q")
    names = {path.name for path in Path("cam/coffee/overlays").iterdir()}
    assert names == {f"grad_cam_conv{number}.jpg" for number in range(1, 50)}
    with Image.open("cam/coffee/overlays/grad_cam_conv1.jpg") as picture:
        assert picture.size == (224, 224)
    assert json.loads(Path("cam/coffee/explanation.json").read_text())["view"]["box"] == [0, 0, 600, 400]


def test_fit_squash_shows_the_whole_photo(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, COFFEE, "--fit", "squash", "-q", "-l", "bn2", "--size", "original")
    assert json.loads(Path("cam/coffee/explanation.json").read_text())["view"]["box"] == [0, 0, 600, 400]


def test_folders_keep_their_shape(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/sub").mkdir(parents=True)
    for name in ("in/a.png", "in/sub/a.png"):
        shutil.copy(COFFEE, name)
    Image.new("RGB", (32, 32)).save("in/a.jpg")
    code, _, _ = run(capsys, "in", "-q", "-l", "bn2")
    assert code == 0
    assert sorted(path.parent.as_posix() for path in Path("cam").rglob("explanation.json")) == [
        "cam/a.jpg", "cam/a.png", "cam/sub/a",
    ]  # fmt: skip


def test_the_good_pictures_are_done_and_the_bad_ones_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.txt").write_text("hello")
    Path("empty").mkdir()
    shutil.copy(COFFEE, "coffee.png")
    code, _, err = run(capsys, "elsewhere/nofile.jpg", "coffee.png", "text.txt", "empty", "-q", "-l", "bn2")
    assert code == 1 and "3 of 4 failed" in err
    assert (
        "elsewhere/nofile.jpg: no such file" in err and "text.txt: not an image" in err and "empty: no images" in err
    )
    assert Path("cam/coffee/overlay.jpg").exists()


WRONG = {
    ("",): (2, "no picture"),
    ("nofile.jpg",): (1, "nofile.jpg: no such file"),
    ("text.txt",): (1, "text.txt: not an image that seewhy can read"),
    ("empty",): (1, "empty: no images in this folder"),
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
    (COFFEE, "--style", "classic", "--colors", "turbo"): (2, "--style classic is jet"),
    (COFFEE, "--device", "warp"): (2, "warp"),
    (COFFEE, "--max-pixels", "1000"): (1, "--max-pixels 240000"),
    ("layers", "nosuch"): (2, "no model 'nosuch'"),
    ("layers", "--size", "big"): (2, "--size big: give the side of the input ('224')"),
    ("layers", "--size", "1x1x1"): (2, "it does not take inputs of size 1x1x1"),
    ("models", "nosuch"): (2, "no model 'nosuch'"),
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_every_wrong_use_gets_one_helpful_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    Path("text.txt").write_text("hello")
    Path("empty").mkdir()
    code, out, err = run(capsys, *filter(None, arguments))
    expected, words = WRONG[arguments]
    assert code == expected
    assert words in err and len(err.splitlines()) == 1 and "Traceback" not in err and out == ""
    assert not Path("cam").exists()


def test_listings(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "layers")
    assert code == 0 and "conv_stem" in out and "bn2" in out and "suggested" in out and "49 layers" in out
    assert "bn1" not in out and "bn1" in run(capsys, "layers", "--all")[1]
    assert max(map(len, out.splitlines()[:-1])) <= 80 and "the last grid that the scores depend on" in out
    found = json.loads(run(capsys, "layers", "--json", "--size", "128x160")[1])
    assert found["suggested"] == "bn2" and found["input"] == [3, 128, 160] and found["layers"][-1]["grid"] == [4, 5]
    assert "gradcam++" in run(capsys, "methods")[1]
    names = run(capsys, "models", "*resnet18")[1].split()
    assert names == ["torchvision/resnet18"]
    assert any(name.startswith("timm/resnet18.") for name in run(capsys, "models", "resnet18")[1].split())


def test_options_may_hold_commas_in_brackets() -> None:
    assert cli.split(["a, b(c,d)", "e"]) == ["a", "b(c,d)", "e"] and cli.split(None) == []


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seewhy.cli.explain_images.run", stop)
    code, _, err = run(capsys, COFFEE)
    assert code == 130 and "interrupted" in err


def process(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "seewhy", *arguments], capture_output=True, check=False, **options)


def test_as_a_process_with_a_picture_from_stdin() -> None:
    result = process("-", "-l", "bn2", input=Path(COFFEE).read_bytes())
    assert result.returncode == 0 and b"espresso" in result.stdout and b"\x1b[" not in result.stdout
    assert Path("cam/stdin/overlay.jpg").exists()


def test_help_needs_no_torch() -> None:
    code = "import sys, seewhy.cli as c\ntry: c.main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "PICTURES" in result.stdout and "demo" in result.stdout


def test_offline_is_one_line(tmp_path: Path) -> None:
    """The name of the host is made to lead nowhere, so this holds with a network as well."""
    away = {
        **os.environ,
        "TORCH_HOME": str(tmp_path),
        "https_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    result = process(COFFEE, "--model", "torchvision/resnet18", env=away)
    assert result.returncode == 2
    (line,) = result.stderr.decode().splitlines()
    assert "resnet18-f37072fd.pth" in line and "cannot be reached" in line and "omit the model" in line


def test_the_preview_is_for_terminals_with_true_colours(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    assert not can_preview(console)
    print_preview(console, Image.new("RGB", (20, 20), (255, 0, 0)), columns=10)
    assert capsys.readouterr().out.count("▀") == 50


def test_names_are_safe_and_folders_do_not_mix(tmp_path: Path) -> None:
    assert safe_name("a/b\\c:d*?") == "a_b_c_d_" and safe_name("..") == "_" and safe_name("NUL.jpg") == "_NUL.jpg"
    assert len(safe_name("x" * 300)) == 80
    out = output_paths(Path("cam"), ["p/x.jpg", "p/x.png", "p/x/y.jpg", "-"])
    assert [path.as_posix() for path in out] == ["cam/x.jpg", "cam/x.png", "cam/x/y", "cam/stdin"]
    assert [path.name for path in output_paths(Path("cam"), ["a/b.jpg"])] == ["b"]


def test_the_page_is_written_and_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, COFFEE, "-l", "suggested", "-o", "out")
    page = Path("out/coffee/report.html")
    assert code == 0 and f"Explore it in a browser: {page}" in out.replace("\n", "")
    first = page.read_text("ascii")
    assert "report.html" in json.loads(Path("out/coffee/explanation.json").read_text())["files"]
    page.unlink()
    code, out, _ = run(capsys, "report", "out/coffee")
    assert code == 0 and out.strip() == str(page)
    again = page.read_text("ascii")
    assert abs(len(again) - len(first)) < 0.02 * len(first)
    for text in (first, again):
        assert '"top":[{"class":967,"name":"espresso"' in text and "--layers suggested" in text
    code, out, err = run(capsys, "report", "out")
    assert code == 2 and "no saved explanation here" in err
    assert run(capsys, "report")[0] == 2


def test_the_command_in_the_record_makes_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    run(
        capsys, COFFEE, "-t", "967,top2", "-l", "conv_head,conv_stem", "--methods", "smooth(layercam,samples=2)",
        "--fit", "squash", "--colors", "viridis", "--seed", "4", "-q", "-o", "one",
    )  # fmt: skip
    command = json.loads(Path("one/coffee/explanation.json").read_text())["provenance"]["command"]
    program, *arguments = shlex.split(command)
    assert program == "seewhy"
    run(capsys, *arguments, "-q", "-o", "two")
    one, two = seewhy.load_explanation("one/coffee"), seewhy.load_explanation("two/coffee")
    assert list(one.maps) == list(two.maps) and len(one.maps) == 6
    assert all(torch.equal(one.maps[key], two.maps[key]) for key in one.maps)
    assert Path("one/coffee/report.html").read_bytes() == Path("two/coffee/report.html").read_bytes()
    assert one.top(2)[0][1] == "espresso"
