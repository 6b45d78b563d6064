"""`seewhy layers`, `seewhy methods` and `seewhy models`."""

from __future__ import annotations

import json

import pytest

from seewhy.methods.catalog import METHODS
from support.command import run


def test_layers(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "layers")
    assert code == 0 and "conv_stem" in out and "bn2" in out and "suggested" in out and "49 layers" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80 and "the last grid on which the scores depend" in out
    assert "bn1" not in out and "bn1" in run(capsys, "layers", "--all")[1]


def test_layers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(run(capsys, "layers", "--json", "--size", "128x160")[1])
    assert record["suggested"] == "bn2" and record["input"] == [3, 128, 160]
    assert record["layers"][-1]["grid"] == [4, 5]


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "models", "*resnet18")[1].split() == ["torchvision/resnet18"]
    assert any(name.startswith("timm/resnet18.") for name in run(capsys, "models", "resnet18")[1].split())


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "methods")
    assert code == 0
    for entry in METHODS:
        assert f"\n{entry.name} " in f"\n{out}"
    code, out, _ = run(capsys, "methods", "score-cam")
    assert code == 0 and "settings: variant=authors, batch_size=None" in out and "CVPRW 2020" in out
    assert "\\n" not in out and "\nReferences:\n" in out  # lines of the docstring stay lines
    records = json.loads(run(capsys, "methods", "--json")[1])
    assert [record["name"] for record in records] == [entry.name for entry in METHODS]
    assert run(capsys, "methods", "scorcam")[0] == 2
