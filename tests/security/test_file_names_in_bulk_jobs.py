"""Bulk jobs accept file names that are not UTF-8."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

import seewhy
from seewhy.bulk.job import BulkJob, Outcome
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.errors import UsageError
from support.untrusted_files import make_network, save_images

NOT_UTF8 = (b"caf\xe9.png", b"\x1b[31mred.png", b"broken\xe9.png")


def start(model: seewhy.LoadedModel, source: Path, out: Path) -> tuple[Outcome, str]:
    """Run a job and return its outcome and what it prints."""
    file = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    outcome = BulkJob(
        model, [str(source)], out, BulkSettings(), Execution(workers=0), console=Console(file=file, width=200)
    ).run()
    return outcome, file.buffer.getvalue().decode()  # type: ignore[attr-defined]


def test_names_of_images_folders_and_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of images, of their folder and of the model are written as text, or read back unchanged."""
    monkeypatch.chdir(tmp_path)
    top, out = Path(os.fsdecode(b"t\xe9p")), Path("run")
    folder = top / os.fsdecode(b"d\xe9ta")
    top.mkdir()
    save_images(folder, 1)
    for name in NOT_UTF8:
        shutil.copy(folder / "0.png", os.path.join(os.fsencode(folder), name))
    (folder / os.fsdecode(NOT_UTF8[-1])).write_bytes(b"no image")
    model = seewhy.LoadedModel(make_network(), seewhy.Preprocess.imagenet(32), uri=os.fsdecode(b"w\xe9.pth"))
    outcome, text = start(model, top, out)
    assert (outcome.images, outcome.failed) == (4, 1)
    assert "broken\\xe9.png" in text and all(line.isprintable() for line in text.splitlines())
    run = seewhy.read_run(out)
    assert run.model["model"] == model.uri
    assert "d\\xe9ta/caf\\xe9.png" in run.table["id"].to_pylist()
    assert [json.loads(line) for line in (out / "log-0-of-1.jsonl").read_text("utf-8").splitlines()]
    assert start(model, top, out)[0].images_before == 4


def test_names_of_run_folders_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow cannot open a run folder or a table whose name is not UTF-8, which is reported in one line."""
    monkeypatch.chdir(tmp_path)
    save_images(Path("photos"), 1)
    model = seewhy.LoadedModel(make_network(), seewhy.Preprocess.imagenet(32))
    out = Path(os.fsdecode(b"r\xe9"))
    for call in (seewhy.read_run, lambda path: start(model, Path("photos"), path)):
        with pytest.raises(UsageError, match=r"r\\xe9: the name of this run folder is not UTF-8"):
            call(out)
    assert not out.exists()
    table = Path(os.fsdecode(b"t\xe9.csv"))
    table.write_text("path\n")
    with pytest.raises(UsageError, match="this table cannot be read"):
        start(model, table, Path("run"))
