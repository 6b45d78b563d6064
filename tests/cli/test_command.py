"""The main command: what it prints, and which files it writes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.storage.paths import output_paths, safe_name
from seewhy.terminal import can_preview, make_console, print_preview
from support.command import COFFEE, run


def read_record(folder: str) -> dict[str, object]:
    record: dict[str, object] = json.loads(Path(folder, "explanation.json").read_text())
    return record


def test_terminal_output_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, COFFEE, "--label", "cup")
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert lines[1].startswith("espresso, ") and lines[2].startswith("The evidence lies in the center, on ")
    assert lines[3].startswith("The evidence for espresso exceeds that for cup (1.5%) most in the center, on ")
    assert lines[5].startswith("Covering what the map marks lowers espresso") and "(r = 0." in lines[5]
    assert lines[6].startswith("The model received 51% of the photo")
    assert lines[7] == "Suggested layer: bn2" and lines[8] == f"Page: {Path('cam/coffee/report.html')}"
    assert "967   espresso" in out
    assert re.search(r"\d+ of \d+ checked maps are confirmed; chance alone would confirm about 2\.", out)
    assert "predicted espresso; the label cup has rank" in out
    assert "blocks.6.0.conv_pwl" in out and "112x112" in out and "suggested" in out and "cam/coffee" in out
    folder = Path("cam/coffee")
    overlays = sorted(path.name for path in (folder / "overlays").iterdir())
    assert len(overlays) == 49 and overlays[0] == "01_conv_stem.jpg" and overlays[-1] == "49_conv_head.jpg"
    assert {path.name for path in folder.iterdir()} == {
        "overlays", "sheet.jpg", "overlay.jpg", "maps.npz", "explanation.json", "photo.jpg", "report.html",
    }  # fmt: skip
    with np.load(folder / "maps.npz") as maps:
        assert len(maps.files) == 3 * 50 and maps["gradcam|967|conv_head"].shape == (7, 7)
        assert all(maps[name].dtype == np.float32 for name in maps.files)
        assert min(maps[name].min() for name in maps.files) < 0  # signed
    with Image.open(folder / "overlays" / overlays[0]) as overlay:
        assert overlay.size == (600, 400)


def test_json_output_has_one_line_per_image(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.jpg").write_text("no image")
    code, out, _ = run(capsys, COFFEE, "bad.jpg", "--json", "--layers", "suggested")
    good, bad = map(json.loads, out.splitlines())
    assert code == 1
    assert good["top"][0]["name"] == "espresso" and good["folder"].endswith("coffee") and good["suggested"] == "bn2"
    assert all(Path(path).exists() for path in good["files"])
    assert bad["image"] == "bad.jpg" and "not an image" in bad["error"]


def test_several_methods_and_targets_get_folders_and_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--methods", "gradcam,layercam", "--targets", "top2", "--targets", "espresso", "-l", "bn2,-1"]
    code, out, _ = run(capsys, COFFEE, *flags, "--quiet")
    assert (code, out) == (0, "")
    names = {path.relative_to("cam/coffee").as_posix() for path in Path("cam/coffee").rglob("*.jpg")}
    assert "overlays/gradcam/967_espresso/01_conv_head.jpg" in names
    assert "overlays/layercam/967_espresso/02_bn2.jpg" in names
    assert len([name for name in names if name.startswith("sheets/")]) == 4
    assert "sheet.jpg" in names


def test_a_second_run_replaces_only_files_of_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, COFFEE, "-q", "--layers", "conv_stem,conv_head")
    user_file = Path("cam/coffee/overlays/notes.txt")
    assert len(list(user_file.parent.iterdir())) == 2
    user_file.write_text("mine")
    run(capsys, COFFEE, "-q", "--layers", "conv_head")
    assert sorted(path.name for path in user_file.parent.iterdir()) == ["01_conv_head.jpg", "notes.txt"]
    assert user_file.read_text() == "mine"


def test_classic_style(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, COFFEE, "--style", "classic", "-q")
    names = {path.name for path in Path("cam/coffee/overlays").iterdir()}
    assert names == {f"grad_cam_conv{number}.jpg" for number in range(1, 50)}
    with Image.open("cam/coffee/overlays/grad_cam_conv1.jpg") as overlay:
        assert overlay.size == (224, 224)
    with Image.open("cam/coffee/sheet.jpg") as sheet:
        blue = np.asarray(sheet.convert("RGB")).astype(int) @ [-1, 0, 1]
        assert (blue > 30).mean() > 0.1  # jet is blue where there is no evidence; the default colors are not
    page = Path("cam/coffee/report.html").read_text()
    assert '"style":{"colors":"jet","opacity":0.4,"fade":false,"scale":"minmax"}' in page
    assert '"photo_size":[224,224]' in page
    assert read_record("cam/coffee")["view"]["box"] == [0, 0, 600, 400]  # type: ignore[index]


def test_fit_squash_uses_the_entire_photo(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, COFFEE, "--fit", "squash", "-q", "-l", "bn2", "--size", "original")
    assert read_record("cam/coffee")["view"]["box"] == [0, 0, 600, 400]  # type: ignore[index]


def test_output_folders_mirror_input_folders(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/sub").mkdir(parents=True)
    for name in ("in/a.png", "in/sub/a.png"):
        shutil.copy(COFFEE, name)
    Image.new("RGB", (32, 32)).save("in/a.jpg")
    code, _, _ = run(capsys, "in", "-q", "-l", "bn2")
    assert code == 0
    assert sorted(path.parent.as_posix() for path in Path("cam").rglob("explanation.json")) == [
        "cam/a.jpg", "cam/a.png", "cam/sub/a",
    ]  # fmt: skip


def test_preview_requires_a_true_color_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    assert not can_preview(console)
    print_preview(console, Image.new("RGB", (20, 20), (255, 0, 0)), columns=10)
    assert capsys.readouterr().out.count("▀") == 50


def test_output_names_are_safe_and_unique() -> None:
    assert safe_name("a/b\\c:d*?") == "a_b_c_d_" and safe_name("..") == "_" and safe_name("NUL.jpg") == "_NUL.jpg"
    assert len(safe_name("x" * 300)) == 80
    out = output_paths(Path("cam"), ["p/x.jpg", "p/x.png", "p/x/y.jpg", "-"])
    assert [path.as_posix() for path in out] == ["cam/x.jpg", "cam/x.png", "cam/x/y", "cam/stdin"]
    assert [path.name for path in output_paths(Path("cam"), ["a/b.jpg"])] == ["b"]


def test_report_writes_the_page_again(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, COFFEE, "-l", "suggested", "-o", "out")
    page = Path("out/coffee/report.html")
    assert code == 0 and f"Explore it in a browser: {page}" in out.replace("\n", "")
    original = page.read_text("ascii")
    assert "report.html" in read_record("out/coffee")["files"]  # type: ignore[operator]
    page.unlink()
    code, out, _ = run(capsys, "report", "out/coffee")
    assert code == 0 and out.strip() == str(page)
    rewritten = page.read_text("ascii")
    assert abs(len(rewritten) - len(original)) < 0.02 * len(original)
    for text in (original, rewritten):
        assert '"top":[{"class":967,"name":"espresso"' in text and "--layers suggested" in text
    code, out, err = run(capsys, "report", "out")
    assert code == 2 and "no saved explanation here" in err
    assert run(capsys, "report")[0] == 2
