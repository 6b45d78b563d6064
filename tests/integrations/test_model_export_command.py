"""`seewhy export-model`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command import run

MODEL = "timm/test_resnet?pretrained=false&num_classes=4"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_writes_a_file_and_states_what_it_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "export-model", MODEL, "--map", "cam", "--to", "onnx", "--heatmap")
    assert code == 0 and (folder / "test_resnet_cam.onnx").exists()
    assert "scores and the cam map of" in out and "Compared with seewhy on 4 images: maps differ by at most" in out


@pytest.mark.full
def test_the_command_prints_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "export-model", MODEL, "--to", "pt2", "-o", "net.pt2", "--json", "-t", "top2")
    document = json.loads(out)
    assert code == 0 and document["path"] == "net.pt2" and document["outputs"]["map"][:2] == ["batch", 2]
    assert document["size"] == (folder / "net.pt2").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no model. Name one: seewhy export-model resnet18"),
        (("a", "b"), "2 models. Name one"),
        ((MODEL, "--map", "gradcam++"), "map"),
        ((MODEL, "--layer", "nowhere"), "no layer 'nowhere'"),
        ((MODEL, "--batch", "0"), "--batch 0: give at least 1"),
        ((MODEL, "-o", "missing/sub/net.onnx", "--to", "tflite"), "--to"),
        (("no_such_model",), "no model 'no_such_model'"),
    ],
)
def test_user_errors_are_one_line(
    arguments: tuple[str, ...], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "export-model", *arguments)
    assert code == 2 and not out
    assert message in err.splitlines()[-1] and "Traceback" not in err
    assert not list(folder.iterdir())
