"""No output overwrites an input, and an output folder that cannot be created is reported before the work starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

import seewhy
from seewhy.cli.image_job import ImageJob
from seewhy.errors import UsageError
from support.command import run
from support.untrusted_files import file_contents, make_network, save_images

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("one_load")

OUTPUTS = (
    "photo/photo.jpg", "sheet/sheet.jpg", "overlay/overlay.jpg", "maps/maps.npz", "explanation/explanation.json",
    "report/report.html", "features/features.jpg",
)  # fmt: skip


@pytest.fixture
def no_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if an image is explained."""
    monkeypatch.setattr(ImageJob, "explain", lambda *_: pytest.fail("computed before the check"))


@pytest.mark.usefixtures("no_computation")
@pytest.mark.parametrize("access", ["relative", "absolute", "symlink", "folder link", "hard link"])
def test_no_output_overwrites_an_input_image(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, access: str
) -> None:
    """An input that has the path of an output is refused, whichever path leads to it, and nothing is written."""
    for number, name in enumerate(OUTPUTS):
        path = tmp_path / str(number) / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(path, "JPEG")
        monkeypatch.chdir(tmp_path / str(number))
        source = {"absolute": str(path), "folder link": f"link/{path.name}"}.get(access, name)
        if access == "folder link":
            Path("link").symlink_to(path.parent, target_is_directory=True)
        if access in ("symlink", "hard link"):
            source = f"other/{Path(name).parts[0]}.jpg"
            Path("other").mkdir()
            (Path(source).symlink_to if access == "symlink" else Path(source).hardlink_to)(path)
        before = file_contents(tmp_path)
        command = ["features"] if name.startswith("features") else []
        code, out, err = run(capsys, *command, source, "--out", ".")
        assert code == 2 and out == "" and len(err.splitlines()) == 1, (name, err)
        assert "would overwrite the input" in err and "Choose another output folder." in err
        assert file_contents(tmp_path) == before


@pytest.mark.usefixtures("no_computation")
def test_no_output_overwrites_any_other_input(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels, compared images, stdin, other images of the run, and an image that is the output folder are refused as well."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path, 1)
    for folder in ("0", "stdin"):
        save_images(tmp_path / folder, 1)
    Path("0/0.png").rename("0/sheet.jpg")
    Path("stdin/0.png").rename("stdin/photo.jpg")
    Path("0/report.html").write_text("\n".join(f"class {number}" for number in range(1000)))
    before = file_contents(tmp_path)
    for arguments in (
        ["0.png", "--labels", "0/report.html", "--out", "."],
        ["0.png", "--targets", "like:0/sheet.jpg", "--out", "."],
        ["0.png", "--targets", "Like: '0/sheet.jpg'", "--out", "."],
        ["0.png", "0/sheet.jpg", "--out", "."],
        ["0.png", "--out", "0.png"],
        ["features", "0.png", "--out", "0.png"],
    ):
        code, _, err = run(capsys, *arguments)
        assert code == 2 and "would overwrite the input" in err, (arguments, err)
    with open("stdin/photo.jpg", "rb") as file:
        original = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            code, _, err = run(capsys, "-", "--out", ".")
        finally:
            os.dup2(original, 0)
            os.close(original)
    assert code == 2 and "stdin/photo.jpg would overwrite the input stdin" in err
    assert file_contents(tmp_path) == before


@pytest.mark.usefixtures("no_computation")
def test_weights_and_labels_of_a_model_are_not_overwritten(
    capsys: Capture, embedded: seewhy.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that a model URI names are inputs: the weights, and the labels after "?"."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path)
    Path("index.html").write_bytes(b"weights")
    for uri in ("index.html?arch=timm/resnet18", "weights.pth?arch=timm/resnet18&labels=index.html"):
        loaded = seewhy.LoadedModel(embedded.module, embedded.preprocess, embedded.labels, uri)
        monkeypatch.setattr("seewhy.models.loading.load_model", lambda model, loaded=loaded, **_: loaded)
        code, _, err = run(capsys, "0.png", "1.png", "--model", uri, "--out", ".")
        assert code == 2 and "the output index.html would overwrite the input index.html" in err, err


@pytest.mark.usefixtures("no_computation")
@pytest.mark.parametrize("out", ["file", "file/sub/folder", "with_file"])
def test_an_output_folder_that_is_a_file(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    """An output folder, or the folder of an image, that is a file ends the command with one line before the work starts."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path, 1)
    Path("with_file").mkdir()
    for file in ("file", "with_file/0"):
        Path(file).write_text("keep this")
    for command in ([], ["features"]):
        code, printed, err = run(capsys, *command, "0.png", "--out", out)
        assert code == 2 and printed == "" and len(err.splitlines()) == 1, err
        assert (
            f"{'with_file/0' if out == 'with_file' else 'file'} is not a folder" in err
            and "Choose another folder." in err
        )
    assert Path("file").read_text() == Path("with_file/0").read_text() == "keep this"


def test_an_error_of_the_disk_is_one_line(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be created, and an output path that is a folder, end the run with one line."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path, 1)
    Path("cam/0/overlay.jpg").mkdir(parents=True)
    for out, reason in (
        ("cam", "cam/0/overlay.jpg exists, and"),
        ("/proc/nothing", "/proc/nothing/0/maps.npz: cannot be"),
    ):
        code, _, err = run(capsys, "0.png", "--layers", "bn2", "--quiet", "--out", out)
        assert code == 2 and err.startswith(f"seewhy: {reason}") and len(err.splitlines()) == 1, err


def test_python_calls_do_not_overwrite_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Explanation.save` and `report` refuse the path of the explained image."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48)).save("photo.jpg")
    e = seewhy.explain(seewhy.LoadedModel(make_network(), seewhy.Preprocess.imagenet(32)), "photo.jpg", layers="0")
    before = file_contents(tmp_path)
    with pytest.raises(UsageError, match="would overwrite the input"):
        e.save(".")
    with pytest.raises(UsageError, match="would overwrite the input"):
        e.report("photo.jpg")
    assert file_contents(tmp_path) == before
    e.save("run")
    e.save("run")  # its own files may be replaced
    assert seewhy.load_explanation("run").report("run/report.html")


def test_a_second_run_over_a_folder_skips_its_own_outputs(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`seewhy .` writes into ./cam; started again, it explains the same images and not the overlays in ./cam."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path)
    for _ in range(2):
        code, out, err = run(capsys, ".", "--layers", "bn2", "--json")
        assert code == 0 and len(out.splitlines()) == 2, err
    code, _, err = run(capsys, "cam")
    assert code == 2 and "cam: contains only images that seewhy wrote" in err
    save_images(Path("cam"), 1)  # an image that is no output
    assert len(run(capsys, ".", "--layers", "bn2", "--json")[1].splitlines()) == 3
